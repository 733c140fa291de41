"""Make the bias report of draws from predictions and measurements.

All functions take a plan, the data laid out for it, and draws. They do not depend on the object
that has made the draws.
"""

from collections.abc import Callable

import jax
import numpy as np

from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.report.bias_report import BiasReport
from sgworld_mcmc.report.control_run import control_check
from sgworld_mcmc.report.detailed_balance import measured_detailed_balance
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.report.neck import neck_note
from sgworld_mcmc.report.notes import notes_of
from sgworld_mcmc.report.predictions import predicted_errors
from sgworld_mcmc.report.stein_check import stein_check
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.lay_out import posterior_of
from sgworld_mcmc.setup.measurements import measure
from sgworld_mcmc.setup.run_batches import with_structure
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.slabs import sample_sizes

__all__ = ["can_be_checked", "contradictions", "make_report"]


def can_be_checked(plan: RunPlan, draws: Draws) -> bool:
    """Return whether draws can be checked: errors were predicted, and there are enough draws."""
    positions = draws.positions
    whole = np.isfinite(positions).all() and positions.std((0, 1)).all()
    predicted = plan.measurements is not None
    return bool(predicted and draws.count >= 400 and whole and not draws.stopped.any())


def contradictions(
    plan: RunPlan, data: RunData, draws: Draws, strategy: Callable | None = None
) -> list[str]:
    """Return warnings if derivatives of the log density at the draws contradict the plan.

    So do errors that are predicted to be larger than the tolerance.
    """
    report = make_report(plan, data, draws, brief=True, strategy=strategy)
    found = report.disagreement() or report.excess()
    return [*([found] if found else []), *neck_note(plan, data, draws)]


def make_report(
    plan: RunPlan,
    data: RunData,
    draws: Draws,
    *,
    control: np.ndarray | None = None,
    brief: bool = False,
    strategy: Callable | None = None,
) -> BiasReport:
    """Make the report of draws.

    Parameters
    ----------
    plan, data
        The plan that the draws were made with, and the data laid out for it.
    draws
        The draws.
    control
        (chains, draws, D) positions of a run at half the step size, or None.
    brief
        Whether to make predictions and a smaller check only.
    strategy
        The initialisation strategy of the set-up, whose compiled functions are used again.
    """
    dynamics, positions = plan.dynamics, draws.positions
    with jax.enable_x64(plan.double):
        posterior = posterior_of(plan, data, strategy)
        found = plan.measurements
        if found is None:
            if plan.fit.unit and data.whole is None:
                posterior = with_structure(posterior, plan.partition)
            generator = generator_of(np.zeros(2, np.uint32))
            given = dynamics.integrator, False, plan.batch_size, dynamics.order.redeals
            _, found = measure(generator, posterior, *given)
        made = predicted_errors(plan, found, draws.step_size)
        half = predicted_errors(plan, found, draws.step_size / 2)
        with np.errstate(invalid="ignore"):  # infinite predictions of both have no difference
            change = made.variance_error - half.variance_error
        stein = stein_check(posterior, positions, brief=brief)
    along = plan.fit.coordinates.along
    balance, source = (None, "") if brief else measured_detailed_balance(draws)
    notes = () if brief else tuple(_notes(plan, data, draws))
    # The sample size of thousands of parameters takes longer than a brief check of their draws.
    ess = np.nan if brief else sample_sizes(along(positions))
    rows = draws.count * draws.spacing * dynamics.steps_per_draw * plan.batch_size
    return BiasReport(
        names=tuple(data.model.scalar_names()),
        predicted_variance_error=made.variance_error,
        predicted_mean_shift=made.mean_shift,
        parts=made.parts,
        stein=stein,
        control=None if control is None else control_check(along(positions), along(control)),
        predicted_change=change,
        detailed_balance=balance,
        detailed_balance_source=source,
        gradient=dynamics.gradient.name,
        order=dynamics.order.name,
        noise=dynamics.integrator.name,
        batch_size=plan.batch_size,
        num_batches=dynamics.num_batches,
        step_size=draws.step_size,
        steps_per_draw=dynamics.steps_per_draw,
        time_per_epoch=draws.step_size * dynamics.num_batches * plan.fit.extremes()[0],
        examples_per_effective_draw=float(rows / np.fmax(np.fmin.reduce(np.ravel(ess)), 1e-12)),
        tolerance=plan.tolerance,
        covariance=_covariance(plan),
        center=plan.fit.coordinates.center,
        double=plan.double,
        notes=notes,
        reading=_reading(plan, data),
        fixed=plan.fixed,
    )


def _notes(plan: RunPlan, data: RunData, draws: Draws) -> list[str]:
    """Return what a reader of the report should know about the run."""
    notes = notes_of(plan, draws)
    if not notes and can_be_checked(plan, draws):
        notes = neck_note(plan, data, draws)
    return [*notes, *heavy_tails(draws.samples, data.model.latents)]


def _reading(plan: RunPlan, data: RunData) -> str:
    """Return how rows are read, and where they lie, in words."""
    parts = [part for part in (plan.sharing, str(data.layout or "")) if part]
    lines = [f"Devices: {'; '.join(parts)}."] if parts else []
    if plan.streaming is not None:
        lines = [plan.streaming.described(plan.description.size)]
    taken = len(plan.take_all)
    if taken:
        rows = "a row that matters" if taken == 1 else f"{taken} rows that matter"
        lines.append(f"In every batch: {rows} more than others.")
    if plan.fit.kinked:
        lines.append(
            "The density is full of kinks (absolute values): coordinates come from a Gaussian "
            "that was fitted to it."
        )
    return " ".join(lines)


def _covariance(plan: RunPlan) -> np.ndarray:
    """Return the covariance (D, D), or the variances (D,) where it would fill the memory."""
    coordinates = plan.fit.coordinates
    if plan.fit.dimension <= DENSE_DIMENSION or plan.fit.hessian is not None:
        return coordinates.covariance()
    return coordinates.deviations() ** 2
