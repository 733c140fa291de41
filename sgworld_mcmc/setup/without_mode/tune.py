"""Find coordinates, starts and settings of kinetic dynamics without a mode."""

import contextlib
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy, reshaped
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.data.dealing import even_size
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut
from sgworld_mcmc.integrators.ubu import UBUState
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.without_mode.choice import (
    KineticChoice,
    choose_kinetic,
    predicted_temperature_error,
)
from sgworld_mcmc.setup.without_mode.functions import kinetic_functions_of
from sgworld_mcmc.setup.without_mode.prior_scales import PriorMoments, by_site, pooled_scales
from sgworld_mcmc.setup.without_mode.spectrum import (
    DEVIATIONS,
    SIGNS,
    STEPS,
    Spectrum,
    make_spectrum,
)
from sgworld_mcmc.setup.without_mode.warm_start import ROW, BurnIn

__all__ = ["KineticFit", "tune"]

# Radii of the starts, in standard deviations of the prior: the first with a finite density.
RADII = (1.0, 0.3, 0.1, 0.01, 0.0)
# Rows of the batches of Adam, and its steps; it reads at most half an epoch of many rows.
ADAM_ROWS, ADAM_STEPS = 100, 300
# Rows and chains from which curvature and noise are found: fewer of both where there are MANY rows,
# since the whole set-up is to read no more than about three epochs of those.
CURVATURE_ROWS, CURVATURE_CHAINS, MANY = (1024, 256), (2, 1), 20_000
# Rows times parameters of one product with the Hessian: fewer rows where there are a million of
# parameters, which are many numbers to average over.
CURVATURE_WORK, FEWEST_ROWS = 2**28, 64
# The cost of a product with the Hessian, in gradients.
PRODUCT = 3
# The first burn-in: rows of a batch, step size and friction in units of the largest and the typical
# curvature, and number of parts and of their steps. As soon as the velocities are hotter than HOT
# it begins anew with a step size smaller by WARM_RATIO.
WARM_ROWS, WARM_STEP, WARM_FRICTION = (500, 250), 0.35, 8.0
WARM_PARTS, WARM_STEPS, WARM_RATIO, WARM_ROUNDS, HOT = 4, 32, 3.0, 8, 1.5
# Afterwards step sizes are at most GROWTH times the one that was found to be stable there.
GROWTH = 2.0
# The second burn-in lasts this many relaxation times of the typical direction, as far as its rows
# allow: each chain may read this many epochs, or rows times parameters. It is repeated, at most
# ROUNDS times in all and each time for half as long, while the velocities are hotter than WARM:
# noise has been measured too cold.
RELAXATIONS, BURN_IN_EPOCHS, BURN_IN_WORK, ROUNDS, WARM = 8.0, 0.5, 2**29, 3, 1.1
# The rows of steps of one call.
CALL = 128
# Before anything has been measured, errors are expected to be this many times the predicted ones;
# afterwards no more than MOST times.
FACTOR, MOST = 2.0, 10.0
# Step sizes are halved at most this often if chains diverge.
HALVINGS = 8


class KineticFit(NamedTuple):
    """What a set-up without a mode has found.

    Attributes
    ----------
    choice
        The settings.
    spectrum
        Curvature and noise in the sampler's coordinates, at the end of the burn-in.
    factor
        The measured error of the velocities' temperature over the predicted one, at least 1.
    temperature
        Mean squared velocity at the end of the burn-in, which should be the temperature.
    """

    choice: KineticChoice
    spectrum: Spectrum
    factor: float
    temperature: float


class _Walk(NamedTuple):
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


class _Problem(NamedTuple):
    """What all steps of the set-up are given."""

    generator: np.random.Generator
    model: MinibatchModel
    rows: tuple
    constants: tuple
    settings: Settings

    @property
    def functions(self):
        return kinetic_functions_of(self.model)

    def seed(self) -> np.uint32:
        return self.generator.integers(2**32, dtype=np.uint32)

    def part(self, number: int) -> tuple:
        """Return the first rows, which are random ones."""
        number = min(number, self.model.size)
        return jax.tree.map(lambda x: reshaped(x, (number, *x.shape[1:]), number), self.rows)

    @property
    def adam_feed(self) -> FixedPartition:
        """The batches of Adam."""
        size = self.model.size
        return cut(self.rows, -(-size // even_size(min(ADAM_ROWS, size), size)))

    @property
    def warm_count(self) -> int:
        """Number of batches of the first burn-in."""
        size = self.model.size
        batch_size = even_size(min(_by_size(WARM_ROWS, size), size), size)
        return -(-size // max(batch_size, self.settings.batch_size or 0))

    def curvature_rows(self, positions: np.ndarray) -> tuple[np.ndarray, tuple]:
        """Return the positions and the rows at which curvature and noise are found."""
        size = self.model.size
        rows = min(_by_size(CURVATURE_ROWS, size), CURVATURE_WORK // self.model.dimension)
        return positions[: _by_size(CURVATURE_CHAINS, size)], self.part(max(rows, FEWEST_ROWS))


def tune(
    generator: np.random.Generator,
    model: MinibatchModel,
    rows: tuple,
    constants: tuple,
    settings: Settings,
    initial: np.ndarray | None,
    chains: int,
) -> tuple[Diagonal, np.ndarray, KineticFit]:
    """Return coordinates, starts (P, D) in them, and what was found.

    Parameters
    ----------
    rows, constants
        The data leaves in random order, and the others, in the precision of the run.
    initial
        (S, D) unconstrained points from which the chains begin, or None.
    chains
        Number of chains P that are brought to the posterior.
    """
    problem = _Problem(generator, model, rows, constants, settings)
    stage("scales of the prior")
    _compile(problem, chains if initial is None else max(chains, len(initial)))
    coordinates = _prior_coordinates(problem)
    positions = _starts(problem, coordinates, initial, chains)
    if settings.start != "given":
        stage("first steps of each chain")
        positions = _descended(problem, coordinates, positions, initial is not None)
    stage("curvature and noise")
    found = _lanczos(problem, coordinates, positions)
    coordinates, positions = _by_site(problem, coordinates, positions, found)
    walked, largest = _thermalised(problem, coordinates, positions, make_spectrum(found))
    size, dimension = model.size, model.dimension
    limits: dict[str, float] = {}
    for number in range(ROUNDS):
        stage("curvature and noise")
        spectrum = make_spectrum(_lanczos(problem, coordinates, walked))
        choice = choose_kinetic(
            spectrum, settings, size, dimension, factor=FACTOR, largest=largest, **limits
        )
        limits = {"batch_size": choice.batch_size, "friction": choice.friction}
        feed = cut(rows, choice.num_batches)
        steps = max(2 * ROW, _burn_in_steps(spectrum, choice, size, dimension) // 2**number)
        walk = _burn_in(problem, coordinates, feed, steps, walked, choice)
        largest = min(largest, walk.largest)
        if walk.temperature > HOT:
            # This was no heat of batches, but a step beyond stability: go back.
            largest = min(largest, walk.step_size / WARM_RATIO)
            continue
        walked = walk.positions
        if walk.temperature < WARM:
            break
    stage("curvature and noise")
    spectrum = make_spectrum(_lanczos(problem, coordinates, walked))
    factor = _factor(problem, spectrum, choice, walk)
    choice = choose_kinetic(
        spectrum, settings, size, dimension, factor=factor, largest=largest, **limits
    )
    starts = positions if settings.start == "given" else walked
    return coordinates, starts, KineticFit(choice, spectrum, factor, walk.temperature)


def _compile(problem: _Problem, chains: int) -> None:
    """Begin to compile the programs that will be called, in the order of the calls."""
    model, settings, programs = problem.model, problem.settings, problem.functions.programs
    seed, constants = np.uint32(0), problem.constants
    coordinates = Diagonal(np.zeros(model.dimension), np.ones(model.dimension)).cast(float_dtype())
    positions = np.zeros((chains, model.dimension))
    with contextlib.suppress(NotImplementedError):  # an improper prior has no draws
        programs["prior"].compile(seed, problem.part(ADAM_ROWS), constants)
    if settings.start != "given":
        order, feed = np.zeros(ADAM_STEPS, np.int32), problem.adam_feed
        radii = _cast(np.array(RADII))
        programs["adam"].compile(_cast(positions), radii, order, coordinates, feed, constants)
    used, rows = problem.curvature_rows(positions)
    programs["lanczos"].compile(seed, _cast(used), coordinates, rows, constants)
    state = BurnIn(
        UBUState(_cast(positions), _cast(positions)), np.ones(chains, bool), _cast(positions)
    )
    programs["advance"].compile(
        seed,
        state,
        np.zeros((CALL, ROW), np.int32),
        (np.int32(0), np.int32(0)),
        (float_dtype().type(0),) * 3,
        coordinates,
        cut(problem.rows, problem.warm_count),
        constants,
    )


def _thermalised(
    problem: _Problem, coordinates: Diagonal, positions: np.ndarray, spectrum: Spectrum
) -> tuple[np.ndarray, float]:
    """Return where large batches and a high friction lead, and the largest step size allowed.

    Where Adam ends, a network may fit every row: neither the noise nor the curvature there are
    those of the posterior. The stiff directions, on which they depend, soon have its temperature.
    The ``spectrum`` there is that of coordinates in which no curvature is smaller.
    """
    size, count = problem.model.size, problem.warm_count
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
    feed = cut(problem.rows, choice.num_batches)
    for _ in range(WARM_ROUNDS):
        walk, largest = _Walk(positions, choice.step_size, np.inf, 1.0, 0.0), np.inf
        for _ in range(WARM_PARTS):
            walk = _burn_in(problem, coordinates, feed, WARM_STEPS, walk.positions, choice)
            largest = min(largest, walk.largest)
            if walk.temperature > HOT:
                break
        if walk.temperature < HOT:
            largest = min(largest, GROWTH * walk.step_size)
            break
        # The curvature is larger than where Adam ended: begin there again, with a smaller step.
        choice = choice._replace(step_size=walk.step_size / WARM_RATIO)
    return walk.positions, largest


def _prior_coordinates(problem: _Problem) -> Diagonal:
    """Return the coordinates in which the prior has about unit scale, or those the user gives."""
    model, settings = problem.model, problem.settings
    rows = problem.part(ADAM_ROWS)
    count_rows(len(jax.tree.leaves(rows)[0]))
    try:
        found = problem.functions.prior(problem.seed(), rows, problem.constants)
    except NotImplementedError:  # an improper prior has no draws
        found = PriorMoments(*np.full((2, model.dimension), np.nan))
    mean, scale = pooled_scales(model, found)
    if settings.covariance is not None:
        scale = np.sqrt(np.asarray(settings.covariance, float))
    elif settings.coordinates is not None and not settings.coordinates.whitens:
        scale = np.ones_like(scale)
    return Diagonal(mean, scale)


def _starts(problem: _Problem, coordinates: Diagonal, initial, chains: int) -> np.ndarray:
    """Return (P, D) starts: the given points, or random ones of about the prior's size."""
    if initial is not None:
        points = np.resize(initial, (max(chains, len(initial)), initial.shape[1]))
        return coordinates.to_z(points)
    return problem.generator.standard_normal((chains, problem.model.dimension))


def _descended(problem: _Problem, coordinates: Diagonal, positions, given: bool) -> np.ndarray:
    """Return where steps of Adam lead, or the start where they lead nowhere.

    Starts that are not ``given`` are drawn nearer to the center while their density is not finite.
    """
    size, feed = problem.model.size, problem.adam_feed
    order = problem.generator.integers(0, feed.num_batches, ADAM_STEPS).astype(np.int32)
    count_rows(ADAM_STEPS * size / feed.num_batches * len(positions))
    radii = np.ones(len(RADII)) if given else np.array(RADII)
    starts, found = problem.functions.adam(
        _cast(positions),
        _cast(radii),
        order,
        coordinates.cast(float_dtype()),
        feed,
        problem.constants,
    )
    starts, found = np.asarray(starts, float), np.asarray(found, float)
    return np.where(np.isfinite(found).all(1, keepdims=True), found, starts)


def _lanczos(problem: _Problem, coordinates: Diagonal, positions: np.ndarray):
    """Return Lanczos runs at the positions of the first chains."""
    used, rows = problem.curvature_rows(positions)
    products = len(used) * (SIGNS + DEVIATIONS) * STEPS
    count_rows(products * PRODUCT * len(jax.tree.leaves(rows)[0]))
    return problem.functions.lanczos(
        problem.seed(), _cast(used), coordinates.cast(float_dtype()), rows, problem.constants
    )


def _by_site(problem: _Problem, coordinates: Diagonal, positions, found):
    """Return coordinates in which each site has about unit curvature, and the positions there.

    The curvature of a site is that of its prior, one, and the mean square of the rows' gradients.
    """
    if problem.settings.coordinates is not None or problem.settings.covariance is not None:
        return coordinates, positions
    squares = np.asarray(found.squares, float).mean(0)
    factor = np.ones_like(squares)
    for places in by_site(problem.model):
        factor[places] = 1 / np.sqrt(1 + squares[places].mean())
    if not np.isfinite(factor).all():
        return coordinates, positions
    new = Diagonal(coordinates.center, coordinates.scale * factor)
    return new, positions / factor


def _burn_in_steps(spectrum: Spectrum, choice: KineticChoice, size: int, dimension: int) -> int:
    """Return the number of steps of the burn-in."""
    gamma, curvature = choice.friction, spectrum.typical
    rate = (
        gamma / 2 if gamma**2 < 4 * curvature else (gamma / 2 - np.sqrt(gamma**2 / 4 - curvature))
    )
    wanted = RELAXATIONS / rate / choice.step_size
    most = max(BURN_IN_EPOCHS * size, BURN_IN_WORK / dimension) / choice.batch_size
    return int(np.clip(wanted, 2 * ROW, max(most, 2 * ROW)))


def _burn_in(
    problem: _Problem,
    coordinates: Diagonal,
    feed: FixedPartition,
    steps: int,
    positions: np.ndarray,
    choice: KineticChoice,
) -> _Walk:
    """Run the chains by steps in rows; the step size is halved until none of them diverges."""
    stage("burn-in")
    settings, chains = problem.settings, len(positions)
    order = _visits(problem.generator, settings, feed.num_batches, -(-steps // ROW) * ROW)
    order = order.reshape(-1, ROW)
    tau = settings.temperature or 1.0
    for halvings in range(HALVINGS):
        h = choice.step_size / 2**halvings
        velocity = problem.generator.standard_normal(positions.shape) * np.sqrt(tau)
        state = BurnIn(
            UBUState(_cast(positions), _cast(velocity)),
            np.ones(chains, bool),
            _cast(np.zeros(positions.shape)),
        )
        total, counted, done = 0.0, 0, 0
        # The second half counts.
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
                tuple(float_dtype().type(x) for x in (h, choice.friction, tau)),
                coordinates.cast(float_dtype()),
                feed,
                problem.constants,
            )
            if not np.asarray(state.alive).all():
                break
            total += float(np.asarray(state.squares).mean())
            counted, done = counted + counts, done + number
        alive = bool(np.asarray(state.alive).all())
        if alive or settings.step_size is not None:
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
    temperature = total / max(counted, 1) / tau
    error = temperature * np.sqrt(2 / (positions.size * renewals))
    return _Walk(ends, h, np.inf if halvings == 0 else h, temperature, float(error))


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


def _factor(problem: _Problem, spectrum: Spectrum, choice: KineticChoice, walk: _Walk) -> float:
    """Return the measured error of the temperature over the predicted one, from 1 to MOST.

    Two standard errors of the measurement have the benefit of doubt.
    """
    predicted = predicted_temperature_error(
        spectrum,
        problem.settings,
        problem.model.size,
        batch_size=choice.batch_size,
        step_size=walk.step_size,
        friction=choice.friction,
    )
    if not (predicted > 0 and np.isfinite(walk.temperature)):
        return 1.0
    return float(np.clip((walk.temperature - 1 - 2 * walk.error) / predicted, 1.0, MOST))


def _by_size(values: tuple[int, int], size: int) -> int:
    """Return the first value, or the second one for many rows."""
    return values[size > MANY]


def _cast(x: np.ndarray) -> jax.Array:
    return from_numpy(x, float_dtype())
