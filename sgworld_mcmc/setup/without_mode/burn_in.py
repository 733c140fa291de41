"""Kinetic dynamics that brings chains to the posterior, and what their velocities say of a setting.

The velocities of chains that are right have the posterior's temperature. Hotter ones tell of noise
that was measured too cold, or of a step beyond stability.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.arrays import float_dtype
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.integrators.ubu import UBUState
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.without_mode.choice import KineticChoice
from sgworld_mcmc.setup.without_mode.problem import Problem, cast
from sgworld_mcmc.setup.without_mode.spectrum import Spectrum
from sgworld_mcmc.setup.without_mode.warm_start import ROW, BurnIn

__all__ = ["CALL", "HOT", "WARM_RATIO", "Walk", "burn_in", "burn_in_steps", "is_unstable"]
__all__ += ["thermalised"]

# The first burn-in: step size and friction in units of the largest and the typical curvature, and
# number of parts and of their steps. As soon as the velocities are hotter than HOT it begins anew
# with a step size smaller by WARM_RATIO.
WARM_STEP, WARM_FRICTION = 0.35, 8.0
WARM_PARTS, WARM_STEPS, WARM_RATIO, WARM_ROUNDS, HOT = 4, 32, 3.0, 8, 1.5
# Afterwards step sizes are at most GROWTH times the one that was found to be stable there.
GROWTH = 2.0
# The second burn-in lasts this many relaxation times of the typical direction, as far as its rows
# allow: each chain may read this many epochs, or rows times parameters.
RELAXATIONS, BURN_IN_EPOCHS, BURN_IN_WORK = 8.0, 0.5, 2**29
# The rows of steps of one call.
CALL = 128
# Step sizes are halved at most this often if chains diverge.
HALVINGS = 8


class Walk(NamedTuple):
    """Where chains of a burn-in ended.

    Attributes
    ----------
    positions
        (P, D) positions.
    step_size, largest
        The step size, and the largest one that is allowed after it: infinity if no chain diverged.
    temperature, error
        Mean squared velocity in the second half, in units of the temperature, and about its
        standard error.
    """

    positions: np.ndarray
    step_size: float
    largest: float
    temperature: float
    error: float


def thermalised(
    problem: Problem, coordinates: Diagonal, positions: np.ndarray, spectrum: Spectrum
) -> tuple[np.ndarray, float]:
    """Return where large batches and a high friction lead, and the largest step size allowed.

    Where Adam ends, a network may fit every row: neither the noise nor the curvature there are
    those of the posterior. The stiff directions, on which they depend, soon have its temperature.
    The ``spectrum`` there is that of coordinates in which no curvature is smaller.
    """
    size, count = problem.size, problem.warm_count
    choice = KineticChoice(
        -(-size // count),
        count,
        WARM_STEP / np.sqrt(spectrum.largest),
        WARM_FRICTION * np.sqrt(spectrum.typical),
        0,
        0.0,
        0.0,
        True,
    )
    feed = problem.warm_feed
    for _ in range(WARM_ROUNDS):
        walk, largest = Walk(positions, choice.step_size, np.inf, 1.0, 0.0), np.inf
        for _ in range(WARM_PARTS):
            before = walk.positions
            walk = burn_in(problem, coordinates, feed, WARM_STEPS, before, choice)
            largest = min(largest, walk.largest)
            unstable = is_unstable(problem, coordinates, before, walk)
            if unstable:
                break
        if not unstable:
            largest = min(largest, GROWTH * walk.step_size)
            break
        # The curvature is larger than where Adam ended: begin there again, with a smaller step.
        choice = choice._replace(step_size=walk.step_size / WARM_RATIO)
    return walk.positions, largest


def is_unstable(problem: Problem, coordinates: Diagonal, before: np.ndarray, walk: Walk) -> bool:
    """Return whether velocities are hot because of the step, and not of the way down.

    Chains that come down from where the posterior is not turn potential into heat; a step beyond
    stability drives them up. Where Adam has ended in the posterior they rise too, by about half a
    temperature for each parameter. The walk began at the positions ``before``.
    """
    if not walk.temperature > HOT:
        return False
    _, rows = problem.curvature_rows(before)
    coordinates = coordinates.cast(float_dtype())
    first, last = (
        np.asarray(problem.functions.density(cast(z), coordinates, rows, problem.constants), float)
        for z in (before, walk.positions)
    )
    fallen = np.mean(last - first)
    return not fallen > before.shape[1] / 2 * (problem.settings.temperature or 1.0)


def burn_in_steps(spectrum: Spectrum, choice: KineticChoice, size: int, dimension: int) -> int:
    """Return the number of steps of the burn-in."""
    gamma, curvature = choice.friction, spectrum.typical
    rate = (
        gamma / 2 if gamma**2 < 4 * curvature else (gamma / 2 - np.sqrt(gamma**2 / 4 - curvature))
    )
    wanted = RELAXATIONS / rate / choice.step_size
    most = max(BURN_IN_EPOCHS * size, BURN_IN_WORK / dimension) / choice.batch_size
    return int(np.clip(wanted, 2 * ROW, max(most, 2 * ROW)))


def burn_in(
    problem: Problem,
    coordinates: Diagonal,
    feed: FixedPartition,
    steps: int,
    positions: np.ndarray,
    choice: KineticChoice,
) -> Walk:
    """Run the chains by steps in rows; the step size is halved until none of them diverges."""
    stage("burn-in")
    settings, tau = problem.settings, problem.settings.temperature or 1.0
    order = _visits(problem.generator, settings, feed.num_batches, -(-steps // ROW) * ROW)
    order = order.reshape(-1, ROW)
    for halvings in range(HALVINGS):
        h = choice.step_size / 2**halvings
        state, squares, counted = _advanced(
            problem, coordinates, feed, order, positions, h, choice.friction
        )
        if np.asarray(state.alive).all() or settings.step_size is not None:
            break
    else:
        raise ValueError(
            f"Chains of kinetic dynamics diverge even at the step size {h:.2g} (in standard "
            "deviations of the prior): the gradient is not finite, or the density has no bound. "
            "Give `init_params`, or take proper priors."
        )
    ends = np.asarray(state.motion.position, float)
    # A velocity is a new one after a time of about 1 / gamma.
    renewals = max(1.0, counted * ROW * h * choice.friction)
    temperature = squares / max(counted, 1) / tau
    error = temperature * np.sqrt(2 / (positions.size * renewals))
    return Walk(ends, h, np.inf if halvings == 0 else h, temperature, float(error))


def _advanced(
    problem: Problem,
    coordinates: Diagonal,
    feed: FixedPartition,
    order: np.ndarray,
    positions: np.ndarray,
    step_size: float,
    friction: float,
) -> tuple[BurnIn, float, int]:
    """Make rows of steps, in calls, until all are made or a chain has diverged.

    Returns
    -------
    state
        The chains.
    squares, counted
        Sum over the rows that count, which are those of the second half, of the mean squared
        velocity at their ends, and their number.
    """
    chains, tau = len(positions), problem.settings.temperature or 1.0
    velocity = problem.generator.standard_normal(positions.shape) * np.sqrt(tau)
    state = BurnIn(
        UBUState(cast(positions), cast(velocity)),
        np.ones(chains, bool),
        cast(np.zeros(positions.shape)),
    )
    squares, counted, done = 0.0, 0, 0
    for number in (*_portions(len(order) // 2), *_portions(-(-len(order) // 2))):
        counts = number if done >= len(order) // 2 else 0
        some = np.zeros((CALL, ROW), np.int32)
        some[:number] = order[done : done + number]
        count_rows(number * ROW * feed.size / feed.num_batches * chains)
        state = problem.functions.advance(
            problem.seed(),
            state,
            some,
            (np.int32(number), np.int32(counts)),
            tuple(float_dtype().type(x) for x in (step_size, friction, tau)),
            coordinates.cast(float_dtype()),
            feed,
            problem.constants,
        )
        if not np.asarray(state.alive).all():
            break
        squares += float(np.asarray(state.squares).mean())
        counted, done = counted + counts, done + number
    return state, squares, counted


def _portions(number: int) -> list[int]:
    """Return how many rows of steps are made in each call."""
    return [min(CALL, number - first) for first in range(0, number, CALL)]


def _visits(generator, settings: Settings, count: int, steps: int) -> np.ndarray:
    """Return (steps,) batch numbers in the order of the run."""
    if settings.order.period == 0:
        return generator.integers(0, count, steps).astype(np.int32)
    epochs, made = [], 0
    while made < steps:
        sweep = generator.permutation(count).astype(np.int32)
        epochs += [sweep, sweep[::-1]] if settings.order.period == 2 else [sweep]
        made += count * max(1, settings.order.period)
    return np.concatenate(epochs)[:steps]
