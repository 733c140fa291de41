"""Lay the data out for a plan: for one that is being made, for one that was made before.

The same functions deal the rows in both cases, so that the same seed gives the same batches.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.contents import identity
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, generator_of, is_large, joined, shuffle, take_rows
from sgworld_mcmc.device_layout import Layout, layout_of
from sgworld_mcmc.model.description import PROBED, describe, difference, probe
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import ArrayTree, Feed, Gradient
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel, arrays_of, check_model
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.posterior import Posterior, derivatives
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.take_all import take_out, taken_out
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import StreamedArray

__all__ = [
    "BY_GROUP",
    "PlanMismatch",
    "controls_of",
    "dealt",
    "feed_of",
    "fingerprint_of",
    "first_rows",
    "identified",
    "lay_out",
    "posterior_of",
    "reach_of",
    "repartition",
    "run_data",
    "with_structure",
]

# Numbers that, beside the seed, begin random numbers of their own.
BY_GROUP, DEALING = 11, 12
# A batch is not bounded in what it does to a chain within the distance that BULK of the pilot
# chains keep to, and BEYOND standard deviations more.
BULK, BEYOND = 0.9, 6.0


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


def with_structure(posterior: Posterior, seed: np.ndarray) -> Posterior:
    """Return the posterior of a model with groups with its structure, which is looked for again."""
    own = generator_of(np.append(seed, BY_GROUP))
    with jax.enable_x64(posterior.functions.model.precise):
        structure = find_structure(
            own, posterior.functions, posterior.feed_double, posterior.constants_double
        )
    return posterior._replace(structure=structure)


def dealt(
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


def feed_of(rows: tuple, dynamics: Dynamics, layout: Layout | None = None):
    """Return the rows dealt into the batches of a run, over the devices that share them."""
    if dynamics.order.redeals:
        return DealtRows(rows, dynamics.num_batches)
    feed = cut(rows, dynamics.num_batches, dynamics.shards)
    return feed if layout is None else layout.place_feed(feed)


def controls_of(
    posterior: Posterior, gradient: Gradient, feed: Feed, order: np.ndarray | None = None
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
    made = None
    batches_stay = isinstance(feed, FixedPartition)
    if posterior.structure is not None and gradient.needs > 1 and batches_stay:
        order = np.arange(posterior.size) if order is None else order  # all rows are one batch
        count, size = feed.num_batches, len(order)
        length, left = divmod(size, count)
        batches = np.full((count, length + (left > 0)), size)
        batches[:, :length] = order[: count * length].reshape(count, length)
        batches[:left, length:] = order[count * length :, None]
        if posterior.row_derivatives is None:  # nothing was measured
            posterior = posterior.with_row_derivatives()
        # The run's controls are those of log p: its temperature acts elsewhere.
        made = posterior._replace(temperature=1.0).taylor(batches, count)
    return gradient.prepare(None, None, None, *derivatives(posterior)) if made is None else made[1]


def reach_of(starts: np.ndarray, fit: CoordinateFit) -> float:
    """Return a length that the gradient hardly exceeds at draws of the posterior."""
    distance = np.quantile(np.linalg.norm(starts, axis=1), BULK)
    low, high = np.quantile(starts, (0.16, 0.84), axis=0)
    return float(fit.extremes()[0] * (distance + BEYOND * np.max(high - low) / 2))


def run_data(plan: RunPlan, view: MinibatchModel, feed, rows, constants, data) -> RunData:
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


def fingerprint_of(order: np.ndarray | None) -> int:
    """Return a number that tells orders of the rows apart; zero for none."""
    return 0 if order is None else identity({"order": order})[0]
