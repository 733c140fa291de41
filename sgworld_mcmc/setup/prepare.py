"""Make a plan from a model and its arguments: check, search, measure and choose."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.dealing import batch_count, is_shared, numbers_of
from sgworld_mcmc.data.in_memory import first_batches, generator_of, head, is_large
from sgworld_mcmc.devices import layout_of
from sgworld_mcmc.model.additivity import check_initial, check_minibatching
from sgworld_mcmc.model.description import describe
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import stage
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.sampling.chain import Dynamics
from sgworld_mcmc.sampling.lagged_moments import MAX_COORDINATES
from sgworld_mcmc.settings import GRADIENTS, Settings
from sgworld_mcmc.setup.batch_noise import compile_ahead
from sgworld_mcmc.setup.checked_model import CheckedModel, check_gradient, check_model
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_by_group import fit_by_group, is_wanted
from sgworld_mcmc.setup.coordinates_from_mode import (
    CoordinateFit,
    coordinates_at,
    fit_coordinates,
    set_up_feed,
)
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.lay_out import (
    BY_GROUP,
    controls_of,
    dealt,
    feed_of,
    reach_of,
    run_data,
)
from sgworld_mcmc.setup.measurements import measure
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws
from sgworld_mcmc.setup.random_parts import check_random, uncancelled, with_random_parts
from sgworld_mcmc.setup.request import request_of
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.seen_models import see_whole
from sgworld_mcmc.setup.shards import sharing_of
from sgworld_mcmc.setup.without_mode.plan import is_wanted as kinetic_is_wanted
from sgworld_mcmc.setup.without_mode.plan import plan_without_mode

__all__ = ["ROUNDING", "check_at", "check_start", "dynamics_of", "initial_points", "prepare"]

# Groups are looked for on this many rows first, if rows times parameters exceed MANY_NUMBERS.
FIRST_ROWS, MANY_NUMBERS = 512, 2**30
# A chain farther from the center than this, in posterior standard deviations, has diverged.
FARTHEST = 1e4
# The offsets of the batches are kept up to this many numbers (M x D); above, every step computes
# them again.
CACHE = 2**26
# The run is in double precision if rounding in single precision moves a position by more posterior
# standard deviations than this.
ROUNDING = 0.01


def prepare(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
    chains: int = 4,
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
    chains
        Number of chains of the run; without a mode each of them is brought to the posterior.
    """
    stage("checking the model")
    generator = generator_of(seed)
    checked = check_model(generator, model, settings, args, kwargs, cache)
    view = checked.model
    initial = initial_points(view, init_params)
    check_start(settings, init_params)
    check_random(settings, view)
    if initial is not None:
        with jax.enable_x64(view.precise):
            constants = checked.constants(view.precise)
            check_initial(view.evaluate, initial, checked.part, constants)
    try:
        found = _with_coordinates(generator, seed, checked, settings, initial)
    except NotMinibatchable as error:
        if settings.batch_size is not None:
            raise
        see_whole(model, args, kwargs, cache, str(error))
        return prepare(seed, model, settings, args, kwargs, init_params, cache, chains)
    if found is None:
        settings = uncancelled(settings) if view.random else settings
        made = plan_without_mode(seed, checked, settings, (args, kwargs), initial, chains)
        return with_random_parts(*made) if view.random else made
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
            numbers = numbers_of(posterior.rows)
            request = request_of(settings, view.size, posterior.fit, numbers=numbers)
            choice = choose(request, measurements.noise, measurements.steps)
        reach = reach_of(starts, posterior.fit)
        if not posterior.coordinates.whitens:
            starts = np.zeros_like(starts)
        dynamics, step_size = dynamics_of(
            settings, view, choice, posterior.coordinates, numbers_of(posterior.rows)
        )
        by_group = posterior.structure is not None and dynamics.num_batches > 1
        sharing = sharing_of(
            settings, view, posterior.rows, dynamics.num_batches, by_group=by_group
        )
        dynamics = replace(dynamics, shards=sharing.shards)
        posterior, order = dealt(seed, posterior, dynamics)
        feed = feed_of(posterior.rows, dynamics, layout_of(settings.devices, dynamics.shards))
        controls = controls_of(posterior, dynamics.gradient, feed, order)
        controls = dynamics.gradient.bounded(controls, reach)
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
        strata=settings.data_shards,
        sharing=sharing.reason,
    )
    return plan, run_data(plan, view, feed, posterior.rows, posterior.constants, data)


def check_start(settings: Settings, init_params: object) -> None:
    """Raise if chains are to start at given points, and none are given."""
    if settings.start == "given" and init_params is None:
        raise ValueError(
            "`start='given'` starts the chains at given points: pass them as `init_params`, a dict "
            "of unconstrained values by site, for all chains or with the axis of chains first."
        )


def _with_coordinates(
    generator: np.random.Generator,
    seed: np.ndarray,
    checked: CheckedModel,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, bool, bool] | None:
    """Return the posterior in the coordinates of its mode, and the precision of the run.

    Two flags say whether the precision is double, and whether it should be but cannot. None if the
    mode is not to be searched.
    """
    view, user = checked.model, bool(jax.config.jax_enable_x64)
    # A mode of a density with random parts would be one of their average.
    layout = layout_of(settings.devices, settings.data_shards)
    large, without_mode = is_large(view.size), view.random or kinetic_is_wanted(settings, view)
    functions = functions_of(view, settings.init_strategy)
    constants_double = checked.constants(view.precise)

    def may_have_groups(feed):
        # Each candidate costs a pass over all rows: of many numbers a part is looked at first.
        if view.size * view.dimension < MANY_NUMBERS or feed.num_batches == 1:
            return True
        own = generator_of(np.append(seed, BY_GROUP))
        part = head(first_batches(feed, 1), FIRST_ROWS)
        return find_structure(own, functions, part, constants_double) is not None

    def ahead(coordinates):
        with jax.enable_x64(user):
            compile_ahead(functions, coordinates, checked.part, checked.constants(user))

    def search(rows, initial):
        with jax.enable_x64(view.precise):
            stage("searching the mode")
            feed = set_up_feed(rows, settings.data_shards, layout)
            groups = is_wanted(settings) and view.reason is None and not view.random
            if groups and may_have_groups(feed):
                own = generator_of(np.append(seed, BY_GROUP))
                found = fit_by_group(own, functions, feed, constants_double, initial, ahead)
                if found is not None:
                    return feed, *found
            if without_mode:
                return feed, None, None
            check_gradient(settings.gradient, view.dimension)
            find = coordinates_at if settings.start == "given" else fit_coordinates
            fit = find(generator, functions, feed, constants_double, initial, settings)
            if large and fit is not None and not fit.converged:
                # Only a part of many rows was checked: elsewhere the density may be infinite.
                check_minibatching(view, view.evaluate, rows, constants_double)
        return feed, fit, None

    # Of few rows the set-up and the run have a copy each. Many rows are copied once, as the run
    # will most likely read them: the set-up only adds them up in double precision.
    rows_double = checked.rows(user if large else view.precise)
    feed, fit, structure = search(rows_double, initial)
    if fit is None:
        return None
    stage("coordinates")
    check_at(fit, checked, constants_double)
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
        strata=settings.data_shards,
        layout=layout,
    )
    return posterior, double, bool(too_coarse and not double)


def check_at(fit: CoordinateFit, checked: CheckedModel, constants: tuple) -> None:
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


def dynamics_of(
    settings: Settings,
    view: MinibatchModel,
    choice: Choice | None,
    coordinates: Coordinates,
    numbers: int = 0,
) -> tuple[Dynamics, float]:
    """Return the static choices of the run, and the step size; a row has so many ``numbers``."""
    chosen = settings if choice is None else choice
    if choice is None:
        shared = is_shared(settings.batch_size, numbers, settings.data_shards)
        count = batch_count(view.size, settings.batch_size, settings.data_shards if shared else 1)
    else:
        count = choice.num_batches
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


def initial_points(view: MinibatchModel, given: tuple | None) -> np.ndarray | None:
    """Return (S, D) unconstrained initial points from a dict with or without a leading axis."""
    if given is None:
        return None
    init_params, leading = given
    view.check_params(init_params, leading, "init_params")
    name = view.latents[0]
    if np.ndim(init_params[name]) == len(view.shapes[name]):
        return np.asarray(view.ravel(init_params), float)[None]
    return np.asarray(jax.vmap(view.ravel)(jax.tree.map(from_numpy, init_params)), float)
