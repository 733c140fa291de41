"""Find rows that matter much more than others, and what noise they add.

Noise is measured on a random part of many rows. A row that alone decides about a parameter, such as
the only one of its category, is seldom among them, and minibatches seldom read it: draws would be
those of a posterior without it, and nothing would show that. Its gradient at the mode tells it: in
units of the parameters' standard deviations, gradients of N equal rows are about N^-1/2 long.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["FEW", "chosen_rows", "influences"]

# A row matters if its gradient moves a mean by so many standard deviations. At most FEW are looked
# at: where there are more, a random part of the rows has some.
MATTERS, FEW = 0.03, 256
# Rows whose gradients are in memory together.
TOGETHER = 4096


def influences(log_density: Callable, coordinates: Coordinates, rows: ArrayTree) -> jax.Array:
    """Return (N,) largest slopes at the center, of the log likelihood of each of N rows.

    Parameters
    ----------
    log_density
        ``log_density(theta, row)``, the estimate of all rows' log density from one row.
    coordinates
        Those of the posterior: a slope is along a direction of theirs, for a move by one posterior
        standard deviation.
    rows
        Pytree of arrays (N, ...).
    """
    size, along = jax.tree.leaves(rows)[0].shape[0], coordinates.projector()
    gradient = jax.grad(log_density)

    def slope(row):
        alone = jax.tree.map(lambda x: x[None], row)
        return jnp.abs(along(gradient(coordinates.center, alone))).max() / size

    return jax.lax.map(slope, rows, batch_size=min(size, TOGETHER))


def chosen_rows(influence: np.ndarray) -> np.ndarray:
    """Return the indices of the rows that matter, FEW at most and the largest of them."""
    influence = np.where(np.isfinite(influence), influence, np.inf)
    largest = np.argsort(-influence, kind="stable")[:FEW]
    return np.sort(largest[influence[largest] > MATTERS])
