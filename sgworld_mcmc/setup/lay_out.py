"""Lay the data out for a plan that was made before, or deal them anew for it."""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.contents import identity
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.in_memory import generator_of, is_large, joined, shuffle
from sgworld_mcmc.device_layout import layout_of
from sgworld_mcmc.model.description import PROBED, describe, difference, probe
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import stage
from sgworld_mcmc.protocols import Feed
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel, arrays_of, check_model
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.run_batches import (
    controls_of,
    dealt,
    feed_of,
    fingerprint_of,
    reach_of,
    run_data,
    with_structure,
)
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.take_all import take_out, taken_out
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import StreamedArray

__all__ = [
    "PlanMismatch",
    "first_rows",
    "identified",
    "lay_out",
    "posterior_of",
    "repartition",
]


class PlanMismatch(ValueError):
    """A plan was made for another model or other data; ``what`` says what differs, in words."""

    def __init__(self, message: str, what: str = "") -> None:
        super().__init__(message)
        self.what = what or message


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
    if plan.streaming is not None:
        raise PlanMismatch(
            "The plan is one of rows that are streamed, and they are in memory: leave out "
            "`stream=False`, or run without `plan` to set up anew.",
            "where the rows are: streamed then, in memory now",
        )
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
            "without `plan` to set up anew; after warmup(...) on other data, set "
            "`post_warmup_state` to None.",
            problem,
        )
    with jax.enable_x64(plan.double):
        rows, constants = checked.rows(plan.double), checked.constants(plan.double)
        if plan.fit.unit:
            plan, view, rows, constants = _dealt_again(plan, checked, settings, rows, constants)
        elif len(plan.take_all):
            view, rows, constants = taken_out(view, rows, constants, plan.take_all, plan.strata)
        layout = layout_of(settings.devices, plan.dynamics.shards)
        feed = feed_of(rows, plan.dynamics, layout)
        plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return run_data(plan, view, feed, rows, constants, data)


def identified(plan: RunPlan, view: MinibatchModel, args: tuple, kwargs: dict) -> RunPlan:
    """Return the plan with a description of its model and data that holds in other processes."""
    data, constants = view.layout.split(args, kwargs)
    if plan.streaming is not None:
        data = first_rows(data, view.precise)
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


def first_rows(leaves: tuple[StreamedArray, ...], double: bool) -> tuple[np.ndarray, ...]:
    """Return those of the streamed rows on which plans are compared."""
    rows = Rows(leaves, double)
    length = min(PROBED, rows.size)
    some = rows.empty(length)
    rows.read(0, length, some)
    return some


def repartition(
    plan: RunPlan, data: RunData, seed: np.ndarray, strategy: Callable | None = None
) -> tuple[RunPlan, RunData]:
    """Deal the rows into other batches of the same sizes; everything else stays as it is."""
    with jax.enable_x64(plan.double):
        posterior = posterior_of(plan, data, strategy)
        rows = shuffle(generator_of(np.asarray(seed)), posterior.rows)
        posterior = posterior._replace(rows=rows, rows_double=rows, feed_double=set_up_feed(rows))
        if plan.fit.unit:
            posterior = with_structure(posterior, seed).with_row_derivatives()
        posterior, order = dealt(seed, posterior, plan.dynamics)
        feed = feed_of(posterior.rows, plan.dynamics)
        tuning = _tuning_for(plan, posterior, feed, order)
    # The rows were in random order already: no seed leads from the user's order to this one.
    nothing = np.zeros(0, np.uint32)
    plan = replace(plan, tuning=tuning, partition=nothing)
    return plan, replace(data, feed=feed, tuning=plan.tuning)


def posterior_of(plan: RunPlan, data: RunData, strategy: Callable | None) -> Posterior:
    """Return the posterior of data that have been laid out, for measurements afterwards."""
    rows = data.rows
    if rows is None:
        rows = data.feed.data if isinstance(data.feed, DealtRows) else joined(data.feed)
    # Where rows lie on several hosts, each host has a part in memory that needs no layout.
    layout = None if data.whole is not None else data.layout
    strata = plan.strata if data.whole is None else 1
    return Posterior(
        functions_of(data.model, strategy),
        rows,
        data.constants,
        rows,
        data.constants,
        set_up_feed(rows, strata, layout),
        plan.fit,
        plan.dynamics.temperature or 1.0,
        whole=data.whole,
        strata=strata,
        layout=layout,
    )


def _dealt_again(plan: RunPlan, checked: CheckedModel, settings: Settings, rows, constants):
    """Return plan, model, rows and constants, the rows dealt as when the plan was made for them.

    Curvatures by which rows are dealt may be rounded otherwise on another machine. The batches are
    others then, and the plan is returned with what control variates know about these.
    """
    view, seed = checked.model, plan.partition
    functions, double = functions_of(view, settings.init_strategy), rows
    with jax.enable_x64(view.precise):
        if not is_large(view.size):
            double = checked.rows(view.precise)
        whole, feed = checked.constants(view.precise), set_up_feed(double)
    posterior = Posterior(
        functions, rows, constants, double, whole, feed, plan.fit, 1.0, strata=plan.strata
    )
    posterior = with_structure(posterior, seed)
    if len(plan.take_all):
        posterior = take_out(posterior, plan.take_all)
    posterior, order = dealt(seed, posterior.with_row_derivatives(), plan.dynamics)
    if fingerprint_of(order) != plan.dealt:
        feed = feed_of(posterior.rows, plan.dynamics)
        plan = replace(plan, tuning=_tuning_for(plan, posterior, feed, order))
    return plan, posterior.functions.model, posterior.rows, posterior.constants


def _tuning_for(plan: RunPlan, posterior: Posterior, feed: Feed, order) -> Tuning:
    """Return the plan's tuning with what control variates know about these batches."""
    gradient = plan.dynamics.gradient
    controls = controls_of(posterior, gradient, feed, order)
    if plan.measurements is not None:
        controls = gradient.bounded(controls, reach_of(plan.measurements.starts, plan.fit))
    return plan.tuning._replace(controls=controls)
