"""Find rows that matter more than others.

A row that alone decides about a parameter, such as the only one of its category, is seldom among
those that pilot chains and minibatches read: draws would be those of a posterior without it, and
nothing would show that. Where it is read, it throws a chain far at once, and no theory of small
moves holds. Its gradients near the mode tell it: in units of the parameters' standard deviations,
those of N equal rows are about N^-1/2 long. The mode alone is no place to look at: where the prior
is wide, such a row is fitted with no slope at all.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["FEW", "MATTERS", "Look", "are_very_many", "chosen_rows", "decided_by_rows"]
__all__ += ["influences", "look_about", "places_about", "powers"]

# A row matters if its gradient moves a mean by so many standard deviations: then it has some
# hundredths of what is known about a parameter, and moves a chain by a fifth of the posterior's
# width at each visit if an epoch is as long as its memory. At most FEW are chosen, and of few rows
# a PART.
MATTERS, FEW, PART = 0.2, 1024, 1 / 8
# A pass of its own is made to look for rows that matter among so many. Among more rows, of which a
# pass counts, the pass that finds the Hessian tells whether there are any.
MOST_ROWS = 2**21
# Rows whose gradients are in memory together.
TOGETHER = 4096
# Slopes are looked at so many standard deviations from the center. Of so many vectors of random
# signs that is taken which comes close to it along all parameters.
FAR, SIGNS = 2.0, 64
# In a sum of slopes to this power a row that matters outweighs all that do not.
POWER = 8


def are_very_many(size: float) -> bool:
    """Return whether no pass is made to look for rows that matter among N, unless some are seen."""
    return size > MOST_ROWS


def places_about(generator: np.random.Generator, coordinates: Coordinates) -> np.ndarray:
    """Return two opposite positions z (2, D) at which the slopes of rows are looked at.

    They are FAR from the center along all parameters, as well as signs can do that within the reach
    of the posterior.
    """
    dimension = len(coordinates.center)
    signs = generator.choice([-FAR, FAR], (SIGNS, dimension))
    z = coordinates.solve(signs * coordinates.deviations())
    z /= np.maximum(np.linalg.norm(z, axis=1, keepdims=True) / (FAR * dimension**0.5), 1)
    best = z[np.abs(coordinates.along(z)).min(1).argmax()]
    return np.stack([best, -best])


class Look(NamedTuple):
    """Where, and along what, slopes of rows are looked at.

    Attributes
    ----------
    coordinates
        Those of the posterior: a slope is along a direction of theirs, for a move by one posterior
        standard deviation.
    positions
        (P, D) positions z.
    tangents
        (R, D) directions of the parameters along which slopes are looked at, or None for all
        directions of the coordinates.
    """

    coordinates: Coordinates
    positions: jax.Array
    tangents: jax.Array | None = None


def look_about(coordinates: Coordinates, shared: np.ndarray | None = None) -> Look:
    """Return where to look at slopes about a point, as JAX arrays.

    Where parameters go by group, slopes along those that are ``shared`` (R,) are looked at only:
    what a group has of its own is decided by few rows anyway.
    """
    places, tangents = places_about(np.random.default_rng(0), coordinates), None
    if shared is not None:
        tangents = np.zeros((len(shared), len(coordinates.center)))
        tangents[np.arange(len(shared)), shared] = coordinates.deviations()[shared]
    return Look(*jax.tree.map(from_numpy, (coordinates, places, tangents)))


def influences(
    log_density: Callable, look: Look, size: int, rows: ArrayTree
) -> tuple[jax.Array, jax.Array]:
    """Return (n,) largest slopes at some positions, of the log likelihood of each of n rows.

    The (n,) numbers of the directions along which they are largest are returned too.

    Parameters
    ----------
    log_density
        ``log_density(theta, row)``, the estimate of all rows' log density from one row.
    look
        Where to look.
    size
        Number N of all rows.
    rows
        Pytree of arrays (n, ...).
    """
    slopes_of = _slopes_of(log_density, look, size)

    def slope(row):
        slopes = slopes_of(row)
        return slopes.max(), jnp.argmax(slopes)

    number = jax.tree.leaves(rows)[0].shape[0]
    return jax.lax.map(slope, rows, batch_size=min(number, TOGETHER))


def powers(log_density: Callable, look: Look, size: int, rows: ArrayTree) -> jax.Array:
    """Return the (D,) or (R,) sums of powers of the slopes of N rows, estimated from some of them.

    Sums can be added up in any pass over rows that are not in memory together; see
    :func:`decided_by_rows`. The parameters are those of :func:`influences`.
    """
    slopes = jax.vmap(_slopes_of(log_density, look, size))(rows)
    return size * jnp.mean(slopes**POWER, axis=0)


def decided_by_rows(sums: np.ndarray) -> tuple[int, ...]:
    """Return the numbers of the directions along which single rows matter, from sums of powers."""
    return tuple(np.flatnonzero(~(np.asarray(sums) <= MATTERS**POWER)).tolist())


def _slopes_of(log_density: Callable, look: Look, size: int) -> Callable:
    """Return a function of a row: its (D,) or (R,) largest slopes at the positions."""
    along, points = (
        look.coordinates.projector(),
        jax.vmap(look.coordinates.to_model)(look.positions),
    )
    gradients = jax.vmap(jax.grad(log_density), (0, None))

    def few(point, row):
        value = lambda x: log_density(x, row)  # noqa: E731
        return jax.vmap(lambda v: jax.jvp(value, (point,), (v,))[1])(look.tangents)

    def slopes(row):
        alone = jax.tree.map(lambda x: x[None], row)
        if look.tangents is None:
            found = along(gradients(points, alone))
        else:
            found = jax.vmap(few, (0, None))(points, alone)
        return jnp.abs(found).max(0) / size

    return slopes


def chosen_rows(
    influence: np.ndarray, direction: np.ndarray, size: int | None = None
) -> np.ndarray:
    """Return the indices of the rows that matter, FEW at most.

    Where they are more, those of directions along which few matter are chosen: each of these says
    more than one of many that are alike, and to have some of the many in every batch helps little.

    Parameters
    ----------
    influence, direction
        (n,) slopes, and the number of the direction along which each of them is.
    size
        Number N of all rows, if those that do not matter are left out; default n.
    """
    size = len(influence) if size is None else size
    influence = np.where(np.isfinite(influence), influence, np.inf)
    found = np.flatnonzero(influence > MATTERS)
    number = np.bincount(direction[found])[direction[found]] if len(found) else found
    order = np.lexsort((direction[found], number))
    # Whole directions only, as many as there is room for.
    ends = np.flatnonzero(np.diff(direction[found][order], append=-1)) + 1
    ends = ends[ends <= min(FEW, PART * size)]
    return np.sort(found[order][: ends[-1]]) if len(ends) else found[:0]
