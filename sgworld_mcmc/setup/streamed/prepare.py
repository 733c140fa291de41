"""Make a plan for rows that are streamed: check, search, measure and choose with few passes."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.members import ORDERS
from sgworld_mcmc.memory import available_memory
from sgworld_mcmc.progress import stage, tell
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.forecast import check_memory
from sgworld_mcmc.setup.initial_points import initial_points
from sgworld_mcmc.setup.jumps import with_jumps
from sgworld_mcmc.setup.leave_mode import is_doubtful, is_slow, says_nothing
from sgworld_mcmc.setup.make_plan import dynamics_of, explore, make_plan, tuning_of
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.request import Request, request_of
from sgworld_mcmc.setup.run_batches import BY_GROUP
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
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
    too_many_parameters,
)
from sgworld_mcmc.setup.streamed.lay_out import describe_streamed, streamed_data
from sgworld_mcmc.setup.streamed.part import Part, part_again
from sgworld_mcmc.setup.streamed.posterior import find_by_group, find_posterior_of_part
from sgworld_mcmc.setup.streamed.streaming import Streaming
from sgworld_mcmc.setup.streamed.take_all import few_that_matter, without_few
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives
from sgworld_mcmc.setup.streamed.without_mode import plan_streamed_without_mode
from sgworld_mcmc.setup.without_mode.plan import is_wanted as kinetic_is_wanted
from sgworld_mcmc.streaming.grid import BLOCKS, FEWEST_CHUNKS, Grid, make_grid
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["prepare_streamed"]

# A chunk has at most so many bytes, and at most this part of the free memory.
CHUNK_BYTES, PART_OF_MEMORY = 2**26, 1 / 16
# Noise of groups of neighbours is measured at so many draws, on so many groups at each.
GROUP_DRAWS, GROUPS = 16, 64
# The choice is made again until the factor of its noise is the one that it was made with.
ROUNDS = 4
# Rows that matter are looked for so many times: while the mode is that of a few of them, others may
# seem not to matter.
LOOKS = 3


def prepare_streamed(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
    chains: int = 4,
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
    initial = initial_points(checked, init_params)
    given = settings, (args, kwargs), initial, chains, _chunk_rows(rows)
    without_mode = partial(plan_streamed_without_mode, seed, checked, rows, part, *given)

    def read_again(rows, double):
        rows = rows.again(double)
        return rows, part_again(seed, rows, keep_pieces=keeps_pieces(settings))

    own = np.append(seed, BY_GROUP)
    groups = find_by_group(own, checked, rows, part, settings, initial, read_again)
    if groups is None and kinetic_is_wanted(settings, view):
        return without_mode()
    if groups is None and view.dimension > DENSE_DIMENSION:
        raise too_many_parameters(view.dimension)
    search = partial(find_posterior_of_part, generator, settings=settings, initial=initial)
    search = partial(search, read_again=read_again)
    found = groups or search(checked, rows, part)
    few, passes = np.zeros(0, int), 0
    for _ in range(LOOKS):
        more = few_that_matter(found, settings)
        if len(more) == 0:
            break
        few, passes = np.union1d(few, more), passes + found.posterior.whole.passes
        taken, rows = without_few(checked, rows, few)
        found = search(taken, *read_again(rows, rows.double))
    if found.scattered and len(few) == 0 and settings.may_go_without_mode:
        return without_mode()
    checked = taken if len(few) else checked
    posterior, blocks, rows, part, precision, *_ = found.with_mode()
    posterior = posterior._replace(fit=posterior.fit._replace(decided=()))
    posterior.whole.passes += passes
    before = posterior.fit
    with jax.enable_x64(precision.double):
        # Where nothing is to be chosen, the noise of the file's order must be known all the same.
        posterior, measurements, starts = explore(generator, posterior, settings, always=True)
        doubtful = settings.may_go_without_mode and is_doubtful(before)
        if doubtful and says_nothing(before, posterior, measurements):
            return without_mode()
        posterior = with_jumps(posterior, measurements.starts)
        posterior = posterior.with_gradient()
        factors = _factors(posterior, part, blocks, measurements)
        alike = factors.alike(settings.gradient)
        settings, factors = _ordered(settings, factors, alike)
        stage("choosing settings")
        request = _request(settings, posterior, rows)
        choice = cost = None
        if not settings.complete:
            choice, measurements, cost = _choice(request, measurements, factors, rows)
            if doubtful and is_slow(choice):
                return without_mode()
        dynamics, step_size = dynamics_of(settings, view, choice, posterior.coordinates)
        dynamics, grid = _gridded(dynamics, settings, choice, rows)
        if settings.complete:
            applied = _applied(factors, request, step_size, grid)
            noise = scaled_noise(measurements.noise, applied)
            measurements = measurements._replace(noise=noise)
        tuning = tuning_of(posterior, dynamics, step_size, starts)
    streaming = Streaming(
        grid=grid,
        shuffled=settings.order.redeals,
        row_bytes=rows.row_bytes,
        alike=alike,
        cost=cost,
        passes=posterior.whole.passes,
        rows_per_second=posterior.whole.speed.per_second,
    )
    plan = make_plan(
        seed,
        settings,
        precision,
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        description=describe_streamed(view, args, kwargs, checked.contents, posterior.rows),
        streaming=streaming,
        take_all=few,
    )
    tell(streaming.described(view.size))
    return plan, streamed_data(
        plan, checked.model, rows, posterior.rows, posterior.constants, posterior.whole
    )


def _ordered(
    settings: Settings, factors: BlockFactors, alike: float
) -> tuple[Settings, BlockFactors]:
    """Return the settings with the order that suits the file, and the noise of its chunks then."""
    if settings.any_order and alike == 1:
        # In a shuffled file neighbours make as good a batch as any, and need no copy.
        settings = replace(settings, order=ORDERS["batches"]())
    return settings, factors.shuffled() if settings.order.redeals else factors


def _request(settings: Settings, posterior: Posterior, rows: Rows) -> Request:
    """Return what is to be chosen, with batches that leave several of them to a chunk."""
    size = posterior.functions.model.size
    # Batches lie within a chunk, and an epoch has several chunks.
    largest = max(1, min(_chunk_rows(rows), size // FEWEST_CHUNKS) // BLOCKS)
    return replace(request_of(settings, size, posterior.fit), largest=largest)


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
    alike = () if posterior.structure is None else posterior.structure.alike
    of_blocks = block_factors(blocks, noise, coordinates, posterior.temperature, alike)
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
    return BlockFactors(of_blocks, between(measured, noise, part.length, number, alike))


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
