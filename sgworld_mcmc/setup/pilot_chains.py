"""Run pilot chains in the sampler's coordinates, at step sizes from small to large."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, first_batches, head, take_rows
from sgworld_mcmc.gradients.control_variate import ControlVariate
from sgworld_mcmc.gradients.plain import Plain
from sgworld_mcmc.gradients.taylor import Taylor
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.protocols import ArrayTree, Gradient, Integrator
from sgworld_mcmc.setup.batch_noise import BatchNoise
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.coupled_chains import (
    Pilot,
    PilotClock,
    start_chains,
    summarise_pilot,
)
from sgworld_mcmc.setup.posterior import Posterior, derivatives
from sgworld_mcmc.setup.step_error import is_in_range
from sgworld_mcmc.theory.affine_recursion import is_stable, relative_variance_error

__all__ = [
    "PilotGradient",
    "control_variates",
    "independent",
    "other_pilots",
    "pilots_of",
    "reference_pilots",
]

# Pilot chains use all rows up to this number, and above it minibatches of the second number.
WHOLE = 4096
PILOT_ROWS = 1024
# They use all rows too up to the first number for each parameter, where rows times parameters are
# at most the second: the noise of minibatches with a few rows for each would look like curvature.
WHOLE_EACH, WHOLE_NUMBERS = 64, 2**22
# At most this many minibatches are copied for the pilot: more than it makes steps of one size.
PILOT_BATCHES = 512
# The first of these step sizes at which no chain is lost is the reference. It is doubled as long
# as the error is small, and at most to one.
REFERENCES = (1 / 8, 1 / 32, 1 / 128)
# The first step size of other integrators. It is doubled once if the error is small, and else
# halved at most so many times.
FIRST, MOST_HALVINGS = 1 / 4, 4
# The same for models with groups, whose coordinates fit better: steps of thousands of parameters
# cost more. At most so many of their batches are copied.
DEALT_REFERENCES, DEALT_BATCHES = (1 / 4, 1 / 8, 1 / 32, 1 / 128), 64
# The reference is halved at most this many times if the error of twice its step is too large to
# learn from.
HALVINGS = 2
# A chain with a larger coordinate is lost.
LIMIT = 1e3
AVERAGED = Averaged()
# Largest numbers of burn-in steps, of counted steps, and of random numbers at a time. Chains make
# more steps where the posterior is wide in these coordinates, up to SLOWEST times as many.
BURN_IN, STEPS, MOST_NORMALS = 100, 200, 2**22
SLOWEST = 10.0
# Chains make up to LONGER times as many counted steps where a step of all of them computes fewer
# numbers than this, rows times chains times parameters.
CHEAP, LONGER = 2**22, 10


class PilotGradient(NamedTuple):
    """The batches and the kind of gradient that move pilot chains.

    Attributes
    ----------
    feed
        Minibatches, or one batch of all rows.
    gradient, controls
        The kind of gradient, and what it needs to know about the center.
    """

    feed: FixedPartition
    gradient: Gradient
    controls: ArrayTree


def _pilot_gradient(posterior: Posterior, batches: BatchNoise | None) -> PilotGradient:
    dimension, size = posterior.functions.model.dimension, posterior.size
    few = batches is None and size <= min(WHOLE_EACH * dimension, WHOLE_NUMBERS / dimension)
    if few or size <= WHOLE:
        return PilotGradient(cut(posterior.rows, 1), Plain(), ())
    if batches is not None:
        batch_size = batches.quiet(posterior.size, "taylor")
        generator, count = np.random.default_rng(0), -(-posterior.size // batch_size)
        index = posterior.structure.first.index
        order = deal_by_group(generator, index, posterior.curvatures(), count)
        length, used = len(order) // count, min(count, DEALT_BATCHES)
        order = order[: used * length]
        made = posterior.taylor(order.reshape(used, length), posterior.size / length)
        gradient, controls = made or control_variates(posterior, posterior.temperature)
        return PilotGradient(cut(take_rows(posterior.rows, order), used), gradient, controls)
    feed = head(first_batches(set_up_feed(posterior.rows), PILOT_BATCHES), PILOT_ROWS)
    return PilotGradient(feed, *control_variates(posterior, posterior.temperature))


def control_variates(posterior: Posterior, temperature: float = 1.0) -> tuple[Gradient, ArrayTree]:
    """Return the gradient of the highest order that the Hessian allows, and its control variates.

    The control variates are what the gradient needs to know about all rows at the center.
    """
    values = derivatives(posterior, temperature)
    gradient = Taylor() if values.jacobian is not None else ControlVariate(cached=False)
    return gradient, gradient.prepare(None, None, None, *values)


def reference_pilots(
    generator, posterior, positions, batches: BatchNoise | None = None
) -> tuple[list[Pilot], np.ndarray, PilotGradient]:
    """Run pilots from the largest reference step size down to the first without a lost chain.

    Return the pilots, the positions where the chains of the last one ended, and what moved them.
    Batches that are dealt by group, of the first size with little noise, move them if the noise of
    such ``batches`` is given.
    """
    moved_by, pilots = _pilot_gradient(posterior, batches), []
    for h in REFERENCES if batches is None else DEALT_REFERENCES:
        pilot, ends = _pilot(generator, posterior, moved_by, positions, h)
        pilots.insert(0, pilot)
        if pilot.diverged == 0:
            break
    return pilots, ends, moved_by


def other_pilots(
    generator, posterior, moved_by, positions, tried
) -> tuple[list[Pilot], list[np.ndarray]]:
    """Run pilots at larger step sizes until the error is large, or at smaller ones if it is.

    Return all pilots, and where the chains of those with a small error ended, the smallest step
    size first in both lists.
    """
    (pilot, *lost), pilots, ends = tried, tried, [positions]
    if pilot.diverged > 0:
        return pilots, ends
    h, most = pilot.step_size, min((p.step_size for p in lost), default=2.0)
    near = True
    while near and 2 * h < most:
        h *= 2
        larger, end = _pilot(generator, posterior, moved_by, positions, h)
        near = larger.diverged == 0 and is_in_range(pilot, larger)
        pilots, ends = [*pilots, larger], [*ends, end] if near else ends
    if near or len(ends) > 1:
        return pilots, ends
    # The reference alone says nothing of its own error.
    for _ in range(HALVINGS):
        smaller, end = _pilot(generator, posterior, moved_by, ends[0], pilot.step_size / 2)
        if smaller.diverged > 0:
            break
        pilots, ends, near = [smaller, *pilots], [end, *ends], is_in_range(smaller, pilot)
        pilot = smaller
        if near:
            break
    return pilots, ends


def pilots_of(
    integrator: Integrator, generator, posterior, moved_by, positions, reference: Pilot
) -> list[Pilot]:
    """Run pilots of an integrator whose errors only those on a Gaussian are known.

    Their variances are divided by those that the integrator has on the standard Gaussian, so that
    what is left of the differences from the reference is due to the posterior's shape.
    """

    def run(h):
        pilot, _ = _pilot(generator, posterior, moved_by, positions, h, integrator)
        return pilot, pilot.diverged == 0 and is_in_range(reference, pilot)

    h = FIRST
    pilot, near = run(h)
    if near:
        return [pilot, run(2 * h)[0]]
    pilots = [pilot]
    while not near and len(pilots) <= MOST_HALVINGS:
        h /= 2
        pilot, near = run(h)
        pilots.insert(0, pilot)
    return pilots


def independent(directions: np.ndarray | None) -> float | None:
    """Return how many independent directions the Q unit vectors (Q, D) are worth.

    That is Q^2 over the sum of their squared cosines. None for the axes, which all are independent.
    """
    if directions is None:
        return None
    return len(directions) ** 2 / float(((directions @ directions.T) ** 2).sum())


def _pilot(
    generator,
    posterior: Posterior,
    moved_by: PilotGradient,
    positions,
    step_size: float,
    integrator: Integrator = AVERAGED,
) -> tuple[Pilot, np.ndarray]:
    """Run chains for about three relaxation times of burn-in and six or more that count.

    Return their moments, and where the chains ended that were not lost.
    """
    fit, dtype = posterior.fit, float_dtype()
    h, expected = step_size / fit.extremes()[0], 1.0
    if integrator.law is None:
        if not is_stable(integrator, h):
            nothing = np.full(positions.shape[1], np.nan)
            return Pilot(step_size, nothing, nothing, nothing, nothing, 1.0), positions
        expected += float(relative_variance_error(integrator, h, 1, 0.0, law="replacement"))
    slow = min(fit.width, SLOWEST)
    burn_in = round(slow * min(max(4, round(3 / step_size)), BURN_IN))
    counted = round(slow * min(max(30, round(6 / step_size)), STEPS))
    rows = moved_by.feed.size / moved_by.feed.num_batches
    # Where a step costs next to nothing, longer chains see more of the tails.
    counted *= int(np.clip(CHEAP / (rows * positions.size), 1, LONGER))
    chains = start_chains(generator, positions, h, positions.shape[1], integrator)
    chains = _cast(chains, dtype)
    vectors = integrator.normals
    shape = positions.shape if vectors == 1 else (vectors, *positions.shape)
    length = int(np.clip(MOST_NORMALS // max(1, np.prod(shape)), 1, BURN_IN))
    for done in range(0, burn_in + counted, length):
        steps = min(length, burn_in + counted - done)
        count_rows(steps * moved_by.feed.size / moved_by.feed.num_batches)
        fresh = generator.standard_normal((length, *shape), dtype.type)
        order = generator.integers(0, moved_by.feed.num_batches, length).astype(np.int32)
        clock = PilotClock(
            dtype.type(h),
            np.int32(burn_in - done),
            np.int32(steps),
            LIMIT,
        )
        chains = posterior.functions.pilot(
            chains,
            fresh,
            order,
            clock,
            fit.coordinates.cast(dtype),
            moved_by.controls,
            moved_by.feed,
            posterior.constants,
            posterior.temperature,
            gradient=moved_by.gradient,
            integrator=integrator,
        )
    # A lost chain has stopped far out, at the limit or where the gradient explodes: it is left out.
    ends = np.asarray(integrator.position(chains.chains), float)[np.asarray(chains.alive)]
    return _relative_to(expected, summarise_pilot(chains, counted, step_size, expected)), ends


def _relative_to(expected: float, pilot: Pilot) -> Pilot:
    """Return a pilot whose variances are in units of those that the integrator gives a Gaussian."""
    variance, error = pilot.variance / expected, pilot.variance_error / expected
    return pilot._replace(variance=variance, variance_error=error)


def _cast(tree, dtype):
    """Return the NumPy arrays of floating-point numbers in the sampler's precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float64 else x, tree)
