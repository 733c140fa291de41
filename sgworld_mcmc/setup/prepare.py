"""Make a plan from a model and its arguments: check, search, measure and choose."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype
from sgworld_mcmc.data.dealing import numbers_of
from sgworld_mcmc.data.in_memory import generator_of, is_large
from sgworld_mcmc.device_layout import layout_of
from sgworld_mcmc.memory import check_room
from sgworld_mcmc.model.description import describe
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.progress import stage
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel, check_model
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.find_posterior import find_posterior
from sgworld_mcmc.setup.initial_points import check_start, initial_points
from sgworld_mcmc.setup.jumps import with_jumps
from sgworld_mcmc.setup.leave_mode import is_doubtful, is_slow, says_nothing
from sgworld_mcmc.setup.make_plan import dynamics_of, explore, make_plan, tuning_of
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.random_parts import check_random, uncancelled, with_random_parts
from sgworld_mcmc.setup.request import request_of
from sgworld_mcmc.setup.run_batches import dealt, feed_of, fingerprint_of, run_data
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.seen_models import see_whole
from sgworld_mcmc.setup.shards import sharing_of
from sgworld_mcmc.setup.take_all import with_take_all
from sgworld_mcmc.setup.without_mode.plan import plan_without_mode

__all__ = ["prepare"]


def prepare(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
    chains: int = 4,
    draws: int = 0,
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
    draws
        Number of draws of each chain that will lie in memory.

    Raises
    ------
    MemoryError
        If the machine has no room for the draws.
    """
    stage("checking the model")
    generator = generator_of(seed)
    checked = check_model(generator, model, settings, args, kwargs, cache)
    view = checked.model
    if settings.keep is None:
        check_room(chains * draws * view.dimension * np.dtype(float_dtype()).itemsize)
    check_start(settings, init_params)
    check_random(settings, view)
    initial = initial_points(checked, init_params)
    try:
        found = find_posterior(generator, seed, checked, settings, initial)
    except NotMinibatchable as error:
        if settings.batch_size is not None:
            raise
        see_whole(model, args, kwargs, cache, str(error))
        return prepare(seed, model, settings, args, kwargs, init_params, cache, chains, draws)
    if found is None:
        return _without_mode(seed, checked, settings, (args, kwargs), initial, chains)
    posterior, precision = found
    contents = checked.contents
    before = posterior.fit
    doubtful = is_doubtful(before)
    may_go = settings.may_go_without_mode and view.reason is None
    if not may_go or (is_large(view.size) and not doubtful):
        checked = None  # the order of many rows takes memory
    posterior, few = with_take_all(seed, posterior, settings)
    with jax.enable_x64(precision.double):
        posterior, measurements, starts = explore(generator, posterior, settings)
        if measurements is not None:
            posterior = with_jumps(posterior, measurements.starts)
        measured = checked is not None and measurements is not None
        leave = measured and says_nothing(before, posterior, measurements)
        choice = None if leave or settings.complete else _chosen(settings, posterior, measurements)
    if leave or (measured and doubtful and is_slow(choice)):
        return _without_mode(seed, checked, settings, (args, kwargs), initial, chains)
    with jax.enable_x64(precision.double):
        dynamics, step_size, sharing = _shared_dynamics(settings, posterior, choice)
        posterior, order = dealt(seed, posterior, dynamics)
        feed = feed_of(posterior.rows, dynamics, layout_of(settings.devices, dynamics.shards))
        tuning = tuning_of(posterior, dynamics, step_size, starts, feed, order)
    data, constants = view.layout.split(args, kwargs)
    plan = make_plan(
        seed,
        settings,
        precision,
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        description=describe(view, data, constants, contents),
        take_all=few,
        dealt=fingerprint_of(order),
        sharing=sharing,
    )
    return plan, run_data(
        plan, posterior.functions.model, feed, posterior.rows, posterior.constants, data
    )


def _without_mode(
    seed: np.ndarray,
    checked: CheckedModel,
    settings: Settings,
    arguments: tuple,
    initial: np.ndarray | None,
    chains: int,
) -> tuple[RunPlan, RunData]:
    """Return plan and data of kinetic dynamics, where no mode is to be searched."""
    random = checked.model.random
    settings = uncancelled(settings) if random else settings
    made = plan_without_mode(seed, checked, settings, arguments, initial, chains)
    return with_random_parts(*made) if random else made


def _chosen(settings: Settings, posterior: Posterior, measurements: Measurements) -> Choice:
    """Return the settings that were left open, chosen from what was measured."""
    stage("choosing settings")
    model, numbers = posterior.functions.model, numbers_of(posterior.rows)
    request = request_of(settings, model.size, posterior.fit, numbers=numbers, taken=model.taken)
    return choose(request, measurements.noise, measurements.steps)


def _shared_dynamics(
    settings: Settings, posterior: Posterior, choice: Choice | None
) -> tuple[Dynamics, float, str]:
    """Return the static choices of the run, the step size, and why batches are shared or not."""
    view, rows = posterior.functions.model, posterior.rows
    dynamics, step_size = dynamics_of(
        settings, view, choice, posterior.coordinates, numbers_of(rows)
    )
    by_group = posterior.structure is not None and dynamics.num_batches > 1
    sharing = sharing_of(settings, view, rows, dynamics.num_batches, by_group=by_group)
    return replace(dynamics, shards=sharing.shards), step_size, sharing.reason
