"""Short pilot chains, which measure the bias that a step size causes without minibatches.

On a Gaussian posterior averaged noise has no bias at any step size, and that of other integrators
is known. On other posteriors the bias grows as h^2, with a factor that depends on the posterior.
The pilot runs many chains at a few step sizes. Each is coupled to a chain on the standard Gaussian
with the same noise, whose moments are known exactly: the difference of the two is measured with
far less Monte Carlo noise than either moment.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.integrators.averaged import Averaged, AveragedState
from sgworld_mcmc.protocols import ArrayTree, Integrator

__all__ = [
    "Pilot",
    "PilotChains",
    "PilotClock",
    "advance_chains",
    "start_chains",
    "summarise_pilot",
]


# A chain that one step moves by so many standard deviations, to a place farther out than where it
# was, has been thrown there: the step is too large for the curvature in that tail.
THROWN = 9.0


class Pilot(NamedTuple):
    """Moments of pilot chains at one step size, along Q directions of unit length.

    Attributes
    ----------
    step_size
        The step size h.
    mean, mean_error
        (Q,) mean of the chains in whitened coordinates, and its standard error.
    variance, variance_error
        (Q,) second moment about the center less the squared mean, and its standard error.
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
    """P chains with their linear partners, and the sums over the steps made so far.

    Attributes
    ----------
    chains, partners
        The integrator's states: those of the chains, with (P, D) whitened positions, and those of
        the coupled chains on the standard Gaussian, which have the same noise.
    alive
        (P,) whether a chain has stayed within the limit. A chain that has left it stops.
    sums
        Four (P, Q) sums: of y and y^2, and of x and x^2 of the linear partners.
    """

    chains: ArrayTree
    partners: ArrayTree
    alive: jax.Array
    sums: tuple[jax.Array, ...]


class PilotClock(NamedTuple):
    """The numbers that one call of :func:`advance_chains` is given when it runs.

    They are no part of the compiled function, so that one function serves all calls.

    Attributes
    ----------
    step_size
        The step size h.
    burn_in
        Number of first steps that are not summed.
    steps
        Number of steps to make.
    limit
        A chain with a larger coordinate has diverged.
    """

    step_size: jax.Array
    burn_in: jax.Array
    steps: jax.Array
    limit: jax.Array | float


def start_chains(
    generator: np.random.Generator,
    positions: np.ndarray,
    step_size: float,
    directions: int,
    integrator: Integrator,
) -> PilotChains:
    """Return chains before their first step.

    Their partners are independent, and stationary or, but for averaged noise, nearly so.
    """
    alive = np.ones(len(positions), bool)
    sums = (np.zeros((len(positions), directions)),) * 4
    noise, rest = generator.standard_normal((2, *positions.shape))
    if isinstance(integrator, Averaged):
        partners = np.sqrt(1 - step_size / 2) * rest + np.sqrt(step_size / 2) * noise
        chains, partners = AveragedState(positions, noise), AveragedState(partners, noise)
        return PilotChains(chains, partners, alive, sums)
    # The same key: a chain and its partner begin with the same velocity.
    key = jax.random.key(generator.integers(2**32, dtype=np.uint32))
    chains, partners = (integrator.init(key, jnp.asarray(x)) for x in (positions, rest))
    return PilotChains(chains, partners, alive, sums)


def advance_chains(
    pilot: PilotChains,
    fresh: jax.Array,
    order: jax.Array,
    clock: PilotClock,
    gradient: Callable,
    along: Callable,
    integrator: Integrator,
) -> PilotChains:
    """Make steps of an integrator.

    Parameters
    ----------
    pilot
        The chains from :func:`start_chains` or from the last call.
    fresh
        (S, n, P, D) standard normal numbers, or (S, P, D) for an integrator that takes one vector
        of them in a step. They are an argument because JAX's random numbers would take a third of
        the time in which a pilot is compiled.
    order
        (S,) int32 batch numbers of the steps.
    clock
        The first ``clock.steps`` <= S steps are made.
    gradient
        ``gradient(positions, batch number)`` returns (P, D) gradients of the log density.
    along
        Function from (P, D) positions to the (P, Q) components whose moments are taken.
    """
    h = clock.step_size

    def step(number, pilot):
        index, normals = order[number], fresh[number]
        if integrator.normals != 1:
            normals = tuple(normals)
        new = integrator.step(pilot.chains, lambda z: gradient(z, index), normals, h, 1.0)
        partners = integrator.step(pilot.partners, lambda z: -z, normals, h, 1.0)
        before, after = integrator.position(pilot.chains), integrator.position(new)
        inside = jnp.abs(after) <= clock.limit
        thrown = (jnp.abs(after - before) > THROWN) & (jnp.abs(after) > jnp.abs(before))
        alive = pilot.alive & jnp.all(inside & ~thrown, axis=1)
        chains = _of_the_living(alive, new, pilot.chains)
        y, x = along(integrator.position(chains)), along(integrator.position(partners))
        counts = number >= clock.burn_in
        values = (y, y**2, x, x**2)
        sums = tuple(s + jnp.where(counts, v, 0) for s, v in zip(pilot.sums, values, strict=True))
        return PilotChains(chains, partners, alive, sums)

    return jax.lax.fori_loop(0, clock.steps, step, pilot)


def _of_the_living(alive: jax.Array, new: ArrayTree, old: ArrayTree) -> ArrayTree:
    """Return the new states of the chains that are alive, and the old ones of the others."""

    def one(a, b):
        if jnp.shape(a)[:1] != alive.shape:  # no chain's own, such as a count of steps
            return a
        return jnp.where(alive.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(one, new, old)


def summarise_pilot(
    pilot: PilotChains, counted: int, step_size: float, expected: float = 1.0
) -> Pilot:
    """Return the moments, with the linear partners as control variates in each direction.

    The partners' mean is 0, and their variance is ``expected``: 1 at every step size below 2 if
    their noise is averaged. ``counted`` is the number of steps that were summed.
    """
    alive = np.asarray(pilot.alive)
    diverged = 1 - alive.mean()
    means = (np.asarray(total, float)[alive] / counted for total in pilot.sums)
    first, second, linear_first, linear_second = means
    if alive.sum() < 4:
        nan = np.full(first.shape[1], np.nan)
        return Pilot(step_size, nan, nan, nan, nan, diverged)
    mean, mean_error = _controlled(first, linear_first, 0.0)
    # The moment is taken about the estimated mean, whose noise has an effect of second order only.
    centred = second - 2 * mean * first + mean**2
    variance, variance_error = _controlled(centred, linear_second, expected)
    return Pilot(step_size, mean, mean_error, variance, variance_error, diverged)


def _controlled(values, partner, expected):
    """Return the mean of ``values`` (P, Q) over chains and its error; the partner controls it."""
    count = len(values)
    a, b = values - values.mean(0), partner - partner.mean(0)
    spread = np.maximum((b**2).sum(0), np.finfo(float).tiny)
    slope = (a * b).sum(0) / spread
    rest = a - slope * b
    error = np.sqrt((rest**2).sum(0) / max(count - 2, 1) / count)
    return values.mean(0) - slope * (partner.mean(0) - expected), error
