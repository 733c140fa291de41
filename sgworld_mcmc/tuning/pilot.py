"""Short pilot chains: how much bias does a step size have that no minibatch causes?

On a Gaussian posterior averaged noise has none at any step size; elsewhere its error grows as h^2,
with a factor that only the posterior knows. The pilot runs many chains at a few step sizes. Each is
coupled to a chain on the standard Gaussian with the same noise, whose moments are known exactly:
the difference of the two is measured with far less Monte Carlo noise than either moment.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["Pilot", "linear_start", "run_pilot", "summarise_pilot"]


class Pilot(NamedTuple):
    """Moments of pilot chains at one step size, along Q directions of unit length.

    Attributes
    ----------
    step_size
        h.
    mean, mean_error
        (Q,) of the chains in whitened coordinates, and standard error.
    variance, variance_error
        (Q,) second moment about the center, less the squared mean, and standard error.
    diverged
        Fraction of the chains that left the region of finite positions.
    """

    step_size: float
    mean: np.ndarray
    mean_error: np.ndarray
    variance: np.ndarray
    variance_error: np.ndarray
    diverged: float


def linear_start(
    generator: np.random.Generator, chains: int, dimension: int, step_size: float
) -> tuple[np.ndarray, np.ndarray]:
    """Stationary positions of the coupled chains on the standard Gaussian, and their noise."""
    noise, rest = generator.standard_normal((2, chains, dimension))
    return np.sqrt(1 - step_size / 2) * rest + np.sqrt(step_size / 2) * noise, noise


def run_pilot(
    seed: jax.Array,
    positions: jax.Array,
    partners: tuple[jax.Array, jax.Array],
    order: jax.Array,
    step_size: jax.Array,
    burn_in: jax.Array,
    steps: jax.Array,
    gradient: Callable,
    directions: jax.Array | None,
    limit: float,
) -> dict[str, jax.Array]:
    """Advance (P, D) chains by Langevin steps with averaged noise, beside their linear partners.

    Parameters
    ----------
    seed
        uint32.
    positions
        (P, D) whitened starting points.
    partners
        From :func:`linear_start`.
    order
        (S,) int32 batch numbers of the steps, at least ``burn_in + steps`` of them.
    step_size, burn_in, steps
        May be traced: one compiled function serves all step sizes.
    gradient
        ``gradient(positions, batch number)``: (P, D) gradients of the log density.
    directions
        (Q, D) unit vectors along which moments are taken, or None for the axes.
    limit
        A chain with a larger coordinate has diverged, and stays where it was.

    Returns
    -------
    dict
        ``positions`` (P, D) at the end, ``alive`` (P,), and the means over time of y, y^2 and
        of their linear partners, each (P, Q).
    """
    chains = positions.shape[0]
    along = (lambda z: z) if directions is None else (lambda z: z @ directions.T)
    rng_key, (linear, noise) = jax.random.key(seed), partners

    def step(number, carry):
        z, linear, noise, alive, sums = carry
        fresh = jax.random.normal(jax.random.fold_in(rng_key, number), z.shape, z.dtype)
        kick = jnp.sqrt(2 * step_size) * (noise + fresh) / 2
        new = z + step_size * gradient(z, order[number]) + kick
        alive = alive & jnp.all(jnp.abs(new) <= limit, axis=1)
        z = jnp.where(alive[:, None], new, z)
        linear = linear - step_size * linear + kick
        y, x = along(z), along(linear)
        counts = number >= burn_in
        values = (y, y**2, x, x**2)
        sums = tuple(s + jnp.where(counts, v, 0) for s, v in zip(sums, values, strict=True))
        return z, linear, fresh, alive, sums

    zero = jnp.zeros_like(along(positions))
    carry = (positions, linear, noise, jnp.ones(chains, bool), (zero,) * 4)
    z, _, _, alive, sums = jax.lax.fori_loop(0, burn_in + steps, step, carry)
    names = ("first", "second", "linear_first", "linear_second")
    means = {name: total / steps for name, total in zip(names, sums, strict=True)}
    return {"positions": z, "alive": alive, **means}


def summarise_pilot(result: dict[str, jax.Array], step_size: float) -> Pilot:
    """Moments with the linear partners as control variates, regressed direction by direction.

    The partners' exact moments are 0 and 1 at every step size below 2 (averaged noise).
    """
    values = {name: np.asarray(value, float) for name, value in result.items()}
    alive = values["alive"].astype(bool)
    diverged = 1 - alive.mean()
    if alive.sum() < 4:
        nan = np.full(values["first"].shape[1], np.nan)
        return Pilot(step_size, nan, nan, nan, nan, diverged)
    first, second, linear_first, linear_second = (
        values[name][alive] for name in ("first", "second", "linear_first", "linear_second")
    )
    mean, mean_error = _controlled(first, linear_first, 0.0)
    # About the estimated mean: its own noise is of second order.
    centred = second - 2 * mean * first + mean**2
    variance, variance_error = _controlled(centred, linear_second, 1.0)
    return Pilot(step_size, mean, mean_error, variance, variance_error, diverged)


def _controlled(values, partner, expected):
    """Mean over chains of ``values`` (P, Q) with the partner as control variate, and its error."""
    count = len(values)
    a, b = values - values.mean(0), partner - partner.mean(0)
    spread = np.maximum((b**2).sum(0), np.finfo(float).tiny)
    slope = (a * b).sum(0) / spread
    rest = a - slope * b
    error = np.sqrt((rest**2).sum(0) / max(count - 2, 1) / count)
    return values.mean(0) - slope * (partner.mean(0) - expected), error
