"""Estimate gradients of all rows from a part of them, around a center where they are known.

The gradient and the Hessian of all rows at the center give the estimate to first order in the
distance. The rest, of second order for every row, is estimated from a part of the rows: with as
few as a thousand rows its noise is small beside the scatter of posterior draws.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.protocols import ArrayTree, Gradient

__all__ = ["part_gradients"]


def part_gradients(
    target: Callable,
    positions: jax.Array,
    gradient: Gradient,
    controls: ArrayTree,
    rows: tuple,
    length: int,
) -> jax.Array:
    """Estimate (S, D) gradients at positions (S, D) without bias, each from rows of its own.

    Parameters
    ----------
    target
        ``target(z, rows)``, the log density in coordinates whose origin is the center.
    gradient, controls
        Control variates, and the derivatives of all rows at the center that they need.
    rows
        Pytree of arrays (N, ...), N at least S times ``length``: rows in random order.
    length
        Number of rows for each position, static.
    """

    def one(inputs):
        number, z = inputs
        start = number * length
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, length)[None], rows)
        feed = FixedPartition(part)
        return gradient(target, controls, feed, z, feed.fetch((), 0), 0)

    return jax.lax.map(one, (jnp.arange(len(positions)), positions))
