"""The curvature of the potential at a point, and preconditioners made of it.

A preconditioner is written K, with K K^T an estimate of the posterior covariance: the sampler
runs in z, theta = theta0 + K z, where the curvature is about one and step sizes are dimensionless
(docs/theory.md, section 2.3). K is a (D, D) array or, if diagonal, a (D,) one.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from blackjax.types import PRNGKey

from sgworld_mcmc.gradients import epoch_mean
from sgworld_mcmc.minibatch import Batches, RowBatches

__all__ = [
    "apply_scale",
    "dense_hessian",
    "dense_scale",
    "diagonal_hessian",
    "diagonal_scale",
    "largest_curvature",
    "newton_mode",
]

# Directions flatter than this, relative to the stiffest one after equilibration, are taken to be
# as stiff as that: an indefinite or singular Hessian says nothing about their width.
FLOOR = 1e-6
PROBES = 64
POWER_STEPS = 30


def apply_scale(scale: jax.Array, z: jax.Array) -> jax.Array:
    """K z for a dense (D, D) or diagonal (D,) K."""
    return scale @ z if scale.ndim == 2 else scale * z


def dense_hessian(
    log_density: Callable, position: jax.Array, batches: Batches | RowBatches
) -> jax.Array:
    """(D, D) Hessian of the potential of all rows, summed batch by batch."""
    hessian = -epoch_mean(jax.hessian(log_density), position, batches)
    return (hessian + hessian.T) / 2


def hessian_product(
    log_density: Callable, position: jax.Array, vector: jax.Array, batches: Batches | RowBatches
) -> jax.Array:
    """H v, the Hessian of the potential of all rows times a vector (D,)."""

    def product(x, rows):
        return jax.jvp(lambda y: jax.grad(log_density)(y, rows), (x,), (vector,))[1]

    return -epoch_mean(product, position, batches)


def diagonal_hessian(
    rng_key: PRNGKey, log_density: Callable, position: jax.Array, batches: Batches | RowBatches
) -> jax.Array:
    """(D,) diagonal of the Hessian: exact up to 64 dimensions, else from 64 random probes."""
    dimension = position.shape[0]
    if dimension <= PROBES:
        probes = jnp.eye(dimension, dtype=position.dtype)
    else:
        probes = jax.random.rademacher(rng_key, (PROBES, dimension), position.dtype)
    products = jax.lax.map(lambda v: v * hessian_product(log_density, position, v, batches), probes)
    return products.sum(0) * (1 if dimension <= PROBES else 1 / PROBES)


def dense_scale(hessian: jax.Array) -> jax.Array:
    """K with K K^T = H^-1 for positive definite H; else of |H|, its flattest directions cut.

    The Hessian is scaled to unit diagonal first, so that coordinates of very different units do
    not cost precision; eigenvalues then count by their absolute value and at least ``FLOOR``.
    """
    units = jnp.sqrt(jnp.maximum(jnp.abs(jnp.diagonal(hessian)), jnp.finfo(hessian.dtype).tiny))
    values, vectors = jnp.linalg.eigh(hessian / units[:, None] / units[None, :])
    values = jnp.maximum(jnp.abs(values), FLOOR * jnp.max(jnp.abs(values)))
    return vectors / jnp.sqrt(values) / units[:, None]


def diagonal_scale(diagonal: jax.Array) -> jax.Array:
    """(D,) K = |diag H|^-1/2, entries below ``FLOOR`` times the largest raised to it."""
    diagonal = jnp.abs(diagonal)
    return 1 / jnp.sqrt(jnp.maximum(diagonal, FLOOR * jnp.max(diagonal)))


def largest_curvature(
    rng_key: PRNGKey,
    log_density: Callable,
    position: jax.Array,
    scale: jax.Array,
    batches: Batches | RowBatches,
) -> jax.Array:
    """Largest eigenvalue of K^T H K, by 30 power steps: the stiffest direction left over."""

    def whitened(vector):
        product = hessian_product(log_density, position, apply_scale(scale, vector), batches)
        return apply_scale(scale.T, product)

    def step(_, carry):
        vector, _ = carry
        product = whitened(vector)
        value = jnp.linalg.norm(product)
        return product / jnp.maximum(value, jnp.finfo(vector.dtype).tiny), value

    start = jax.random.normal(rng_key, position.shape, position.dtype)
    carry = (start / jnp.linalg.norm(start), jnp.zeros((), position.dtype))
    return jax.lax.fori_loop(0, POWER_STEPS, step, carry)[1]


def newton_mode(
    log_density: Callable, position: jax.Array, batches: Batches | RowBatches
) -> tuple[jax.Array, jax.Array]:
    """The mode by chord-Newton steps theta + K K^T grad log p, and K = H^-1/2 there.

    Two rounds, each with a Hessian and three steps; a step is kept only if it brings the mode
    nearer. They use gradients alone, so that they reach the mode where the log density itself
    is too coarse in single precision to be compared at two points.
    """

    def step(_, carry):
        x, proposal, norm, scale = carry
        gradient = apply_scale(scale.T, epoch_mean(jax.grad(log_density), proposal, batches))
        new = jnp.sum(gradient**2)
        nearer = new < norm  # False for NaN
        x = jnp.where(nearer, proposal, x)
        proposal = jnp.where(nearer, x + apply_scale(scale, gradient), x)
        return x, proposal, jnp.where(nearer, new, norm), scale

    def turn(_, carry):
        x, _ = carry
        scale = dense_scale(dense_hessian(log_density, x, batches))
        infinity = jnp.array(jnp.inf, x.dtype)
        return jax.lax.fori_loop(0, 4, step, (x, x, infinity, scale))[0], scale

    dimension = position.shape[0]
    empty = jnp.zeros((dimension, dimension), position.dtype)
    return jax.lax.fori_loop(0, 2, turn, (position, empty))
