"""What happens to a chain before its first step: initial point, mode, curvature, step size."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.types import PRNGKey

from sgworld_mcmc.infer.estimator import Anchor, make_anchor, whitened_log_density
from sgworld_mcmc.infer.model import MinibatchModel
from sgworld_mcmc.minibatch import Batches, RowBatches, fetch, num_batches
from sgworld_mcmc.tuning.bias import time_per_epoch
from sgworld_mcmc.tuning.curvature import (
    apply_scale,
    diagonal_hessian,
    diagonal_scale,
    largest_curvature,
    newton_mode,
)
from sgworld_mcmc.tuning.mode import find_mode

__all__ = ["Start", "automatic_batch_size", "automatic_time", "initial_position", "set_up"]

# The D x D Hessian costs D gradients: up to here that is less than a sampling run.
DENSE_DIMENSION = 200
INITIAL_TRIES = 10


class Start(NamedTuple):
    """Where and how a chain starts: see :class:`~sgworld_mcmc.infer.state.SGMCMCState`."""

    position: jax.Array
    center: jax.Array
    scale: jax.Array
    step_size: jax.Array
    anchor: Anchor


def automatic_batch_size(size: int) -> int:
    """About ten batches of up to 1000 rows: below, the loop costs more than the gradients.

    A number of batches that divides N is preferred, up to 1.6 times as many: batches of one size
    need no extra row and compile in half the time.
    """
    count = -(-size // min(size, max(32, min(1000, -(-size // 10)))))
    divisor = next((m for m in range(count, int(1.6 * count) + 1) if size % m == 0), count)
    return -(-size // divisor)


def automatic_time(tolerance: float, count: int, order: str, noise: str) -> float:
    """Time per epoch T = h M, in units of the stiffest curvature, for plain gradients.

    The largest T whose predicted error of the posterior variance is ``tolerance``: about
    (24 tolerance)^(1/3) without replacement and 2 tolerance with (docs/theory.md, section 2.2).
    """
    if count == 1:
        # One batch is the full gradient: nothing is subsampled, and only the Euler error h/2
        # remains, which averaged noise removes on a Gaussian.
        time = (24 * tolerance) ** (1 / 3)
        return min(time, 2 * tolerance) if noise == "independent" else time
    return float(time_per_epoch(tolerance, count, scheme=order, noise=noise))


def initial_position(
    rng_key: PRNGKey,
    model: MinibatchModel,
    strategy: Callable,
    batches: Batches | RowBatches,
    constants: tuple,
) -> jax.Array:
    """(D,) the first of ten points of an initialisation strategy where the model is finite."""
    rows = fetch(batches, jnp.zeros((), jnp.int32)).main

    def candidate(key):
        return model.ravel(model.initial_params(key, strategy, rows, constants))

    candidates = jax.vmap(candidate)(jax.random.split(rng_key, INITIAL_TRIES))
    values = jax.vmap(lambda flat: model.log_density(flat, rows, constants))(candidates)
    return candidates[jnp.argmax(jnp.isfinite(values))]


def set_up(
    rng_key: PRNGKey,
    model: MinibatchModel,
    initial: jax.Array,
    batches: Batches | RowBatches,
    constants: tuple,
    preconditioner: str | np.ndarray,
    step_size: float | None,
    time: float,
    gradient: str,
    fixed_partition: bool,
) -> Start:
    """Find the mode, measure the curvature there, and start near it.

    The chain starts at a draw of the Gaussian approximation at the mode, so that several chains
    start apart and burn-in is short; without a preconditioner it starts at the mode.

    Parameters
    ----------
    initial
        (D,) unconstrained initial point.
    preconditioner
        ``"dense"``, ``"diagonal"``, ``"none"``, or an estimate of the posterior covariance,
        (D, D) or (D,).
    step_size, time
        A step size, or None for ``time`` / (M * largest curvature).
    gradient, fixed_partition
        Kind of gradient, and whether the batches keep their rows: for the control variates.
    """
    mode_key, probe_key, power_key, start_key = jax.random.split(rng_key, 4)

    def log_density(flat, rows):
        return model.log_density(flat, rows, constants)

    center = find_mode(mode_key, initial, log_density, batches).position
    if isinstance(preconditioner, str) and preconditioner == "dense":
        center, scale = newton_mode(log_density, center, batches)
    elif isinstance(preconditioner, str) and preconditioner == "diagonal":
        scale = diagonal_scale(diagonal_hessian(probe_key, log_density, center, batches))
    elif isinstance(preconditioner, str):
        scale = jnp.ones_like(center)
    else:
        covariance = jnp.asarray(preconditioner, center.dtype)
        scale = jnp.linalg.cholesky(covariance) if covariance.ndim == 2 else jnp.sqrt(covariance)

    dense = isinstance(preconditioner, str) and preconditioner == "dense"
    if step_size is None and dense:
        step_size = time / num_batches(batches)
    elif step_size is None:
        stiffest = largest_curvature(power_key, log_density, center, scale, batches)
        step_size = time / (num_batches(batches) * stiffest)

    position = jax.random.normal(start_key, center.shape, center.dtype)
    if isinstance(preconditioner, str) and preconditioner == "none":
        position = jnp.zeros_like(position)
    whitened = whitened_log_density(model, constants, center, scale)
    anchor = make_anchor(gradient, whitened, center, batches, fixed_partition)
    return Start(position, center, scale, jnp.asarray(step_size, center.dtype), anchor)


def unconstrained_sites(model: MinibatchModel) -> Callable:
    """Function of (center, scale, position) that returns the dict of unconstrained sites."""
    return lambda center, scale, position: model.unravel(center + apply_scale(scale, position))
