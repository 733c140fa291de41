"""Find rows that matter more than others.

A row that alone decides about a parameter, such as the only one of its category, is seldom among
those that pilot chains and minibatches read: draws would be those of a posterior without it, and
nothing would show that. Where it is read, it throws a chain far at once, and no theory of small
moves holds. Its gradients near the mode tell it: in units of the parameters' standard deviations,
those of N equal rows are about N^-1/2 long. The mode alone is no place to look at: where the prior
is wide, such a row is fitted with no slope at all.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["FEW", "chosen_rows", "influences"]

# A row matters if its gradient moves a mean by so many standard deviations: then it has some
# hundredths of what is known about a parameter, and moves a chain by a fifth of the posterior's
# width at each visit if an epoch is as long as its memory. At most FEW are chosen, and of few rows
# a PART.
MATTERS, FEW, PART = 0.2, 1024, 1 / 8
# Rows whose gradients are in memory together.
TOGETHER = 4096


def influences(
    log_density: Callable, coordinates: Coordinates, positions: jax.Array, rows: ArrayTree
) -> tuple[jax.Array, jax.Array]:
    """Return (N,) largest slopes at some positions, of the log likelihood of each of N rows.

    The (N,) numbers of the directions along which they are largest are returned too.

    Parameters
    ----------
    log_density
        ``log_density(theta, row)``, the estimate of all rows' log density from one row.
    coordinates
        Those of the posterior: a slope is along a direction of theirs, for a move by one posterior
        standard deviation.
    positions
        (P, D) positions z.
    rows
        Pytree of arrays (N, ...).
    """
    size, along = jax.tree.leaves(rows)[0].shape[0], coordinates.projector()
    points = jax.vmap(coordinates.to_model)(positions)
    gradients = jax.vmap(jax.grad(log_density), (0, None))

    def slope(row):
        alone = jax.tree.map(lambda x: x[None], row)
        slopes = jnp.abs(along(gradients(points, alone))).max(0) / size
        return slopes.max(), jnp.argmax(slopes)

    return jax.lax.map(slope, rows, batch_size=min(size, TOGETHER))


def chosen_rows(influence: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """Return the indices of the rows that matter, FEW at most.

    Where they are more, those of directions along which few matter are chosen: each of these says
    more than one of many that are alike, and to have some of the many in every batch helps little.

    Parameters
    ----------
    influence, direction
        (N,) slopes, and the number of the direction along which each of them is.
    """
    influence = np.where(np.isfinite(influence), influence, np.inf)
    found = np.flatnonzero(influence > MATTERS)
    number = np.bincount(direction[found])[direction[found]] if len(found) else found
    order = np.lexsort((direction[found], number))
    # Whole directions only, as many as there is room for.
    ends = np.flatnonzero(np.diff(direction[found][order], append=-1)) + 1
    ends = ends[ends <= min(FEW, PART * len(influence))]
    return np.sort(found[order][: ends[-1]]) if len(ends) else found[:0]
