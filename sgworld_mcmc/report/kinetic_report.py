"""The report of kinetic dynamics without a mode: temperatures by site, errors of quantities."""

import io
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.report.check import Check
from sgworld_mcmc.report.quantity_mixing import QuantityMixing

__all__ = ["KineticReport", "Temperatures", "expected", "measured"]

# Number of quantities and sites shown in the tables; the arrays hold all.
SHOWN = 12
# Single parameters cannot be read from the draws above this R-hat, or below this sample size.
MIXED, ENOUGH = 1.1, 100
# A temperature says nothing of the draws if its standard error is larger.
UNKNOWN = 0.1


class Temperatures(NamedTuple):
    """Temperatures of S sites, in units of the temperature that is sampled.

    Attributes
    ----------
    kinetic, kinetic_se
        (S,) mean squared velocity, and its standard error.
    configurational, configurational_se
        (S,) mean of (x - c) . grad U / D, and its standard error. Both temperatures are one for the
        posterior, whatever it is; minibatch noise and large steps make them larger. NaN where rows
        are streamed: it needs rows that a chain has not just seen.
    total, total_se
        The configurational temperature of all parameters together, and its standard error.
    """

    kinetic: np.ndarray
    kinetic_se: np.ndarray
    configurational: np.ndarray
    configurational_se: np.ndarray
    total: float
    total_se: float


class KineticReport(NamedTuple):
    """How biased the draws of kinetic dynamics are; ``print`` shows it as tables.

    With thousands of parameters the report speaks of the sampler's temperature and of functions of
    the draws, the quantities (docs/theory.md, section 5).

    Attributes
    ----------
    sites
        The names of the S latent sites.
    temperatures
        Measured :class:`Temperatures` of the sites.
    predicted_temperature_error
        Predicted mean relative error of the variances of all directions.
    names
        The names of the Q quantities.
    r_hat, ess
        (Q,) R-hat and effective sample size of the quantities.
    expected_error
        (Q,) expected error of the mean of each quantity, in its posterior standard deviations, from
        the temperature's error and the correlation with the potential; NaN where rows are streamed.
    parameters
        Convergence of the single parameters, a
        :class:`~sgworld_mcmc.report.quantity_mixing.QuantityMixing`; None of more than 5000, of
        fewer than 20 draws, and with ``keep=``.
    predictive_error
        Mean absolute error that is expected of the predictive probabilities of rows (relative, if
        they are densities); NaN if the log likelihoods of rows are not among the quantities.
    control
        Check by a second run at half the step size; None if it was not asked for.
    order, batch_size, num_batches, step_size, friction, steps_per_draw, tolerance
        The settings used.
    notes
        What the user should know, in plain words; the same sentences are issued as warnings.
    """

    sites: tuple[str, ...]
    temperatures: Temperatures
    predicted_temperature_error: float
    names: tuple[str, ...]
    r_hat: np.ndarray
    ess: np.ndarray
    expected_error: np.ndarray
    parameters: QuantityMixing | None
    predictive_error: float
    control: Check | None
    order: str
    batch_size: int
    num_batches: int
    step_size: float
    friction: float
    steps_per_draw: int
    tolerance: float
    notes: tuple[str, ...]

    @property
    def time_per_epoch(self) -> float:
        """Time h M that an epoch spans, in the units of the sampler's coordinates."""
        return self.step_size * self.num_batches

    def __str__(self) -> str:
        # rich is imported when it is used.
        from rich.box import SIMPLE_HEAD
        from rich.console import Console
        from rich.table import Table

        buffer = io.StringIO()
        console = Console(file=buffer, width=110, force_jupyter=False)
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        table.add_column("site")
        table.add_column("kinetic temperature", justify="right")
        table.add_column("configurational temperature", justify="right")
        t = self.temperatures
        rows = list(zip(self.sites, *t[:4], strict=True))
        for name, kinetic, kinetic_se, position, position_se in rows[:SHOWN]:
            table.add_row(name, measured(kinetic, kinetic_se), measured(position, position_se))
        console.print(table)
        if len(rows) > SHOWN:
            console.print(f"({len(rows) - SHOWN} more sites)")
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for name in ("quantity", "R-hat", "effective draws", "expected error (sd)"):
            table.add_column(name, justify="left" if name == "quantity" else "right")
        worst = np.argsort(-np.nan_to_num(self.r_hat, nan=np.inf), kind="stable")[:SHOWN]
        for i in worst:
            table.add_row(
                self.names[i],
                f"{self.r_hat[i]:.3f}",
                f"{self.ess[i]:.0f}",
                expected(self.expected_error[i]),
            )
        console.print(table)
        if len(self.names) > SHOWN:
            more = len(self.names) - SHOWN
            console.print(f"({more} more quantities with smaller R-hat)")
        return "\n".join([self._headline(), buffer.getvalue().rstrip(), *self.footnotes()])

    def _headline(self) -> str:
        return (
            f"kinetic dynamics, {self.order}, friction {self.friction:.3g}: {self.num_batches} "
            f"batches of {self.batch_size}, step size {self.step_size:.3g}, time per epoch "
            f"{self.time_per_epoch:.3g}, {self.steps_per_draw} steps per draw; tolerance "
            f"{self.tolerance:g}"
        )

    def footnotes(self) -> list[str]:
        """Return what is to be said beside the table; what calls for action begins with "! "."""
        t = self.temperatures
        known = np.isfinite(t.total)
        found = f"measured {measured(t.total, t.total_se)}"
        lines = [
            f"Temperature of all parameters: predicted {1 + self.predicted_temperature_error:.3f}, "
            f"{found if known else 'not measured on streamed rows'} (1 is right)."
        ]
        if np.isfinite(self.predictive_error):
            lines.append(
                f"Expected error of the rows' predictive probabilities: "
                f"{self.predictive_error:.2g} on average, from step size and batches; what chains "
                "that have not mixed miss is not in it."
            )
        if self.control is not None:
            change = self.control.mean_shift
            root = np.sqrt((change**2).mean())
            z = np.abs(change) / np.maximum(self.control.mean_shift_se, 1e-12)
            lines.append(
                f"Half-step control run: the quantities' means change by at most "
                f"{np.abs(change).max():.2f} sd (root mean square {root:.3f} sd, standard "
                f"error {np.median(self.control.mean_shift_se):.3f}), at most "
                f"{z.max():.1f} standard errors."
            )
        unmixed = False
        if self.parameters is not None:
            r_hat, ess = self.parameters.r_hat, self.parameters.ess
            unread = int(np.sum((r_hat > MIXED) | (ess < ENOUGH)))
            unmixed = unread > 0
            lines.append(f"Single parameters ({len(ess)} numbers): {self.parameters.extremes()}.")
            if unmixed:
                lines.append(
                    f"Of {unread} of them these draws give no means or intervals yet (R-hat above "
                    f"{MIXED:g}, or fewer than {ENOUGH} effective draws). The weights of a network "
                    "need not mix; where you want such parameters themselves, raise `num_samples` "
                    "or `steps_per_draw`, or name them in `quantities=`, so that warnings speak of "
                    "them."
                )
        lines += [f"! {note}" for note in self.notes]
        if not self.notes and t.total_se > UNKNOWN:
            lines.append(
                "The chains agree on the quantities. Their temperature, and with it the widths, is "
                f"known to ± {t.total_se:.2g} only: raise `num_samples` to check it."
            )
        elif not self.notes:
            right = "the temperature is right within the tolerance or its standard error"
            if not known:
                right = "the velocities have the right temperature"
            lines.append(
                f"Nothing to do{' for the quantities' if unmixed else ''}: the chains agree on "
                f"the quantities, and {right}."
            )
        return lines


def measured(value: float, error: float) -> str:
    """Return a number with its standard error, or a dash where nothing was measured."""
    return f"{value:.3f} ± {error:.3f}" if np.isfinite(value) else "–"


def expected(error: float) -> str:
    """Return an expected error, or a dash where none is known."""
    return f"{error:+.3f}" if np.isfinite(error) else "–"
