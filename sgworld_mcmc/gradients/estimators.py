"""The kinds of minibatch gradient: plain, and control variates of first and second order.

All are in the preconditioned coordinates z, theta = center + K z, and written as an estimator from
rows plus a correction that is the same for all rows of a batch (docs/theory.md, section 2.3):

===================  =======================================  ==============================
kind                 estimator(z, rows)                       correction(z, batch m)
===================  =======================================  ==============================
``plain``            g(z)                                     none
``control_variate``  g(z)                                     full(0) - g_m(0), cached
``taylor``           g(z) - g(0) - J(0) z                     full(0) + J_full z
===================  =======================================  ==============================

with g the gradient of the log density and J its Jacobian, both estimated from the rows: g(0) comes
with J(0) z at no cost. Where the partition changes from epoch to epoch (order ``"examples"``), or
M x D numbers are too many, g_m(0) of ``control_variate`` is not cached but taken off by the
estimator.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.types import ArrayTree

from sgworld_mcmc.data.batches import Batches, RowBatches, fetch, num_batches, num_examples
from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.setup.curvature import apply_scale

__all__ = ["GRADIENTS", "Anchor", "gradient_parts", "make_offsets", "whitened_log_density"]

GRADIENTS = ("plain", "control_variate", "taylor")


class Anchor(NamedTuple):
    """What control variates need to know of the center.

    Attributes
    ----------
    offsets
        Full minus batch gradient at the center, (M, D), if they are cached; else the full gradient
        alone, (D,); ``()`` for plain gradients.
    curvature
        (D, D) Jacobian of the full gradient, for ``"taylor"``; else ``()``.
    """

    offsets: ArrayTree
    curvature: ArrayTree


def whitened_log_density(
    model: MinibatchModel, constants: tuple, center: jax.Array, scale: jax.Array
) -> Callable:
    """The log density estimated from rows as a function of (z, rows)."""

    def log_density(position, rows):
        return model.log_density(center + apply_scale(scale, position), rows, constants)

    return log_density


def make_offsets(
    log_density: Callable, origin: jax.Array, batches: Batches | RowBatches
) -> jax.Array:
    """(M, D) full minus batch gradients at the center.

    Parameters
    ----------
    log_density
        Of (z, rows): :func:`whitened_log_density`.
    origin
        (D,) zeros.
    batches
        The data as the sampler sees them.
    """
    gradient = jax.grad(log_density)
    size, count = num_examples(batches), num_batches(batches)
    each = jax.lax.map(
        lambda m: batch_estimate(gradient, origin, fetch(batches, m), size, count),
        jnp.arange(count),
    )
    return each.mean(0) - each


def gradient_parts(
    kind: str, log_density: Callable, anchor: Anchor, cached: bool
) -> tuple[Callable, Callable | None]:
    """Estimator of (z, rows), and correction of (z, batch number), for a sweep.

    ``cached`` says that the anchor holds the offset of every batch; otherwise each batch's
    gradient at the center is computed with it again.
    """
    gradient = jax.grad(log_density)
    if kind == "plain":
        return gradient, None

    def estimator(position, rows):
        value, origin = gradient(position, rows), jnp.zeros_like(position)
        if kind == "taylor":
            at_center, change = jax.jvp(lambda z: gradient(z, rows), (origin,), (position,))
            return value - change - at_center
        return value if cached else value - gradient(origin, rows)

    def correction(position, index):
        if kind == "taylor":
            return anchor.offsets + anchor.curvature @ position
        return anchor.offsets[index] if cached else anchor.offsets

    return estimator, correction
