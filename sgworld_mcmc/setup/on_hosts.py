"""The set-up of a run on several hosts, each of which has its own rows in memory.

The hosts share a random part of the rows, on which all of them search, measure and choose alike,
and sum what must be known of all rows: the gradient and the Hessian at the mode. So this set-up is
that of streamed rows (:mod:`sgworld_mcmc.setup.streamed`) but for the reading.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.dealing import LEAST_NUMBERS, extra_rows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.device_layout import Layout, layout_of
from sgworld_mcmc.hosts import from_first
from sgworld_mcmc.model.description import ModelDescription, describe, difference, probe
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import stage
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.host_rows import HostRows, arguments_of_all
from sgworld_mcmc.setup.initial_points import initial_points
from sgworld_mcmc.setup.lay_out import PlanMismatch
from sgworld_mcmc.setup.make_plan import dynamics_of, explore, make_plan, tuning_of
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.request import request_of
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.streamed.check import check_streamed
from sgworld_mcmc.setup.streamed.part import Part
from sgworld_mcmc.setup.streamed.posterior import find_posterior_of_part, posterior_of_part

__all__ = ["lay_out_on_hosts", "prepare_on_hosts"]


def prepare_on_hosts(
    seed: np.ndarray,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    init_params: tuple[dict, tuple | None] | None,
    cache: dict,
) -> tuple[RunPlan, RunData]:
    """Check the model and its arguments, and choose all settings, together with the other hosts.

    The arguments are those of :func:`sgworld_mcmc.setup.prepare.prepare`; the rows among them are
    those of this host (:func:`sgworld_mcmc.hosts.own_rows`).
    """
    stage("checking the model")
    generator, shards = generator_of(seed), settings.data_shards
    checked, rows, part = _checked(generator, model, settings, args, kwargs, cache, shards)
    view = checked.model
    initial = initial_points(checked, init_params)
    found = find_posterior_of_part(generator, checked, rows, part, settings, initial, _in_double)
    posterior, precision = found.with_mode().posterior, found.precision
    with jax.enable_x64(precision.double):
        posterior, measurements, starts = explore(generator, posterior, settings)
        choice = None if settings.complete else _chosen(settings, posterior, measurements)
        posterior = posterior.with_gradient()
        dynamics, step_size = dynamics_of(
            settings, view, choice, posterior.coordinates, LEAST_NUMBERS
        )
        # Offsets of batches would have to be made by all hosts: every step computes its own.
        uncached = type(dynamics.gradient).make(cache=False)
        dynamics = replace(dynamics, shards=shards, gradient=uncached)
        tuning = tuning_of(posterior, dynamics, step_size, starts)
    length = view.size // dynamics.num_batches
    plan = make_plan(
        seed,
        settings,
        precision,
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        description=_described(view, model, args, kwargs, posterior.coordinates),
        sharing=f"each batch of {length} rows is shared in {shards} equal parts",
    )
    # What they have decided must be the same everywhere: the first host's numbers count.
    plan = from_first(lambda: _on_host(plan))
    plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return plan, _run_data(plan, settings, found.rows, posterior)


def lay_out_on_hosts(
    plan: RunPlan, model: Callable, settings: Settings, args: tuple, kwargs: dict, cache: dict
) -> RunData:
    """Lay the rows of all hosts out for a plan that was made before.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model or other data.
    """
    stage("checking the model")
    generator = generator_of(plan.partition)
    checked, rows, part = _checked(generator, model, settings, args, kwargs, cache, plan.strata)
    described = _described(checked.model, model, args, kwargs, plan.fit.coordinates)
    problem = difference(plan.description, described)
    if problem:
        raise PlanMismatch(
            f"The plan was made for another model or other data. What differs is {problem}. Run "
            "without `plan` to set up anew.",
            problem,
        )
    with jax.enable_x64(plan.double):
        if rows.double != plan.double:
            rows, part = _in_double(rows, plan.double)
        posterior = posterior_of_part(checked, rows, part, settings, plan.fit)
        plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return _run_data(plan, settings, rows, posterior)


def _checked(
    generator: np.random.Generator,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    cache: dict,
    shards: int,
) -> tuple[CheckedModel, HostRows, Part]:
    """Return the model, the rows in so many parts, and a random part of them."""
    _check_settings(settings)
    args, kwargs = arguments_of_all(model, args, kwargs)
    words = generator.integers(2**32, size=4)
    opened = lambda leaves, double: HostRows(leaves, double, words, shards)  # noqa: E731
    return check_streamed(generator, model, settings, args, kwargs, cache, opened)


def _check_settings(settings: Settings) -> None:
    name, problem = settings.order.name, None
    if settings.order.redeals:
        problem = f"`order` {name!r} deals all rows anew: use 'batches'"
    elif settings.dynamics == "kinetic":
        problem = "`dynamics='kinetic'` needs all rows in one memory: leave it out"
    elif settings.batch_size is not None and settings.batch_size < settings.data_shards:
        problem = (
            f"`batch_size` {settings.batch_size} gives no row to some of the "
            f"{settings.data_shards} parts of the rows: take a larger one"
        )
    if problem:
        raise ValueError(f"The rows lie on several hosts. {problem}.")


def _in_double(rows: HostRows, double: bool) -> tuple[HostRows, Part]:
    """Return the rows and their random part in another precision."""
    rows = rows.again(double)
    return rows, rows.part()


def _chosen(settings: Settings, posterior: Posterior, measurements: Measurements) -> Choice:
    """Return the settings that were left open; each part of the rows is in every batch."""
    stage("choosing settings")
    size = posterior.functions.model.size
    request = request_of(settings, size, posterior.fit, numbers=LEAST_NUMBERS)
    sizes = [n for n in request.batch_sizes if n >= settings.data_shards]
    request = replace(request, batch_sizes=tuple(sizes) or (settings.data_shards,))
    return choose(request, measurements.noise, measurements.steps)


def _described(
    view: MinibatchModel, model: Callable, args: tuple, kwargs: dict, coordinates: Coordinates
) -> ModelDescription:
    """Return a description of the model and of all rows, the same on any number of hosts."""
    data, constants = view.layout.split(*arguments_of_all(model, args, kwargs))
    found = describe(view, data, constants, (None,) * (len(data) + len(constants)))
    # The first rows of all are the first host's.
    own = tuple(np.asarray(x.origin) for x in data)
    constants = tuple(np.asarray(x) for x in constants)
    values = from_first(lambda: probe(view, own, constants, coordinates))
    return found._replace(log_densities=values)


def _on_host(plan: RunPlan) -> RunPlan:
    return replace(plan, tuning=jax.tree.map(np.asarray, plan.tuning))


def _run_data(plan: RunPlan, settings: Settings, rows: HostRows, posterior: Posterior) -> RunData:
    """Return the argument of the loop, with the rows of the batches over the devices of all."""
    layout = layout_of(settings.devices, plan.dynamics.shards)
    view, count = posterior.functions.model, plan.num_batches
    length, left, more = extra_rows(view.size, count, plan.strata)
    each = length // plan.strata
    with jax.enable_x64(plan.double):
        used = count * each
        main = tuple(
            np.concatenate([x.reshape(count, each, *x.shape[1:]) for x in leaf], axis=1)
            for leaf in zip(*rows.taken(0, used), strict=True)
        )
        extra = None
        rest = rows.shared(used, used + view.size)
        if left:
            extra = tuple(x.reshape(left, more, *x.shape[1:]) for x in rest)
        constants = posterior.constants
        here = RunData(
            feed=FixedPartition(main, extra, plan.strata),
            constants=constants,
            originals=None,
            tuning=plan.tuning,
            model=view,
            dynamics=plan.dynamics,
        )
        return _spread(here, layout, posterior, main, extra)


def _spread(here: RunData, layout: Layout, posterior: Posterior, main, extra) -> RunData:
    feed = FixedPartition(layout.place_parts(main), extra, here.feed.shards)
    data = layout.place_data(replace(here, feed=feed))
    return replace(data, rows=posterior.rows, whole=posterior.whole, here=here)
