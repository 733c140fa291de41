"""Make a plan for rows that are streamed: check, search, measure and choose with few passes."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.model.additivity import check_initial
from sgworld_mcmc.progress import stage, tell
from sgworld_mcmc.sampling.chain import Dynamics
from sgworld_mcmc.settings import ORDERS, Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.lay_out import controls_of, reach_of
from sgworld_mcmc.setup.measurements import Measurements, measure
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws
from sgworld_mcmc.setup.prepare import ROUNDING, check_at, dynamics_of, initial_points
from sgworld_mcmc.setup.request import Request, request_of
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.streamed.block_noise import (
    BlockFactors,
    between,
    block_factors,
    chunk_time,
    scaled_noise,
)
from sgworld_mcmc.setup.streamed.check import (
    check_streamed,
    keeps_pieces,
    streamed_settings,
)
from sgworld_mcmc.setup.streamed.forecast import check_memory
from sgworld_mcmc.setup.streamed.lay_out import describe_streamed, streamed_data
from sgworld_mcmc.setup.streamed.part import Part, part_again
from sgworld_mcmc.setup.streamed.search import fit_streamed
from sgworld_mcmc.setup.streamed.streaming import Streaming
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives, WholeData
from sgworld_mcmc.streaming.grid import BLOCKS, FEWEST_CHUNKS, Grid, make_grid
from sgworld_mcmc.streaming.memory import available_memory
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["prepare_streamed"]

# A chunk has at most so many bytes, and at most this part of the free memory.
CHUNK_BYTES, PART_OF_MEMORY = 2**26, 1 / 16
# Noise of groups of neighbours is measured at so many draws, on so many groups at each.
GROUP_DRAWS, GROUPS = 16, 64
# The choice is made again until the factor of its noise is the one that it was made with.
ROUNDS = 4


def prepare_streamed(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
) -> tuple[RunPlan, RunData]:
    """Check the model and its arguments, and choose all settings, without reading all rows at once.

    A random part of the rows is kept in memory. The mode is searched there first, and pilot chains
    and the noise of the rows are measured on it, with the gradient and the Hessian of all rows, for
    which the file is read about twice.

    The arguments are those of :func:`sgworld_mcmc.setup.prepare.prepare`.
    """
    stage("checking the model")
    settings = streamed_settings(settings)
    generator = generator_of(seed)
    checked, rows, part = check_streamed(generator, model, settings, args, kwargs, cache)
    check_memory(rows, _chunk_rows(rows))
    view = checked.model
    initial = initial_points(view, init_params)
    if initial is not None:
        with jax.enable_x64(view.precise):
            check_initial(view.evaluate, initial, part.rows, checked.constants(view.precise))
    found = _posterior(generator, seed, checked, rows, part, settings, initial)
    posterior, blocks, rows, part, double, too_coarse = found
    with jax.enable_x64(double):
        choice = cost = None
        adapt = settings.adapt and posterior.fit.curved and settings.start != "given"
        # Where nothing is to be chosen, the noise of the file's order must be known all the same.
        adapt = adapt and not settings.complete
        posterior, measurements = measure(generator, posterior, adapt)
        starts = measurements.starts
        if settings.complete:
            starts = gaussian_draws(generator, posterior) * np.sqrt(settings.temperature)
        with jax.enable_x64(view.precise):
            gradient = posterior.gradient()
        posterior = posterior._replace(fit=posterior.fit._replace(gradient=gradient))
        factors = _factors(posterior, part, blocks, measurements)
        alike = factors.alike()
        if settings.any_order and alike == 1:
            # In a shuffled file neighbours make as good a batch as any, and need no copy.
            settings = replace(settings, order=ORDERS["batches"]())
        if settings.order.redeals:
            factors = factors.shuffled()
        stage("choosing settings")
        request = request_of(settings, view.size, posterior.fit)
        # Batches lie within a chunk, and an epoch has several chunks.
        largest = max(1, min(_chunk_rows(rows), view.size // FEWEST_CHUNKS) // BLOCKS)
        request = replace(request, largest=largest)
        if not settings.complete:
            choice, measurements, cost = _choice(request, measurements, factors, rows)
        reach = reach_of(starts, posterior.fit)
        if not posterior.coordinates.whitens:
            starts = np.zeros_like(starts)
        dynamics, step_size = dynamics_of(settings, view, choice, posterior.coordinates)
        dynamics, grid = _gridded(dynamics, settings, choice, rows)
        if settings.complete:
            applied = _applied(factors, request, step_size, grid)
            noise = scaled_noise(measurements.noise, applied)
            measurements = measurements._replace(noise=noise)
        controls = controls_of(posterior, dynamics.gradient, None)
        controls = dynamics.gradient.bounded(controls, reach)
        tuning = Tuning(
            posterior.coordinates.cast(float_dtype()),
            from_numpy(step_size, float_dtype()),
            controls,
            from_numpy(starts, float_dtype()),
        )
    streaming = Streaming(
        grid=grid,
        shuffled=settings.order.redeals,
        row_bytes=rows.row_bytes,
        alike=alike,
        cost=cost,
        passes=posterior.whole.passes,
        rows_per_second=posterior.whole.speed.per_second,
    )
    plan = RunPlan(
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        double=double,
        too_coarse=too_coarse,
        partition=np.asarray(seed),
        description=describe_streamed(view, args, kwargs, checked.contents, posterior.rows),
        tolerance=settings.tolerance,
        fixed=settings.fixed,
        streaming=streaming,
    )
    tell(streaming.described(view.size))
    return plan, streamed_data(
        plan, view, rows, posterior.rows, posterior.constants, posterior.whole
    )


def _posterior(
    generator: np.random.Generator,
    seed: np.ndarray,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, BlockDerivatives, Rows, Part, bool, bool]:
    """Return the posterior in the coordinates of its mode, and the precision of the run."""
    view, user = checked.model, bool(jax.config.jax_enable_x64)
    functions = functions_of(view, settings.init_strategy)
    constants_double = checked.constants(view.precise)

    def search(rows, part, initial):
        whole = WholeData(functions, rows, constants_double)
        with jax.enable_x64(view.precise):
            stage("searching the mode")
            feed = set_up_feed(part.rows)
            fit, blocks = fit_streamed(
                generator, functions, feed, constants_double, initial, settings, whole
            )
        return whole, feed, fit, blocks

    whole, feed, fit, blocks = search(rows, part, initial)
    stage("coordinates")
    check_at(fit, checked, constants_double)
    rounding = np.abs(fit.coordinates.center) * np.finfo(np.float32).eps / 2
    too_coarse = not user and np.max(fit.coordinates.error_of(rounding)) > ROUNDING
    double = bool(user or (too_coarse and view.precise))
    if double != user:
        # What was found for rounded rows is only a guess for the rows as they are.
        passes, rows = whole.passes, Rows(rows.leaves, double)
        part = part_again(seed, rows, keep_pieces=keeps_pieces(settings))
        whole, feed, fit, blocks = search(rows, part, fit.coordinates.center[None])
        whole.passes += passes
    posterior = Posterior(
        functions,
        part.rows,
        checked.constants(double),
        part.rows,
        constants_double,
        feed,
        fit,
        settings.temperature or 1.0,
        whole=whole,
    )
    return posterior, blocks, rows, part, double, bool(too_coarse and not double)


def _chunk_rows(rows: Rows) -> int:
    most = min(CHUNK_BYTES, int(PART_OF_MEMORY * available_memory()))
    return max(1, most // max(rows.row_bytes, 1))


def _gridded(
    dynamics: Dynamics, settings: Settings, choice: Choice | None, rows: Rows
) -> tuple[Dynamics, Grid]:
    """Return the dynamics with the batches and draws that fit the chunks of the file."""
    batch_size = (settings if choice is None else choice).batch_size
    fixed = settings.steps_per_draw is not None
    grid, steps = make_grid(
        rows.size, batch_size, dynamics.steps_per_draw, _chunk_rows(rows), fixed=fixed
    )
    count = grid.num_batches
    dynamics = replace(
        dynamics,
        num_batches=count,
        steps_per_draw=steps,
        steps_per_warmup=min(count, steps),
        gradient=type(dynamics.gradient).make(cache=False),
    )
    return dynamics, grid


def _factors(
    posterior: Posterior,
    part: Part,
    blocks: BlockDerivatives | None,
    measurements: Measurements,
) -> BlockFactors:
    """Return by how much the noise of neighbouring rows exceeds that of rows drawn at random."""
    noise, coordinates = measurements.noise, posterior.coordinates
    of_blocks = block_factors(blocks, noise, coordinates, posterior.temperature)
    single = {kind: np.ones_like(x) for kind, x in noise.center.items()}
    number = min(GROUPS, len(part.rows[0]) // part.length)
    if part.pieces is None or number < 8:
        return BlockFactors(of_blocks, single)
    stage("noise of neighbours")
    chosen = np.linspace(0, len(measurements.starts) - 1, GROUP_DRAWS).astype(int)
    positions = measurements.starts[chosen] / np.sqrt(posterior.temperature)
    with jax.enable_x64(posterior.functions.model.precise):
        measured = posterior.functions.noise(
            jax.tree.map(from_numpy, coordinates),
            from_numpy(positions),
            part.pieces,
            posterior.constants_double,
            posterior.temperature,
            block=number * part.length,
            length=part.length,
        )
    return BlockFactors(of_blocks, between(measured, noise, part.length, number))


def _choice(
    request: Request,
    measurements: Measurements,
    factors: BlockFactors,
    rows: Rows,
) -> tuple[Choice, Measurements, float]:
    """Choose settings for the noise that the chunks of the chosen settings have.

    The last value is the number of rows for each effective draw, over that for a shuffled file.
    """
    noise, applied, first = measurements.noise, None, None
    for _ in range(ROUNDS):
        used = noise if applied is None else scaled_noise(noise, applied)
        choice = choose(request, used, measurements.steps)
        first = first or choice.examples
        grid, _ = make_grid(rows.size, choice.batch_size, choice.steps_per_draw, _chunk_rows(rows))
        now = _applied(factors, request, choice.step_size, grid)
        if applied is not None:  # the factor never falls, so that this ends
            now = {kind: np.maximum(x, applied[kind]) for kind, x in now.items()}
            if all(np.allclose(x, applied[kind], rtol=0.02) for kind, x in now.items()):
                break
        elif all((x == 1).all() for x in now.values()):
            break
        applied = now
    return choice, measurements._replace(noise=used), choice.examples / first


def _applied(
    factors: BlockFactors, request: Request, step_size: float, grid: Grid
) -> dict[str, np.ndarray]:
    """Return the factors of the noise of these chunks."""
    time = chunk_time(request.integrator, step_size, grid.batches, request.stiffest)
    return factors.at(time, grid.chunks)
