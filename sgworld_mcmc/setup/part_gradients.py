"""Gradients of all rows, estimated from a part of them around a center where they are known.

The gradient and the Hessian of all rows at the center are the estimate to first order in the
distance. What a part of the rows tells is the rest, which is of second order for every row: with
as few as some thousand rows its noise is small beside the scatter of posterior draws.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from blackjax.types import ArrayTree

from sgworld_mcmc.gradients.estimators import Anchor

__all__ = ["corrected_gradients", "part_gradients"]


def corrected_gradients(
    log_density: Callable, rows: ArrayTree, anchor: Anchor, positions: jax.Array
) -> jax.Array:
    """(P, D) gradients from the same rows, with control variates of the order of the anchor's.

    Parameters
    ----------
    log_density
        ``log_density(z, rows)`` in coordinates whose origin is the center.
    anchor
        Gradient of all rows at the center, and its Jacobian; without that they are of first order.
    positions
        (P, D).
    """
    gradient = jax.grad(log_density)

    def one(position):
        value = gradient(position, rows)
        base, change = jax.jvp(
            lambda x: gradient(x, rows), (jnp.zeros_like(position),), (position,)
        )
        if isinstance(anchor.curvature, tuple):  # no Hessian: of first order
            return value - base + anchor.offsets
        return value - base - change + anchor.offsets + anchor.curvature @ position

    return jax.vmap(one)(positions)


def part_gradients(
    log_density: Callable, positions: jax.Array, anchor: Anchor, rows: tuple, length: int
) -> jax.Array:
    """(S, D) gradients at positions (S, D), unbiased: each from ``length`` rows of its own.

    Parameters
    ----------
    log_density, anchor
        See :func:`corrected_gradients`.
    rows
        Pytree of arrays (N, ...), N at least S times ``length``: rows in random order.
    length
        Static.
    """

    def one(inputs):
        number, z = inputs
        start = number * length
        part = jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, length), rows)
        return corrected_gradients(log_density, part, anchor, z[None])[0]

    return jax.lax.map(one, (jnp.arange(len(positions)), positions))
