"""What is known of a run beside its draws: name, warnings, settings, costs and versions."""

import platform
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.model.errors import whole_data_note
from sgworld_mcmc.report.divergence import divergence_note
from sgworld_mcmc.report_page.elements import number, pairs, paragraph, table

__all__ = ["costs", "model_name", "run_warnings", "settings", "versions"]

# The stages in which the chains read rows, where these are streamed.
_CHAINS = ("compiling", "warm-up", "draws")
_PACKAGES = ("sgworld-mcmc", "jax", "jaxlib", "numpyro", "numpy", "arviz")


def model_name(model: Any) -> str:
    """Return a name of a model: that of the function, also inside of ``functools.partial``.

    Examples
    --------
    >>> def regression(X, y, scale): ...
    >>> model_name(partial(regression, scale=2.0))
    'regression'
    """
    while isinstance(model, partial):
        model = model.func
    return getattr(model, "__name__", None) or type(model).__name__


def run_warnings(mcmc: Any) -> list[str]:
    """Return the warnings of a run that are not those of its bias report."""
    found = [divergence_note(mcmc.last_state)]
    plan = mcmc._drawn_with or mcmc.plan
    if plan is not None and plan.description.reason is not None:
        found.append(whole_data_note(plan.description.size, plan.description.reason))
    if mcmc._asked is not None:
        draws, chains = mcmc._asked
        found.append(
            f"The run was interrupted: {mcmc.num_samples} of {draws} samples of {mcmc.num_chains} "
            f"of {chains} chains are kept."
        )
    return [note for note in found if note]


def settings(mcmc: Any, time_per_epoch: float | None) -> str:
    """Return the settings of a run, chosen or given, as HTML."""
    chains, draws = np.shape(mcmc.draws().positions)[:2]
    rows = [
        ("Sampler", type(mcmc).__name__),
        ("Chains", f"{chains} ({mcmc.chain_method})"),
        ("Draws in a chain", f"{mcmc.num_samples // mcmc.thinning}"),
        ("Warm-up", f"{mcmc.num_warmup} calls"),
        ("Thinning", f"{mcmc.thinning}"),
    ]
    if mcmc.num_samples // mcmc.thinning > draws:
        rows.append(("Draws looked at in a chain", f"{draws} (the draws are on disk)"))
    plan = mcmc._drawn_with or mcmc.plan
    if plan is None:
        return pairs(rows)
    dynamics = plan.dynamics
    scheduled = "from a schedule, at the end " if dynamics.step_schedule is not None else ""
    rows += [
        ("Rows of data", f"{plan.description.size}"),
        ("Gradient", dynamics.gradient.name),
        ("Batch size", f"{plan.batch_size}"),
        ("Batches", f"{plan.num_batches}"),
        ("Order of the batches", dynamics.order.name),
        ("Noise or integrator", dynamics.integrator.name),
        ("Step size", scheduled + number(mcmc.draws().step_size)),
        ("Steps per draw", f"{dynamics.steps_per_draw}"),
        ("Precision", "double" if plan.double else "single"),
        ("Tolerance of the variance", f"{plan.tolerance:g}"),
    ]
    if time_per_epoch is not None:
        rows.insert(-3, ("Time per epoch", number(time_per_epoch)))
    if plan.kinetic is not None:
        rows.append(("Friction", number(dynamics.integrator.friction)))
    if dynamics.temperature_schedule is not None or dynamics.temperature not in (None, 1.0):
        until = "from a schedule, at the end " if dynamics.temperature_schedule else ""
        rows.append(("Temperature", until + number(dynamics.temperature)))
    if plan.streaming is not None:
        rows.append(("Reading", plan.streaming.described(plan.description.size)))
    return "\n".join(
        [pairs(rows), paragraph("Step size and times are in the sampler's coordinates.", "dim")]
    )


def costs(mcmc: Any) -> str:
    """Return the seconds of a run by stage, and its passes over the data, as HTML."""
    plan, reporter = mcmc._drawn_with or mcmc.plan, mcmc._reporter
    parts, size = [], None if plan is None else plan.description.size
    stages = [] if reporter is None else [stage for stage in reporter.stages() if stage.name]
    if stages:
        rows = [[stage.name, f"{stage.seconds:.2f}"] for stage in stages]
        rows.append(["all", f"{sum(stage.seconds for stage in stages):.2f}"])
        parts.append(table("Seconds by stage of the last run", ["stage", "seconds"], rows))
    else:
        parts.append(paragraph("The seconds of the stages are not kept with a run that is loaded."))
    if size:
        steps = np.atleast_1d(np.asarray(mcmc.last_state.step, float))
        each = steps.max() / plan.num_batches
        chains = np.shape(mcmc.draws().positions)[0]
        parts.append(
            paragraph(
                f"A chain made {steps.max():.0f} steps, warm-up included: {number(each)} passes "
                f"over the data. All chains ({chains}) made {number(each * chains)}."
            )
        )
        rows = {} if reporter is None else reporter.rows
        counted = sum(count for name, count in rows.items() if name not in _CHAINS) / size
        if counted:
            parts.append(
                paragraph(
                    "The set-up and the checks of the run together read as many rows as "
                    f"{number(counted)} passes, as far as they count them."
                )
            )
    return "\n".join(parts)


def versions() -> str:
    """Return the versions of packages and Python, and the device, as HTML."""
    rows = []
    for name in _PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:  # a copy of the sources that is not installed
            rows.append((name, "not known"))
    devices = jax.devices()
    kind = "" if devices[0].device_kind == devices[0].platform else f" ({devices[0].device_kind})"
    rows += [
        ("Python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"),
        ("Device", f"{len(devices)} × {devices[0].platform}{kind}"),
    ]
    return pairs(rows)
