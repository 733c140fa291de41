"""The set-up of a run on several hosts, each of which has its own rows in memory.

The hosts share a random part of the rows, on which all of them search, measure and choose alike,
and sum what must be known of all rows: the gradient and the Hessian at the mode. So this set-up is
that of streamed rows (:mod:`sgworld_mcmc.setup.streamed`) but for the reading.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.dealing import LEAST_NUMBERS, extra_rows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import generator_of, part_edges, part_order
from sgworld_mcmc.devices import Layout, layout_of
from sgworld_mcmc.hosts import all_of, from_first, own_rows, summed
from sgworld_mcmc.model.additivity import check_initial
from sgworld_mcmc.model.arguments import argument_names, is_array, leaf_name
from sgworld_mcmc.model.description import describe, difference, probe
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import ArrayTree
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.choose import choose
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.lay_out import PlanMismatch, controls_of, reach_of
from sgworld_mcmc.setup.measurements import measure
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws
from sgworld_mcmc.setup.prepare import ROUNDING, check_at, dynamics_of, initial_points
from sgworld_mcmc.setup.request import request_of
from sgworld_mcmc.setup.run_plan import RunData, RunPlan, Tuning
from sgworld_mcmc.setup.streamed.check import check_streamed
from sgworld_mcmc.setup.streamed.part import BYTES, FEWEST, LEAST, MOST, Part
from sgworld_mcmc.setup.streamed.search import fit_streamed
from sgworld_mcmc.setup.streamed.whole import WholeData
from sgworld_mcmc.streaming.arrays import ALL, ArraySource
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import Source, StreamedArray

__all__ = ["lay_out_on_hosts", "prepare_on_hosts"]


class _OwnSource(Source):
    """All rows of all hosts, of which this one can read its own."""

    def __init__(self, array: np.ndarray, size: int) -> None:
        self._rows, self._own = ArraySource(array), own_rows(size)
        self.columns, self.size = self._rows.columns, size

    def read(self, start: int, stop: int) -> dict[str, Any]:
        first = self._own.start
        return self._rows.read(start - first, stop - first)


class HostRows(Rows):
    """The rows of this host, numbered as those of all hosts together.

    Parameters
    ----------
    leaves, double
        As for :class:`~sgworld_mcmc.streaming.rows.Rows`.
    words, shards
        Integers that decide the order of the rows of each of S parts.
    """

    def __init__(self, leaves: tuple, double: bool, words: np.ndarray, shards: int) -> None:
        super().__init__(leaves, double)
        self.words, self.shards = words, shards
        self.own, self.edges = own_rows(self.size), part_edges(self.size, shards)
        inside = range(self.own.start, self.own.stop)
        self.parts = [n for n in range(shards) if self.edges[n] in inside]
        self.orders = [part_order(words, n, self.edges) for n in self.parts]

    def pieces(self, length: int) -> Iterator[tuple[int, int]]:
        for start in range(self.own.start, self.own.stop, length):
            yield start, min(start + length, self.own.stop)

    def total(self, tree: ArrayTree) -> ArrayTree:
        return summed(tree)

    def in_double(self, double: bool) -> "HostRows":
        """Return the rows in another precision."""
        return HostRows(self.leaves, double, self.words, self.shards)

    def taken(self, first: int, last: int) -> list[tuple[np.ndarray, ...]]:
        """Return rows number ``first`` to before ``last`` of the order of each own part."""
        found = []
        for order in self.orders:
            rows = order[first:last] - self.own.start
            arrays = (np.asarray(leaf.origin)[rows] for leaf in self.leaves)
            pairs = zip(arrays, self.dtypes, strict=True)
            found.append(tuple(x.astype(dtype, copy=False) for x, dtype in pairs))
        return found

    def shared(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """Return these rows of all parts of all hosts, one of each part in turn."""
        parts = [part for host in all_of(self.taken(first, last)) for part in host]
        common = min(len(part[0]) for part in parts)
        mixed = (np.stack([x[:common] for x in leaf], axis=1) for leaf in zip(*parts, strict=True))
        rounds = (x.reshape(-1, *x.shape[2:]) for x in mixed)
        rest = ([x[common:] for x in leaf] for leaf in zip(*parts, strict=True))
        return tuple(np.concatenate([a, *b]) for a, b in zip(rounds, rest, strict=True))

    def part(self) -> Part:
        """Return a random part of all rows, the same in all hosts."""
        size = int(np.clip(self.size // LEAST, min(FEWEST, self.size), MOST))
        size = max(1, min(size, BYTES // max(self.row_bytes, 1)))
        rows = self.shared(0, max(1, size // self.shards))
        count_rows(len(rows[0]))
        with jax.enable_x64(self.double):
            return Part(tuple(from_numpy(x) for x in rows), None, 1)


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
    _check_settings(settings)
    generator = generator_of(seed)
    whole_args, whole_kwargs = _of_all(model, args, kwargs)
    words = generator.integers(2**32, size=4)
    opened = lambda leaves, double: HostRows(leaves, double, words, settings.data_shards)  # noqa: E731
    checked, rows, part = check_streamed(
        generator, model, settings, whole_args, whole_kwargs, cache, opened
    )
    view = checked.model
    initial = initial_points(view, init_params)
    if initial is not None:
        with jax.enable_x64(view.precise):
            check_initial(view.evaluate, initial, part.rows, checked.constants(view.precise))
    posterior, rows, double, too_coarse = _posterior(
        generator, checked, rows, part, settings, initial
    )
    with jax.enable_x64(double):
        choice = measurements = None
        if settings.complete:
            starts = gaussian_draws(generator, posterior) * np.sqrt(settings.temperature)
        else:
            adapt = settings.adapt and posterior.fit.curved and settings.start != "given"
            posterior, measurements = measure(generator, posterior, adapt)
            starts = measurements.starts
            stage("choosing settings")
            request = request_of(settings, view.size, posterior.fit, numbers=LEAST_NUMBERS)
            sizes = [n for n in request.batch_sizes if n >= settings.data_shards]
            request = replace(request, batch_sizes=tuple(sizes) or (settings.data_shards,))
            choice = choose(request, measurements.noise, measurements.steps)
        with jax.enable_x64(view.precise):
            gradient = posterior.gradient()
        posterior = posterior._replace(fit=posterior.fit._replace(gradient=gradient))
        reach = reach_of(starts, posterior.fit)
        if not posterior.coordinates.whitens:
            starts = np.zeros_like(starts)
        dynamics, step_size = dynamics_of(
            settings, view, choice, posterior.coordinates, LEAST_NUMBERS
        )
        # Offsets of batches would have to be made by all hosts: every step computes its own.
        uncached = type(dynamics.gradient).make(cache=False)
        dynamics = replace(dynamics, shards=settings.data_shards, gradient=uncached)
        controls = controls_of(posterior, dynamics.gradient, None)
        controls = dynamics.gradient.bounded(controls, reach)
        tuning = Tuning(
            posterior.coordinates.cast(float_dtype()),
            from_numpy(step_size, float_dtype()),
            controls,
            from_numpy(starts, float_dtype()),
        )
    length = view.size // dynamics.num_batches
    plan = RunPlan(
        dynamics=dynamics,
        tuning=tuning,
        fit=posterior.fit,
        measurements=measurements,
        choice=choice,
        double=double,
        too_coarse=too_coarse,
        partition=np.asarray(seed),
        description=_described(view, model, args, kwargs, posterior.fit.coordinates),
        tolerance=settings.tolerance,
        fixed=settings.fixed,
        strata=settings.data_shards,
        sharing=f"each batch of {length} rows is shared in {settings.data_shards} equal parts",
    )
    # What they have decided must be the same everywhere: the first host's numbers count.
    plan = from_first(lambda: _on_host(plan))
    plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return plan, _run_data(plan, settings, rows, posterior)


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
    _check_settings(settings)
    generator = generator_of(plan.partition)
    whole_args, whole_kwargs = _of_all(model, args, kwargs)
    words = generator.integers(2**32, size=4)
    opened = lambda leaves, double: HostRows(leaves, double, words, plan.strata)  # noqa: E731
    checked, rows, part = check_streamed(
        generator, model, settings, whole_args, whole_kwargs, cache, opened
    )
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
            rows = rows.in_double(plan.double)
            part = rows.part()
        posterior = _of_part(checked, rows, part, settings, plan.fit)
        plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
    return _run_data(plan, settings, rows, posterior)


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


def _of_all(model: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Return the arguments with the rows of all hosts in place of this one's."""
    flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    names = [leaf_name(argument_names(model, args), path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    here = max((len(x) for x in leaves if is_array(x) and np.ndim(x)), default=0)
    sizes = all_of(here)
    size = sum(sizes)
    wanted = own_rows(size)
    problems = all_of(None if wanted.stop - wanted.start == here else (here, wanted))
    for number, problem in enumerate(problems):
        if problem is not None:
            raise ValueError(
                f"Process {number} was given {problem[0]} of {size} rows, and its own are "
                f"{problem[1]}: open data[own_rows({size})], with sgworld_mcmc.own_rows."
            )
    for place, leaf in enumerate(leaves):
        if is_array(leaf) and np.ndim(leaf) and len(leaf) == here:
            source = _OwnSource(np.asarray(leaf), size)
            leaves[place] = StreamedArray(names[place], source, ALL, leaf)
    return jax.tree.unflatten(treedef, leaves)


def _posterior(generator, checked, rows: HostRows, part: Part, settings: Settings, initial):
    """Return the posterior in the coordinates of its mode, its rows, and the precision."""
    view, user = checked.model, bool(jax.config.jax_enable_x64)

    def search(rows, part, initial):
        posterior = _of_part(checked, rows, part, settings, None)
        with jax.enable_x64(view.precise):
            stage("searching the mode")
            fit, _ = fit_streamed(
                generator,
                posterior.functions,
                posterior.feed_double,
                posterior.constants_double,
                initial,
                settings,
                posterior.whole,
            )
        return posterior._replace(fit=fit)

    posterior = search(rows, part, initial)
    fit = posterior.fit
    check_at(fit, checked, posterior.constants_double)
    rounding = np.abs(fit.coordinates.center) * np.finfo(np.float32).eps / 2
    too_coarse = not user and np.max(fit.coordinates.error_of(rounding)) > ROUNDING
    double = bool(user or (too_coarse and view.precise))
    if double != user:
        rows = rows.in_double(double)
        posterior = search(rows, rows.part(), fit.coordinates.center[None])
    posterior = posterior._replace(constants=checked.constants(double))
    return posterior, rows, double, bool(too_coarse and not double)


def _of_part(checked, rows: HostRows, part: Part, settings: Settings, fit) -> Posterior:
    view = checked.model
    functions = functions_of(view, settings.init_strategy)
    constants = checked.constants(view.precise)
    with jax.enable_x64(view.precise):
        feed = set_up_feed(part.rows)
    return Posterior(
        functions,
        part.rows,
        checked.constants(rows.double),
        part.rows,
        constants,
        feed,
        fit,
        settings.temperature or 1.0,
        whole=WholeData(functions, rows, constants),
    )


def _described(view, model, args, kwargs, coordinates):
    """Return a description of the model and of all rows, the same on any number of hosts."""
    data, constants = view.layout.split(*_of_all(model, args, kwargs))
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
