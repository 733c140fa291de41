"""The derivatives of every batch at the origin, for models whose latents go by group.

A step with Taylor control variates then costs little more than one gradient of the batch. The
Hessian of a batch is kept as blocks for the groups, their coupling to the parameters without a
group, and one small matrix for each row where two groupings cross (docs/theory.md, section 2.7).
"""

from itertools import combinations
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy

__all__ = ["BatchExpansions", "Crossing", "GroupBlocks"]


class GroupBlocks(NamedTuple):
    """Hessians of M batches for one grouping: G groups of q parameters, s without a group.

    Attributes
    ----------
    columns
        (G, q) places of the groups' parameters in the flat position.
    blocks
        (M, G, q, q) blocks of the groups.
    coupling
        (M, G, q, s) coupling to the parameters without a group.
    """

    columns: jax.Array
    blocks: jax.Array
    coupling: jax.Array


class Crossing(NamedTuple):
    """Hessians of M batches of up to L rows, between the parameters of two groupings.

    Attributes
    ----------
    one, other
        (M, L) groups of the rows in the two groupings.
    values
        (M, L, q, r) matrix of each row; zero where there is no row.
    """

    one: jax.Array
    other: jax.Array
    values: jax.Array


class BatchExpansions(NamedTuple):
    """Gradients of the log density at the origin, and Hessians of the potential, of M batches.

    Attributes
    ----------
    gradients
        (M, D) gradients.
    groups
        The :class:`GroupBlocks` of each grouping.
    crossings
        The :class:`Crossing` of each pair of groupings, in the order of ``combinations``.
    rest
        (M, s, s) Hessians of the parameters without a group.
    places
        (s,) places of these parameters in the flat position.
    order
        (D,) where, behind one another in all groupings and the rest, the parameters of the flat
        position are.
    """

    gradients: jax.Array
    groups: tuple[GroupBlocks, ...]
    crossings: tuple[Crossing, ...]
    rest: jax.Array
    places: jax.Array
    order: jax.Array

    def at(self, index: jax.Array | int, change: jax.Array) -> jax.Array:
        """Return the gradient (D,) of a batch at a change of theta (D,), to first order."""
        return self.gradients[index] - self._product(index, change)

    def cast(self, dtype: Any, factor: float) -> "BatchExpansions":
        """Return the derivatives of ``factor`` log p, with JAX arrays of this precision."""

        def one(x):
            whole = np.issubdtype(x.dtype, np.integer)
            return from_numpy(x, np.int32) if whole else from_numpy(factor * x, dtype)

        return jax.tree.map(one, self)

    def mean_product(self, change: np.ndarray) -> np.ndarray:
        """Return the product of the batches' mean Hessian with a change (D,), all in NumPy."""
        shared = change[self.places]
        parts = [change[group.columns] for group in self.groups]
        rest, made = self.rest.mean(0) @ shared, []
        for group, part in zip(self.groups, parts, strict=True):
            coupling = group.coupling.mean(0)
            made.append((group.blocks.mean(0) @ part[..., None])[..., 0] + coupling @ shared)
            rest = rest + np.tensordot(part, coupling, 2)
        pairs = combinations(range(len(parts)), 2)
        for (a, b), (one, other, values) in zip(pairs, self.crossings, strict=True):
            values = values / len(values)
            np.add.at(made[a], one, (values @ parts[b][other][..., None])[..., 0])
            np.add.at(made[b], other, (parts[a][one][..., None, :] @ values)[..., 0, :])
        return np.concatenate([*(part.ravel() for part in made), rest])[self.order]

    def _product(self, index, change):
        shared = change[self.places]
        parts = [change[group.columns] for group in self.groups]
        rest, made = self.rest[index] @ shared, []
        for group, part in zip(self.groups, parts, strict=True):
            coupling = group.coupling[index]
            own = (group.blocks[index] * part[:, None, :]).sum(-1)
            made.append(own + coupling @ shared)
            rest = rest + jnp.tensordot(part, coupling, 2)
        pairs = combinations(range(len(parts)), 2)
        for (a, b), crossing in zip(pairs, self.crossings, strict=True):
            one, other, values = (x[index] for x in crossing)
            ahead = (values * parts[b][other][:, None, :]).sum(-1)
            back = (values * parts[a][one][:, :, None]).sum(-2)
            made[a] = made[a].at[one].add(ahead)
            made[b] = made[b].at[other].add(back)
        return jnp.concatenate([*(part.ravel() for part in made), rest])[self.order]
