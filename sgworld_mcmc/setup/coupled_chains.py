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

__all__ = ["Pilot", "PilotChains", "advance_pilot", "start_pilot", "summarise_pilot"]


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


class PilotChains(NamedTuple):
    """P chains beside their linear partners, and what has been summed so far.

    Attributes
    ----------
    positions, partners
        (P, D) whitened positions, and those of the coupled chains on the standard Gaussian.
    noise
        (P, D) carried by averaged noise.
    alive
        (P,) whether a chain has stayed within the limit; one that has not stays where it was.
    sums
        Four (P, Q): of y, y^2 and of their linear partners x, x^2.
    """

    positions: jax.Array
    partners: jax.Array
    noise: jax.Array
    alive: jax.Array
    sums: tuple[jax.Array, ...]


def start_pilot(
    generator: np.random.Generator, positions: np.ndarray, step_size: float, directions: int
) -> PilotChains:
    """Chains before their first step; the linear partners are stationary, and independent."""
    noise, rest = generator.standard_normal((2, *positions.shape))
    partners = np.sqrt(1 - step_size / 2) * rest + np.sqrt(step_size / 2) * noise
    alive = np.ones(len(positions), bool)
    sums = (np.zeros((len(positions), directions)),) * 4
    return PilotChains(positions, partners, noise, alive, sums)


def advance_pilot(
    chains: PilotChains,
    fresh: jax.Array,
    order: jax.Array,
    step_size: jax.Array,
    burn_in: jax.Array,
    steps: jax.Array,
    gradient: Callable,
    directions: jax.Array | None,
    limit: float,
) -> PilotChains:
    """Langevin steps with averaged noise.

    Parameters
    ----------
    chains
        From :func:`start_pilot`, or of the last call.
    fresh
        (S, P, D) standard normal numbers. They are an argument because JAX's random numbers
        would be a third of the time that it takes to compile a pilot.
    order
        (S,) int32 batch numbers of the steps.
    step_size, burn_in, steps
        May be traced: one compiled function serves all. The first ``steps`` <= S are made; of
        them the first ``burn_in`` do not count.
    gradient
        ``gradient(positions, batch number)``: (P, D) gradients of the log density.
    directions
        (Q, D) unit vectors along which moments are taken, or None for the axes.
    limit
        A chain with a larger coordinate has diverged.
    """
    along = (lambda z: z) if directions is None else (lambda z: z @ directions.T)

    def step(number, chains):
        z, linear, noise, alive, sums = chains
        kick = jnp.sqrt(2 * step_size) * (noise + fresh[number]) / 2
        new = z + step_size * gradient(z, order[number]) + kick
        alive = alive & jnp.all(jnp.abs(new) <= limit, axis=1)
        z = jnp.where(alive[:, None], new, z)
        linear = linear - step_size * linear + kick
        y, x = along(z), along(linear)
        counts = number >= burn_in
        values = (y, y**2, x, x**2)
        sums = tuple(s + jnp.where(counts, v, 0) for s, v in zip(sums, values, strict=True))
        return PilotChains(z, linear, fresh[number], alive, sums)

    return jax.lax.fori_loop(0, steps, step, chains)


def summarise_pilot(chains: PilotChains, counted: int, step_size: float) -> Pilot:
    """Moments with the linear partners as control variates, regressed direction by direction.

    The partners' exact moments are 0 and 1 at every step size below 2 (averaged noise);
    ``counted`` is the number of steps that were summed.
    """
    alive = np.asarray(chains.alive)
    diverged = 1 - alive.mean()
    means = (np.asarray(total, float)[alive] / counted for total in chains.sums)
    first, second, linear_first, linear_second = means
    if alive.sum() < 4:
        nan = np.full(first.shape[1], np.nan)
        return Pilot(step_size, nan, nan, nan, nan, diverged)
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
