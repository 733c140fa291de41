"""Lay streamed rows out for a plan: for one that is being made, for one that was made before."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.contents import identity
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, generator_of
from sgworld_mcmc.model.description import ModelDescription, describe, difference, probe
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import Contents, arrays_of
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.forecast import check_memory
from sgworld_mcmc.setup.lay_out import PlanMismatch, first_rows
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.streamed.check import check_streamed, streamed_settings
from sgworld_mcmc.setup.streamed.part import part_again
from sgworld_mcmc.setup.streamed.take_all import without_few
from sgworld_mcmc.setup.streamed.whole import WholeData
from sgworld_mcmc.streaming.chunks import first_chunk
from sgworld_mcmc.streaming.portions import Stream
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["describe_streamed", "lay_out_streamed", "streamed_data"]

# Draws are looked at on so many rows, in batches of so many.
SAMPLE_ROWS, SAMPLE_BATCH = 2048, 256


def lay_out_streamed(
    plan: RunPlan, model: Callable, settings: Settings, args: tuple, kwargs: dict, cache: dict
) -> RunData:
    """Lay streamed rows out for a plan that was made before, without search and measurements.

    The random part of the rows is read again, since the report needs it and tells other rows by
    it. The file is cut into the chunks of the plan, however much memory is free now.

    Raises
    ------
    PlanMismatch
        If the plan was made for another model or other data; the message says what differs.
    MemoryError
        If there is not the memory for the chunks of the plan.
    """
    stage("checking the model")
    problem = None
    if plan.streaming is None:
        problem = "where the rows are: in memory then, streamed now"
    elif plan.double != (jax.config.jax_enable_x64 or plan.double):
        problem = "the precision: jax_enable_x64 is set now, and was not then"
    if problem is None:
        generator = generator_of(plan.partition)
        checked, rows, part = check_streamed(
            generator, model, streamed_settings(settings), args, kwargs, cache
        )
        view, others = checked.model, checked.others
        check_memory(rows, plan.streaming.grid.chunk_rows)
        some = first_rows(rows.leaves, view.precise)
        if len(plan.take_all):
            checked, rows = without_few(checked, rows, plan.take_all)
        if rows.double != plan.double or len(plan.take_all):
            rows = rows.again(plan.double)
            part = part_again(plan.partition, rows)
        contents = identity(arrays_of(model, args, kwargs))
        described = describe_streamed(view, args, kwargs, contents, part.rows)
        problem = difference(plan.description, described)
        if problem is None and plan.description.log_densities is not None:
            values = probe(view, some, others, plan.fit.coordinates)
            problem = difference(plan.description, described._replace(log_densities=values))
        if problem is None and plan.double and not view.precise:
            problem = "the precision: jax_enable_x64 was set then, and is not now"
    if problem is not None:
        raise PlanMismatch(
            f"The plan was made for another model or other data. What differs is {problem}. Run "
            "without `plan` to set up anew.",
            problem,
        )
    model, constants = checked.model, checked.constants(checked.model.precise)
    whole = WholeData(functions_of(model, settings.init_strategy), rows, constants)
    with jax.enable_x64(plan.double):
        plan = replace(plan, tuning=jax.tree.map(from_numpy, plan.tuning))
        return streamed_data(plan, model, rows, part.rows, checked.constants(plan.double), whole)


def describe_streamed(
    view: MinibatchModel, args: tuple, kwargs: dict, contents: Contents, part: tuple
) -> ModelDescription:
    """Describe a model and its streamed data, of which ``part`` are some rows."""
    data, constants = view.layout.split(args, kwargs)
    prints = identity({str(number): x for number, x in enumerate(part)})
    return describe(view, data, constants, contents)._replace(part=prints)


def streamed_data(
    plan: RunPlan, view: MinibatchModel, rows: Rows, part: tuple, constants: Any, whole: WholeData
) -> RunData:
    """Return the arguments of the loop, with any chunk of the file for their feed."""
    grid, dynamics = plan.streaming.grid, plan.dynamics
    # What the program knows is a chunk: its calls of the kernel lie within it.
    within = replace(
        dynamics, num_batches=grid.batches, steps_per_draw=grid.call, steps_per_warmup=grid.call
    )
    return RunData(
        feed=first_chunk(rows, grid),
        constants=constants,
        originals=None,
        tuning=plan.tuning,
        model=view,
        dynamics=within,
        rows=part,
        stream=Stream(rows, grid, plan.streaming.shuffled),
        whole=whole,
        sample=_sample(part),
    )


def _sample(part: tuple) -> FixedPartition:
    """Return the first rows of the random part, in batches."""
    some = min(SAMPLE_ROWS, len(part[0]))
    return cut(tuple(x[:some] for x in part), -(-some // SAMPLE_BATCH))
