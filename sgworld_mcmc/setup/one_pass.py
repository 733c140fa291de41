"""Compute value, gradient and Hessian of the log density in one pass over the rows.

The Hessian is the derivative of the gradient in all D directions, so the gradient itself comes with
it at no cost, and the rows are read once instead of twice.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.protocols import Feed
from sgworld_mcmc.setup.influential_rows import Look, powers

__all__ = ["Expansion", "expand"]


class Expansion(NamedTuple):
    """The log density around a point, to second order.

    Attributes
    ----------
    value
        The log density at the point.
    gradient
        (D,) gradient of the log density.
    hessian
        (D, D) Hessian of the potential, which is minus the log density.
    powers
        (D,) sums of powers of the rows' slopes, by which rows that matter are seen, or None.
    """

    value: jax.Array
    gradient: jax.Array
    hessian: jax.Array
    powers: jax.Array | None = None


def expand(
    log_density: Callable,
    position: jax.Array,
    feed: Feed,
    used: jax.Array | int | None = None,
    first: jax.Array | int = 0,
    look: tuple[Look, int] | None = None,
) -> Expansion:
    """Expand ``log_density(position, rows)`` of all rows, summed batch by batch.

    If ``used`` is given, only ``used`` batches are summed, beginning with number ``first``. With
    ``look``, which holds where to look and N, slopes are looked at on the way
    (:func:`~sgworld_mcmc.setup.influential_rows.powers`).
    """

    def estimate(position, rows):
        def gradient(x):
            value, slope = jax.value_and_grad(log_density)(x, rows)
            return slope, (value, slope)

        curvature, (value, slope) = jax.jacfwd(gradient, has_aux=True)(position)
        sums = None if look is None else powers(log_density, *look, rows)
        return value, slope, curvature, sums

    value, slope, curvature, sums = epoch_mean(estimate, position, feed, used, first=first)
    return Expansion(value, slope, -(curvature + curvature.T) / 2, sums)
