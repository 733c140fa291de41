"""Make a plan of kinetic dynamics without a mode for rows that are streamed.

A random part of the rows, which is in memory, stands for all of them until the chains begin: their
starts, coordinates and settings come from it. All rows are read once, to see that they are numbers.
"""

import time
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.progress import count_rows, fraction, stage, tell
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.make_plan import cast_tuning, make_plan
from sgworld_mcmc.setup.precision import Precision
from sgworld_mcmc.setup.random_parts import Uncancelled
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.streamed.lay_out import describe_streamed, streamed_data
from sgworld_mcmc.setup.streamed.part import Part
from sgworld_mcmc.setup.streamed.streaming import DEAR, Streaming
from sgworld_mcmc.setup.streamed.whole import WholeData
from sgworld_mcmc.setup.without_mode.choice import (
    AUTOCORRELATION,
    KineticChoice,
    choose_kinetic,
)
from sgworld_mcmc.setup.without_mode.plan import FEWEST, MOST, WITHOUT_MODE, dynamics_without_mode
from sgworld_mcmc.setup.without_mode.tune import KineticFit, tune
from sgworld_mcmc.streaming.grid import BLOCKS, FEWEST_CHUNKS, Grid, make_grid
from sgworld_mcmc.streaming.rows import Rows, Speed
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time

__all__ = ["plan_streamed_without_mode"]

# Gradients of groups of so many rows are compared, of at most so many groups, and at most so many
# numbers of them: groups of neighbours in the file with groups of rows drawn at random.
GROUP_ROWS, GROUPS, NUMBERS = 128, 64, 2**24
# Neighbours are alike if their gradients vary this many standard errors more than those of others.
ERRORS = 4.0


def plan_streamed_without_mode(
    seed: np.ndarray,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    arguments: tuple,
    initial: np.ndarray | None,
    chains: int,
    chunk_rows: int,
) -> tuple[RunPlan, RunData]:
    """Find starts and settings on the part, and lay the file out.

    Draws come at the ends of epochs, or in mid-epoch where fewer rows are read that way: the noise
    of the batches does not cancel there, and an epoch may be longer than what a chain remembers.

    Parameters
    ----------
    rows, part
        All rows and a random part of them, with the pieces in which it was read.
    arguments
        The model's arguments, ``(args, kwargs)``.
    initial
        (S, D) unconstrained points from which the chains begin, or None.
    chains
        Number of chains of the run.
    chunk_rows
        The most rows of a chunk of the file.

    Raises
    ------
    ValueError
        If a row is not finite, or neighbouring rows of the file are alike: what noise they make is
        not known here.
    """
    speed = _read_through(rows, min(chunk_rows, rows.size))
    view, settings = checked.model, replace(settings, any_order=False).kinetic()
    generator = generator_of(np.append(seed, WITHOUT_MODE))
    constants, number = checked.constants(rows.double), int(np.clip(chains, FEWEST, MOST))
    most = max(1, min(chunk_rows, rows.size // FEWEST_CHUNKS) // BLOCKS)
    coordinates, starts, fit = tune(
        generator, view, part.rows, constants, settings, initial, number, most
    )
    alike = _alike(checked, part, constants, coordinates, starts[0])
    if alike > DEAR:
        raise ValueError(
            f"Neighbouring rows of the file are alike: their gradients vary {alike:.3g} times as "
            "much as those of as many random rows, and kinetic dynamics without a mode does not "
            "know what that adds to the noise of its batches. Shuffle the file once (sgworld-mcmc "
            "shuffle FILE... --out FOLDER), and run on the shuffled one."
        )
    cut = partial(make_grid, rows.size, chunk_rows=chunk_rows)
    fit = _for_grid(cut(fit.choice.batch_size, fit.choice.steps_per_draw)[0], fit, settings, view)
    fit, settings = _with_draws(fit, settings, rows.size, view.dimension)
    dynamics = dynamics_without_mode(settings, view, fit)
    fixed = settings.steps_per_draw is not None
    grid, steps = cut(fit.choice.batch_size, fit.choice.steps_per_draw, fixed=fixed)
    dynamics = replace(
        dynamics,
        num_batches=grid.num_batches,
        steps_per_draw=steps,
        steps_per_warmup=min(grid.num_batches, steps),
    )
    plan = make_plan(
        seed,
        settings,
        Precision(rows.double),
        dynamics=dynamics,
        tuning=cast_tuning(coordinates, fit.choice.step_size, (), starts),
        fit=CoordinateFit(coordinates, None, True, 0.0, 0, (), fitted=True),
        description=describe_streamed(view, *arguments, checked.contents, part.rows),
        kinetic=fit,
        streaming=Streaming(
            grid=grid,
            shuffled=settings.order.redeals,
            row_bytes=rows.row_bytes,
            alike=1.0,
            cost=None,
            passes=1,
            rows_per_second=speed.per_second,
        ),
    )
    tell(plan.streaming.described(view.size))
    whole = WholeData(functions_of(view, settings.init_strategy), rows, constants)
    return plan, streamed_data(plan, view, rows, part.rows, constants, whole)


def _read_through(rows: Rows, length: int) -> Speed:
    """Read all rows once, and return how fast; raise if one of them is not finite."""
    stage("reading all rows")
    memory, spent = rows.empty(length), 0.0
    for start, stop in rows.pieces(length):
        some = tuple(x[: stop - start] for x in memory)
        begin = time.perf_counter()
        rows.read(start, stop, some)
        spent += time.perf_counter() - begin
        rows.check_finite(start, some)
        fraction(stop / rows.size)
    count_rows(rows.size)
    return Speed(rows.size, spent)


def _for_grid(grid: Grid, fit: KineticFit, settings: Settings, view: MinibatchModel) -> KineticFit:
    """Return the fit with the settings that suit the batches into which the file can be cut."""
    choice, batch_size = fit.choice, -(-grid.size // grid.num_batches)
    if batch_size == choice.batch_size:
        return fit
    choice = choose_kinetic(
        fit.spectrum,
        replace(settings, batch_size=batch_size),
        grid.size,
        view.dimension,
        factor=fit.factor,
        friction=choice.friction,
        largest=choice.step_size,
    )
    return fit._replace(choice=choice)


def _with_draws(
    fit: KineticFit, settings: Settings, size: int, dimension: int
) -> tuple[KineticFit, Settings]:
    """Return the fit with draws in mid-epoch, and settings that say so, where that reads less.

    In mid-epoch noise has not cancelled: the step is one for white noise.
    """
    choice = fit.choice
    white = replace(settings, order=Uncancelled(settings.order))
    other = choose_kinetic(
        fit.spectrum,
        replace(white, batch_size=choice.batch_size),
        size,
        dimension,
        factor=fit.factor,
        friction=choice.friction,
        largest=choice.step_size,
    )
    number, most = 1, choice.num_batches
    while number < most and _steps_to_forget(fit, other, number) > AUTOCORRELATION * number:
        number *= 2
    number = settings.steps_per_draw or number
    ends = _steps_to_forget(fit, choice, choice.steps_per_draw)
    less = other.met and _steps_to_forget(fit, other, number) < ends
    if number >= most or not (less or settings.steps_per_draw):
        return fit, settings
    return fit._replace(choice=other._replace(steps_per_draw=number)), white


def _steps_to_forget(fit: KineticFit, choice: KineticChoice, steps: int) -> float:
    """Return the number of steps for each independent draw, of draws that are ``steps`` apart."""
    integrator, curvature = UBU(choice.friction), fit.spectrum.typical
    return steps * autocorrelation_time(integrator, choice.step_size, steps, curvature=curvature)


def _alike(
    checked: CheckedModel,
    part: Part,
    constants: tuple,
    coordinates: Coordinates,
    position: np.ndarray,
) -> float:
    """Return how much more gradients of neighbours vary than those of random rows; one if no more.

    They are groups of neighbours from all over the file, and as many groups of random rows.
    """
    length, view = min(part.length, GROUP_ROWS), checked.model
    number = min(GROUPS, len(part.rows[0]) // part.length, max(8, NUMBERS // view.dimension))
    if part.pieces is None or number < 8:
        return 1.0
    stage("noise of neighbours")

    @quick_jit
    def gradients(position, groups, constants, coordinates):
        target = target_of(view, constants, coordinates)
        return jax.lax.map(lambda rows: jax.grad(target)(position, rows), groups)

    dtype = float_dtype()
    at, where = from_numpy(position, dtype), coordinates.cast(dtype)
    found = []
    for rows in (part.pieces, part.rows):
        count = len(rows[0]) // part.length
        chosen = np.linspace(0, count - 1, number).astype(int)[:, None] * part.length
        places = chosen + np.arange(length)
        groups = jax.tree.map(lambda x, places=places: x[places], rows)
        made = np.asarray(gradients(at, groups, constants, where), float)
        squares = ((made - made.mean(0)) ** 2).sum(1)
        found.append((squares.mean(), squares.std(ddof=1) / np.sqrt(number)))
    count_rows(2 * number * length)
    (near, near_error), (random, random_error) = found
    ratio = near / random
    error = ratio * np.hypot(near_error / near, random_error / random)
    return float(ratio) if ratio - ERRORS * error > 1 else 1.0
