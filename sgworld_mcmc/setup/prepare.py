"""Make a plan from a model and its arguments, and lay the data out for it."""

import warnings
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.contents import identity
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import (
    cut,
    generator_of,
    is_large,
    joined,
    shuffle,
    take_rows,
)
from sgworld_mcmc.gradients.taylor import TaylorControls
from sgworld_mcmc.model.additivity import check_initial, check_minibatching
from sgworld_mcmc.model.description import describe, difference, probe
from sgworld_mcmc.model.errors import NotMinibatchable, WholeDataWarning
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import ArrayTree, Coordinates, Gradient
from sgworld_mcmc.sampling.chain import Dynamics
from sgworld_mcmc.sampling.lagged_moments import MAX_COORDINATES
from sgworld_mcmc.settings import GRADIENTS, Settings
from sgworld_mcmc.setup.batch_noise import FOR_EACH, batch_ladder
from sgworld_mcmc.setup.checked_model import CheckedModel, arrays_of, check_model
from sgworld_mcmc.setup.choose import OVERHEAD, Choice, Request, choose
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_by_group import fit_by_group, is_wanted
from sgworld_mcmc.setup.coordinates_from_mode import (
    CoordinateFit,
    coordinates_at,
    fit_coordinates,
    set_up_feed,
)
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.measurements import measure
from sgworld_mcmc.setup.posterior import Posterior, derivatives, gaussian_draws
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.seen_models import see_whole

__all__ = [
    "PlanMismatch",
    "check_start",
    "identified",
    "lay_out",
    "posterior_of",
    "prepare",
    "repartition",
    "request_of",
    "warn_of",
]

# Numbers that, beside the seed, begin random numbers of their own.
BY_GROUP, DEALING = 11, 12
# A chain farther from the center than this, in posterior standard deviations, has diverged.
FARTHEST = 1e4
# The offsets of the batches are kept up to this many numbers (M x D); above, every step computes
# them again.
CACHE = 2**26
# The run is in double precision if rounding in single precision moves a position by more posterior
# standard deviations than this.
ROUNDING = 0.01


class PlanMismatch(ValueError):
    """A plan was made for another model or other data."""


def prepare(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
) -> tuple[RunPlan, RunData]:
    """Check the model and its arguments, choose all settings, and lay the data out.

    Parameters
    ----------
    seed
        Integers that decide the partition of the rows, and everything random in the set-up.
    init_params
        Unconstrained initial values by site, and the leading axis that they must have (None
        allows any); or None without initial values.
    cache
        Models seen before, by the signature of their arguments.
    """
    stage("checking the model")
    generator = generator_of(seed)
    checked = check_model(generator, model, settings, args, kwargs, cache)
    view = checked.model
    initial = _initial_points(view, init_params)
    check_start(settings, init_params)
    if initial is not None:
        with jax.enable_x64(view.precise):
            constants = checked.constants(view.precise)
            check_initial(view, view.evaluate, initial, checked.part, constants)
    try:
        found = _with_coordinates(generator, seed, checked, settings, initial)
    except NotMinibatchable as error:
        if settings.batch_size is not None:
            raise
        see_whole(model, args, kwargs, cache, str(error))
        return prepare(seed, model, settings, args, kwargs, init_params, cache)
    posterior, double, too_coarse = found
    contents, checked = checked.contents, None  # the order of many rows takes memory
    with jax.enable_x64(double):
        measurements = choice = None
        if settings.complete:
            starts = gaussian_draws(generator, posterior) * np.sqrt(settings.temperature)
        else:
            searched = settings.start != "given"
            adapt = settings.adapt and posterior.fit.curved and searched
            posterior, measurements = measure(generator, posterior, adapt)
            starts = measurements.starts
            stage("choosing settings")
            request = request_of(settings, view.size, posterior.fit)
            choice = choose(request, measurements.noise, measurements.steps)
        if not posterior.coordinates.whitens:
            starts = np.zeros_like(starts)
        dynamics, step_size = _dynamics(settings, view, choice, posterior.coordinates)
        posterior, order = _dealt(seed, posterior, dynamics)
        feed = _feed(posterior.rows, dynamics)
        controls = _controls(posterior, dynamics.gradient, feed, order)
        tuning = Tuning(
            posterior.coordinates.cast(float_dtype()),
            from_numpy(step_size, float_dtype()),
            controls,
            from_numpy(starts, float_dtype()),
        )
    data, constants = view.layout.split(args, kwargs)
    plan = RunPlan(
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        double=double,
        too_coarse=too_coarse,
        partition=np.asarray(seed),
        description=describe(view, data, constants, contents),
        tolerance=settings.tolerance,
        fixed=settings.fixed,
    )
    return plan, _run_data(plan, view, feed, posterior.rows, posterior.constants, data)


def check_start(settings: Settings, init_params: object) -> None:
    """Raise if chains are to start at given points, and none are given."""
    if settings.start == "given" and init_params is None:
        raise ValueError(
            "`start='given'` starts the chains at given points: pass them as `init_params`, a dict "
            "of unconstrained values by site, for all chains or with the axis of chains first."
        )


def lay_out(
    plan: RunPlan, model: Callable, settings: Settings, args: tuple, kwargs: dict, cache: dict
) -> RunData:
    """Lay the data out for a plan that was made before, without search and measurements.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model or other data; the message says what differs.
    """
    stage("checking the model")
    if plan.partition.size == 0:
        raise PlanMismatch("The plan is one of rows that were dealt anew: it cannot be laid out.")
    generator, additive = generator_of(plan.partition), frozenset(plan.description.additive)
    reason = plan.description.reason
    checked = check_model(generator, model, settings, args, kwargs, cache, additive, reason)
    view = checked.model
    data, constants = view.layout.split(args, kwargs)
    described = describe(view, data, constants, identity(arrays_of(model, args, kwargs)))
    problem = difference(plan.description, described)
    if problem is None and plan.description.log_densities is not None:
        values = probe(view, data, constants, plan.fit.coordinates)
        problem = difference(plan.description, described._replace(log_densities=values))
    if problem is None and plan.double != (jax.config.jax_enable_x64 or plan.double):
        problem = "the precision: jax_enable_x64 is set now, and was not then"
    if problem is None and plan.double and not view.precise:
        problem = "the precision: jax_enable_x64 was set then, and is not now"
    if problem:
        raise PlanMismatch(
            f"The plan was made for another model or other data. What differs is {problem}. Run "
            "without `plan` to set up anew."
        )
    with jax.enable_x64(plan.double):
        rows, constants = checked.rows(plan.double), checked.constants(plan.double)
        if plan.fit.unit:
            rows = _dealt_again(plan, checked, settings, rows, constants)
        feed = _feed(rows, plan.dynamics)
        plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return _run_data(plan, view, feed, rows, constants, data)


def identified(plan: RunPlan, view: MinibatchModel, args: tuple, kwargs: dict) -> RunPlan:
    """Return the plan with a description of its model and data that holds in other processes."""
    data, constants = view.layout.split(args, kwargs)
    contents = identity(arrays_of(view.model, args, kwargs))
    if any(a not in (b, None) for a, b in zip(plan.description.contents, contents, strict=True)):
        raise ValueError(
            "The numbers in an array argument have changed since the set-up: what it found no "
            "longer holds. Call run(...) again, and then save."
        )
    values = probe(view, data, constants, plan.fit.coordinates)
    description = plan.description._replace(contents=contents, log_densities=values)
    tuning = jax.tree.map(np.asarray, plan.tuning)
    return replace(plan, description=description, tuning=tuning)


def repartition(
    plan: RunPlan, data: RunData, seed: np.ndarray, strategy: Callable | None = None
) -> tuple[RunPlan, RunData]:
    """Deal the rows into other batches of the same sizes; everything else stays as it is."""
    with jax.enable_x64(plan.double):
        posterior = posterior_of(plan, data, strategy)
        rows = shuffle(generator_of(np.asarray(seed)), posterior.rows)
        posterior = posterior._replace(rows=rows)
        feed = _feed(rows, plan.dynamics)
        controls = _controls(posterior, plan.dynamics.gradient, feed)
    # The rows were in random order already: no seed leads from the user's order to this one.
    nothing = np.zeros(0, np.uint32)
    plan = replace(plan, tuning=plan.tuning._replace(controls=controls), partition=nothing)
    return plan, replace(data, feed=feed, tuning=plan.tuning)


def posterior_of(plan: RunPlan, data: RunData, strategy: Callable | None) -> Posterior:
    """Return the posterior of data that have been laid out, for measurements afterwards."""
    rows = data.rows
    if rows is None:
        rows = data.feed.data if isinstance(data.feed, DealtRows) else joined(data.feed)
    return Posterior(
        functions_of(data.model, strategy),
        rows,
        data.constants,
        rows,
        data.constants,
        set_up_feed(rows),
        plan.fit,
        plan.dynamics.temperature or 1.0,
    )


def request_of(settings: Settings, size: int, fit: CoordinateFit) -> Request:
    """Return the request from which :func:`~sgworld_mcmc.setup.choose.choose` chooses."""
    kinds = sorted(GRADIENTS, key=lambda name: GRADIENTS[name].needs)
    if not fit.curved:
        kinds = [name for name in kinds if GRADIENTS[name].needs < 2]
    stiffest, softest = fit.extremes()
    by_group = {}
    if fit.unit:
        sizes = batch_ladder(size, fit.dimension)
        by_group = {"batch_sizes": sizes, "overhead": OVERHEAD + FOR_EACH * fit.dimension}
    return Request(
        size=size,
        order=settings.order,
        integrator=settings.integrator,
        tolerance=settings.tolerance,
        batch_size=settings.batch_size,
        step_size=settings.step_size,
        steps_per_draw=settings.steps_per_draw,
        gradients=tuple(kinds) if settings.gradient is None else (settings.gradient,),
        stiffest=stiffest,
        softest=softest,
        **by_group,
    )


def _with_coordinates(
    generator: np.random.Generator,
    seed: np.ndarray,
    checked: CheckedModel,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, bool, bool]:
    """Return the posterior in the coordinates of its mode, and the precision of the run.

    Two flags say whether the precision is double, and whether it should be but cannot.
    """
    view, user = checked.model, bool(jax.config.jax_enable_x64)
    large = is_large(view.size)
    functions = functions_of(view, settings.init_strategy)
    constants_double = checked.constants(view.precise)

    def search(rows, initial):
        with jax.enable_x64(view.precise):
            stage("searching the mode")
            feed = set_up_feed(rows)
            if is_wanted(settings) and view.reason is None:
                own = generator_of(np.append(seed, BY_GROUP))
                found = fit_by_group(own, functions, feed, constants_double, initial)
                if found is not None:
                    return feed, *found
            find = coordinates_at if settings.start == "given" else fit_coordinates
            fit = find(generator, functions, feed, constants_double, initial, settings)
            if large and not fit.converged:
                # Only a part of many rows was checked: elsewhere the density may be infinite.
                check_minibatching(view, view.evaluate, rows, constants_double)
        return feed, fit, None

    # Of few rows the set-up and the run have a copy each. Many rows are copied once, as the run
    # will most likely read them: the set-up only adds them up in double precision.
    rows_double = checked.rows(user if large else view.precise)
    feed, fit, structure = search(rows_double, initial)
    stage("coordinates")
    _check_at(fit, checked, constants_double)
    rounding = np.abs(fit.coordinates.center) * np.finfo(np.float32).eps / 2
    too_coarse = not user and np.max(fit.coordinates.error_of(rounding)) > ROUNDING
    double = bool(user or (too_coarse and view.precise))
    rows = rows_double if large and double == user else checked.rows(double)
    if large and double != user:
        rows_double = rows
        # What was found for rounded rows is only a guess for the rows as they are.
        feed, fit, structure = search(rows, fit.coordinates.center[None])
    posterior = Posterior(
        functions,
        rows,
        checked.constants(double),
        rows_double,
        constants_double,
        feed,
        fit,
        settings.temperature or 1.0,
        structure,
    )
    return posterior, double, bool(too_coarse and not double)


def _check_at(fit: CoordinateFit, checked: CheckedModel, constants: tuple) -> None:
    """Check at the mode once more that the model is a sum over rows, if that is in doubt.

    In single precision sums far from the mode may be so large that they hide what does not add up.
    """
    view, center = checked.model, fit.coordinates.center
    if view.precise or view.size == 1:
        return
    ahead = fit.coordinates.to_model(np.ones(len(center)))
    points = [from_numpy(point) for point in (center, ahead) if np.isfinite(point).all()]
    additive = check_minibatching(view, view.evaluate, checked.part, constants, points)
    if additive != view.additive:
        raise NotMinibatchable(
            f"The sites {sorted(additive ^ view.additive)} are a sum over rows at some points and "
            "not at others, as far as single precision can tell. Pass NumPy arrays that the model "
            "refers to as arguments: it can then be looked at in double precision."
        )


def _dynamics(
    settings: Settings, view: MinibatchModel, choice: Choice | None, coordinates: Coordinates
) -> tuple[Dynamics, float]:
    """Return the static choices of the run, and the step size."""
    chosen = settings if choice is None else choice
    count = -(-view.size // chosen.batch_size)
    steps_per_draw = chosen.steps_per_draw
    if steps_per_draw is None:
        steps_per_draw = max(1, settings.order.period) * count
    cache = not settings.order.redeals and count * view.dimension <= CACHE
    dynamics = Dynamics(
        order=settings.order,
        gradient=GRADIENTS[chosen.gradient].make(cache=cache),
        integrator=settings.integrator,
        temperature=settings.temperature,
        num_batches=count,
        steps_per_draw=steps_per_draw,
        steps_per_warmup=min(count, steps_per_draw),
        limit=FARTHEST if coordinates.whitens else None,
        step_schedule=settings.step_schedule,
        temperature_schedule=settings.temperature_schedule,
        recorded=min(view.dimension, MAX_COORDINATES) if settings.record_moments else 0,
    )
    return dynamics, chosen.step_size


def _run_data(plan: RunPlan, view: MinibatchModel, feed, rows, constants, data) -> RunData:
    """Return the arguments of the loop; ``data`` are the data leaves in the user's order."""
    kept = set(view.deterministics) - set(view.left_out())
    ragged = isinstance(feed, FixedPartition) and feed.extra is not None
    return RunData(
        feed,
        constants,
        jax.tree.map(from_numpy, data) if kept else None,
        plan.tuning,
        view,
        plan.dynamics,
        rows if ragged and jax.default_backend() == "cpu" else None,
    )


def _dealt(
    seed: np.ndarray, posterior: Posterior, dynamics: Dynamics
) -> tuple[Posterior, np.ndarray | None]:
    """Return the posterior with its rows in an order whose batches are dealt by group.

    The order is returned too; None if the rows are left as they are.
    """
    count = dynamics.num_batches
    if posterior.structure is None or dynamics.order.redeals or count == 1:
        return posterior, None
    stage("dealing the rows")
    generator = generator_of(np.append(seed, DEALING))
    index = posterior.structure.first.index
    order = deal_by_group(generator, index, posterior.curvatures(), count)
    return posterior._replace(rows=take_rows(posterior.rows, order)), order


def _dealt_again(plan: RunPlan, checked: CheckedModel, settings: Settings, rows, constants):
    """Return the rows in the order that they had when a plan was made for them."""
    view, seed = checked.model, plan.partition
    functions, double = functions_of(view, settings.init_strategy), rows
    with jax.enable_x64(view.precise):
        if not is_large(view.size):
            double = checked.rows(view.precise)
        whole, feed = checked.constants(view.precise), set_up_feed(double)
        own = generator_of(np.append(seed, BY_GROUP))
        structure = find_structure(own, functions, feed, whole)
    posterior = Posterior(functions, rows, constants, double, whole, feed, plan.fit, 1.0, structure)
    return _dealt(seed, posterior, plan.dynamics)[0].rows


def _feed(rows: tuple, dynamics: Dynamics):
    """Return the rows dealt into the batches of a run."""
    if dynamics.order.redeals:
        return DealtRows(rows, dynamics.num_batches)
    return cut(rows, dynamics.num_batches)


def _controls(
    posterior: Posterior, gradient: Gradient, feed, order: np.ndarray | None = None
) -> ArrayTree:
    """Return what the gradient needs to know about the center.

    ``order`` is that in which the rows of a model with groups were dealt into batches.
    """
    if gradient.needs == 0:
        return ()
    stage("control variates")
    if gradient.visits_batches:
        coordinates = posterior.coordinates.cast(float_dtype())
        count_rows(posterior.size)
        return posterior.functions.offsets(
            coordinates, feed, posterior.constants, gradient=gradient
        )
    known = gradient.prepare(None, None, None, *derivatives(posterior))
    if order is None or not isinstance(known, TaylorControls):
        return known
    count, size = feed.num_batches, len(order)
    length, left = divmod(size, count)
    batches = np.full((count, length + (left > 0)), size)
    batches[:, :length] = order[: count * length].reshape(count, length)
    batches[:left, -1] = order[count * length :]
    # The run's controls are those of log p: its temperature acts elsewhere.
    untempered = posterior._replace(temperature=1.0)
    return known._replace(batches=untempered.expansions(batches, count))


def _initial_points(view: MinibatchModel, given: tuple | None) -> np.ndarray | None:
    """Return (S, D) unconstrained initial points from a dict with or without a leading axis."""
    if given is None:
        return None
    init_params, leading = given
    view.check_params(init_params, leading, "init_params")
    name = view.latents[0]
    if np.ndim(init_params[name]) == len(view.shapes[name]):
        return np.asarray(view.ravel(init_params), float)[None]
    return np.asarray(jax.vmap(view.ravel)(jax.tree.map(from_numpy, init_params)), float)


def warn_of(view: MinibatchModel, stacklevel: int) -> None:
    """Warn of what a user may not expect of a model: no minibatches, or sites that are not kept."""
    if view.reason is not None:
        warnings.warn(
            f"Every step takes the gradient of all {view.num_rows} rows, because there are no "
            f"minibatches: {view.reason}",
            WholeDataWarning,
            stacklevel=stacklevel + 1,
        )
    if view.left_out():
        warnings.warn(
            f"The deterministic sites {view.left_out()} have a value for each of "
            f"{view.num_rows} rows and are left out of the draws. Compute them afterwards with "
            "numpyro.infer.Predictive.",
            stacklevel=stacklevel + 1,
        )
