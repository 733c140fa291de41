"""Find coordinates, starts and settings of kinetic dynamics without a mode."""

import contextlib
from functools import partial
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.arrays import float_dtype
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.integrators.ubu import UBUState
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.without_mode.burn_in import (
    CALL,
    WARM_RATIO,
    Walk,
    burn_in,
    burn_in_steps,
    is_unstable,
    thermalised,
)
from sgworld_mcmc.setup.without_mode.choice import (
    KineticChoice,
    choose_kinetic,
    predicted_temperature_error,
)
from sgworld_mcmc.setup.without_mode.first_steps import (
    RADII,
    descended,
    find_curvature,
    first_points,
    prior_coordinates,
    scaled_by_site,
)
from sgworld_mcmc.setup.without_mode.problem import Problem, cast
from sgworld_mcmc.setup.without_mode.spectrum import Spectrum, make_spectrum
from sgworld_mcmc.setup.without_mode.warm_start import ROW, BurnIn

__all__ = ["KineticFit", "tune"]

# The second burn-in is repeated, at most ROUNDS times in all and each time for half as long, while
# the velocities are hotter than WARM: noise has been measured too cold.
ROUNDS, WARM = 3, 1.1
# Before anything has been measured, errors are expected to be this many times the predicted ones;
# afterwards no more than MOST times.
FACTOR, MOST = 2.0, 10.0


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
        Mean squared velocity at the end of the burn-in, which should be the temperature; NaN
        without a burn-in.
    """

    choice: KineticChoice
    spectrum: Spectrum
    factor: float
    temperature: float


def tune(
    generator: np.random.Generator,
    model: MinibatchModel,
    rows: tuple,
    constants: tuple,
    settings: Settings,
    initial: np.ndarray | None,
    chains: int,
    most_rows: int | None = None,
) -> tuple[Diagonal, np.ndarray, KineticFit]:
    """Return coordinates, starts (P, D) in them, and what was found.

    Parameters
    ----------
    rows, constants
        The data leaves in random order, and the others, in the precision of the run. The leaves may
        be a random part of all rows, for which it then stands.
    initial
        (S, D) unconstrained points from which the chains begin, or None.
    chains
        Number of chains P that are brought to the posterior.
    most_rows
        The most rows that a batch of the run may have; all rows by default.
    """
    problem = Problem(generator, model, rows, constants, settings, most_rows)
    stage("scales of the prior")
    _compile(problem, chains if initial is None else max(chains, len(initial)))
    coordinates = prior_coordinates(problem)
    positions = first_points(problem, coordinates, initial, chains)
    given, before = positions, coordinates
    if not settings.kinetic_complete:
        # Where the chains start does not matter here: the settings are those that suit the
        # posterior, and given points may be far from it.
        stage("first steps of each chain")
        positions = descended(problem, coordinates, positions, initial is not None)
    stage("curvature and noise")
    found = find_curvature(problem, coordinates, positions)
    coordinates, positions = scaled_by_site(problem, coordinates, positions, found)
    if settings.kinetic_complete:
        return coordinates, positions, _as_given(problem, make_spectrum(found))
    walked, fit = _brought_to_posterior(problem, coordinates, positions, make_spectrum(found))
    if settings.start == "given":
        walked = coordinates.to_z(before.to_model(given))
    return coordinates, walked, fit


def _as_given(problem: Problem, spectrum: Spectrum) -> KineticFit:
    """Return what can be predicted of the user's settings at the user's starts."""
    size, dimension = problem.model.size, problem.model.dimension
    most = problem.most_rows
    choice = choose_kinetic(spectrum, problem.settings, size, dimension, factor=1.0, most_rows=most)
    return KineticFit(choice, spectrum, 1.0, np.nan)


def _brought_to_posterior(
    problem: Problem, coordinates: Diagonal, positions: np.ndarray, spectrum: Spectrum
) -> tuple[np.ndarray, KineticFit]:
    """Return where burn-ins lead, and the settings for the curvature and noise there.

    The ``spectrum`` is that at the positions.
    """
    size, dimension = problem.model.size, problem.model.dimension
    choose = partial(choose_kinetic, settings=problem.settings, size=size, dimension=dimension)
    choose = partial(choose, most_rows=problem.most_rows)
    walked, largest = thermalised(problem, coordinates, positions, spectrum)
    known: dict[str, float] = {}
    for number in range(ROUNDS):
        spectrum = _spectrum_at(problem, coordinates, walked)
        choice = choose(spectrum, factor=FACTOR, largest=largest, **known)
        known = {"batch_size": choice.batch_size, "friction": choice.friction}
        feed = problem.batches(choice.batch_size)
        steps = burn_in_steps(spectrum, choice, problem.size, dimension)
        steps = max(2 * ROW, steps // 2**number)
        walk = burn_in(problem, coordinates, feed, steps, walked, choice)
        largest = min(largest, walk.largest)
        if is_unstable(problem, coordinates, walked, walk):
            # This was no heat of batches: go back.
            largest = min(largest, walk.step_size / WARM_RATIO)
            continue
        walked = walk.positions
        if walk.temperature < WARM:
            break
    spectrum = _spectrum_at(problem, coordinates, walked)
    factor = _factor(problem, spectrum, choice, walk)
    choice = choose(spectrum, factor=factor, largest=largest, **known)
    return walked, KineticFit(choice, spectrum, factor, walk.temperature)


def _spectrum_at(problem: Problem, coordinates: Diagonal, positions: np.ndarray) -> Spectrum:
    stage("curvature and noise")
    return make_spectrum(find_curvature(problem, coordinates, positions))


def _factor(problem: Problem, spectrum: Spectrum, choice: KineticChoice, walk: Walk) -> float:
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
        part=problem.size,
    )
    if not (predicted > 0 and np.isfinite(walk.temperature)):
        return 1.0
    return float(np.clip((walk.temperature - 1 - 2 * walk.error) / predicted, 1.0, MOST))


def _compile(problem: Problem, chains: int) -> None:
    """Begin to compile the programs that will be called, in the order of the calls."""
    model, settings, programs = problem.model, problem.settings, problem.functions.programs
    seed, constants = np.uint32(0), problem.constants
    coordinates = Diagonal(np.zeros(model.dimension), np.ones(model.dimension)).cast(float_dtype())
    positions = np.zeros((chains, model.dimension))
    with contextlib.suppress(NotImplementedError):  # an improper prior has no draws
        programs["prior"].compile(seed, problem.prior_rows, constants)
    if not settings.kinetic_complete:
        order, feed = np.zeros(problem.adam_steps, np.int32), problem.adam_feed
        radii = cast(np.array(RADII))
        programs["adam"].compile(cast(positions), radii, order, coordinates, feed, constants)
    used, rows = problem.curvature_rows(positions)
    programs["lanczos"].compile(seed, cast(used), coordinates, rows, constants)
    if settings.kinetic_complete:
        return
    state = BurnIn(
        UBUState(cast(positions), cast(positions)), np.ones(chains, bool), cast(positions)
    )
    programs["advance"].compile(
        seed,
        state,
        np.zeros((CALL, ROW), np.int32),
        (np.int32(0), np.int32(0)),
        (float_dtype().type(0),) * 3,
        coordinates,
        problem.warm_feed,
        constants,
    )
