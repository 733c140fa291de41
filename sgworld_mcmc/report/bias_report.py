"""The bias report: the errors of a run's draws, predicted from the theory and measured."""

import io
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.members import NOISES
from sgworld_mcmc.report.check import Check, limits
from sgworld_mcmc.report.quantity_mixing import QuantityMixing

__all__ = ["BiasReport"]

# Number of parameters shown in the table; the arrays hold all.
SHOWN = 20
# A measured error or shift beyond this says nothing but that draws lie far outside the posterior.
ABSURD = 1000.0
# A prediction and a measurement disagree if they differ by more than chance and by more than this
# relative error of the variance.
MATTERS = 0.05


class BiasReport(NamedTuple):
    """How biased the draws of a run are, and why; ``print`` shows it as a table.

    Parameters are the *unconstrained* coordinates that the chain moves in. Predictions are those
    of docs/theory.md, section 2, with noise measured at draws of pilot chains.

    Attributes
    ----------
    names
        The D scalar parameters.
    predicted_variance_error
        (D,) relative error of the posterior variance.
    predicted_mean_shift
        (D,) shift of the posterior mean, in posterior standard deviations.
    parts
        Maps the name of a cause to its (D,) part of ``predicted_variance_error``.
    stein
        Check by the identities E[(y - E y) dU/dy] = 1 and E[dU/dy] = 0, with the gradient of all
        rows at draws of the run. For a Gaussian posterior the deviations are exactly the errors.
    control
        Check by a second run at half the step size: the change from half the step size to the
        whole, which is compared with the predicted change. None if it was not asked for.
    predicted_change
        (D,) predicted change of the relative variance error from half the step size to the whole.
    detailed_balance
        :class:`~sgworld_mcmc.nonequilibrium.DetailedBalanceViolation`, from moments recorded at
        every step if the run was made with ``record_moments=True``, else from the draws. None
        if neither can be tested.
    detailed_balance_source
        What the test rests on, or why there is none.
    gradient, order, noise, batch_size, num_batches, step_size, steps_per_draw
        The settings used; ``step_size`` is in preconditioned coordinates.
    time_per_epoch
        T = h M, in relaxation times of the preconditioned posterior.
    examples_per_effective_draw
        Measured number of rows read for each effective draw of the parameter that mixes worst.
    tolerance
        The relative error of the posterior variance that was asked for.
    covariance
        (D, D) or (D,) covariance K K^T of the preconditioner, an estimate of the posterior's.
    center
        (D,) origin of the coordinates.
    double
        Whether the run was in double precision.
    notes
        What the user should know, in plain words; the same sentences are issued as warnings.
    quantities
        R-hat and effective draws of the user's ``quantities``; None without them.
    reading
        How rows are streamed, in words; empty if they are in memory.
    fixed
        Whether the user had given anything on which the predicted errors depend.
    """

    names: tuple[str, ...]
    predicted_variance_error: np.ndarray
    predicted_mean_shift: np.ndarray
    parts: dict[str, np.ndarray]
    stein: Check | None
    control: Check | None
    predicted_change: np.ndarray
    detailed_balance: object | None
    detailed_balance_source: str
    gradient: str
    order: str
    noise: str
    batch_size: int
    num_batches: int
    step_size: float
    steps_per_draw: int
    time_per_epoch: float
    examples_per_effective_draw: float
    tolerance: float
    covariance: np.ndarray
    center: np.ndarray
    double: bool
    notes: tuple[str, ...]
    quantities: QuantityMixing | None = None
    reading: str = ""
    fixed: bool = False

    def dominant(self) -> list[str]:
        """Return for each parameter the cause of the largest part of the predicted error."""
        causes = list(self.parts)
        if not causes:
            return ["unknown"] * len(self.names)
        sizes = np.abs([self.parts[cause] for cause in causes])
        return [
            causes[i] if size > 1e-6 else "none"
            for i, size in zip(sizes.argmax(0), sizes.max(0), strict=True)
        ]

    def disagreement(self) -> str | None:
        """Return a sentence if prediction and measurement disagree beyond noise, else None."""
        problems = []
        of_variance, of_mean = limits(self.names)
        for check, predicted in (
            (self.stein, self.predicted_variance_error),
            (self.control, self.predicted_change),
        ):
            if check is None:
                continue
            excess = np.abs(check.variance_error - predicted)
            bad = (excess > of_variance * check.variance_error_se) & (excess > MATTERS)
            shift = np.abs(check.mean_shift)
            far = (shift > of_mean * check.mean_shift_se) & (shift > 2 * MATTERS)
            if check is self.stein and (bad | far).any():
                worst = int(np.argmax(np.where(bad | far, excess + shift, -1.0)))
                problems.append(
                    f"the {check.name} gives a variance error of "
                    f"{check.variance_error[worst]:+.1%} and a mean shift of "
                    f"{check.mean_shift[worst]:+.2f} sd for {self.names[worst]}, predicted "
                    f"{predicted[worst]:+.1%}"
                )
            elif bad.any():
                worst = int(np.argmax(np.where(bad, excess, -1.0)))
                problems.append(
                    f"the {check.name} changes the variance of {self.names[worst]} by "
                    f"{check.variance_error[worst]:+.1%}, predicted {predicted[worst]:+.1%}"
                )
        if not problems:
            return None
        return (
            "Prediction and measurement disagree: " + "; ".join(problems) + ". Do not trust these "
            f"draws to the tolerance: halve `step_size` (it was {self.step_size:.3g}), raise "
            f"`batch_size` (it was {self.batch_size}: a few rows may matter that are seldom read), "
            "or compare with NUTS."
        )

    def excess(self) -> str | None:
        """Return a sentence if the predicted errors exceed the tolerance, else None."""
        worst = float(np.max(np.abs(self.predicted_variance_error)))
        shifts = np.abs(self.predicted_mean_shift)
        allowed = max(2.2 * self.tolerance, 2 * MATTERS)
        if self.stein is not None:
            # The prediction is of the noise's own push, which other parts may take back; a
            # measurement that excludes such a shift is worth more.
            at_most = np.abs(self.stein.mean_shift) + 2 * self.stein.mean_shift_se
            shifts = np.where(at_most < allowed, 0, shifts)
        shift = float(np.max(shifts))
        # The automatic step size uses the whole tolerance, so rounding must not count. That of a
        # mean is twice as large, in standard deviations.
        too_wide = worst > 1.1 * self.tolerance
        if not too_wide and not shift > allowed:
            return None
        cure = (
            "reduce `step_size`, or leave the settings to the package"
            if self.fixed
            else "the posterior is too far from a Gaussian for the step size that was chosen. "
            "Halve `tolerance`, reparametrise the model, or compare with NUTS"
        )
        if too_wide:
            return (
                f"The predicted error of the variance, {worst:.1%}, exceeds the tolerance "
                f"{self.tolerance:g}: {cure}."
            )
        name = self.names[int(np.argmax(shifts))]
        return (
            f"The predicted shift of the mean of {name}, {shift:.2f} sd, exceeds what the "
            f"tolerance {self.tolerance:g} allows, {2 * self.tolerance:g} sd: {cure}."
        )

    def __str__(self) -> str:
        # rich is imported when it is used.
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("parameter")
        for name in ("variance error", "mean shift (sd)", "mostly from"):
            table.add_column(name, justify="right")
        if self.stein is not None:
            table.add_column("measured variance error", justify="right")
            table.add_column("measured mean shift", justify="right")
        order = np.argsort(-np.abs(self.predicted_variance_error), kind="stable")
        causes = self.dominant()
        for i in order[:SHOWN]:
            row = [
                self.names[i],
                f"{self.predicted_variance_error[i]:+.2%}",
                f"{self.predicted_mean_shift[i]:+.3f}",
                causes[i],
            ]
            if self.stein is not None:
                stein = self.stein
                if max(abs(stein.variance_error[i]), abs(stein.mean_shift[i])) > ABSURD:
                    row += ["no measure: draws far away", ""]
                else:
                    row += [
                        f"{stein.variance_error[i]:+.1%} ± {stein.variance_error_se[i]:.1%}",
                        f"{stein.mean_shift[i]:+.3f} ± {stein.mean_shift_se[i]:.3f}",
                    ]
            table.add_row(*row)
        buffer = io.StringIO()
        Console(file=buffer, width=120, force_jupyter=False).print(table)
        return "\n".join([self._headline(), buffer.getvalue().rstrip(), *self.footnotes()])

    def _headline(self) -> str:
        precision = ", double precision" if self.double else ""
        dynamics = f"{self.noise} noise" if self.noise in NOISES else f"integrator {self.noise}"
        return (
            f"{self.order}, {self.gradient} gradients, {dynamics}{precision}: "
            f"{self._batches()}, step size {self.step_size:.3g}, "
            f"time per epoch {self.time_per_epoch:.3g}, {self.steps_per_draw} steps per draw, "
            f"{self.examples_per_effective_draw:.3g} examples per effective draw; tolerance "
            f"{self.tolerance:g}"
        )

    def _batches(self) -> str:
        if self.batch_size == 1 and self.num_batches == 1:
            return "all rows in one batch"
        return f"{self.num_batches} batches of {self.batch_size}"

    def footnotes(self) -> list[str]:
        """Return what is to be said beside the table; what calls for action begins with "! "."""
        lines = [self.reading] if self.reading else []
        lines += [] if self.quantities is None else [str(self.quantities)]
        if len(self.names) > SHOWN:
            lines.append(f"({len(self.names) - SHOWN} more parameters with smaller predictions)")
        if self.stein is not None:
            lines.append(f"Measured: {self.stein.name}, {self.stein.draws} draws.")
        if self.control is not None:
            z = (self.control.variance_error - self.predicted_change) / np.maximum(
                self.control.variance_error_se, 1e-12
            )
            lines.append(
                "Half-step control run: variances change by "
                f"{self.control.variance_error.min():+.1%} to "
                f"{self.control.variance_error.max():+.1%} (standard error "
                f"{np.median(self.control.variance_error_se):.1%}), at most {np.abs(z).max():.1f} "
                "standard errors from the prediction."
            )
        if self.detailed_balance is None:
            lines.append(f"Detailed balance: not tested, {self.detailed_balance_source}")
        else:
            lines.append(
                "Detailed balance (the run against its time reversal): p = "
                f"{float(self.detailed_balance.p_value):.3g} "
                f"({self.detailed_balance_source})."
            )
        lines += [f"! {note}" for note in self.notes]
        trouble = self.disagreement()
        if trouble:
            lines.append(f"! {trouble}")
        excess = self.excess()
        if excess:
            lines.append(f"! {excess}")
        elif not self.notes and not trouble:
            lines.append("Nothing to do: the predicted errors are within the tolerance.")
        return lines
