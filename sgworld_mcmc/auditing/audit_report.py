"""What an audit has found, as a table."""

from typing import Any, NamedTuple

import numpy as np

__all__ = ["AuditReport"]

# The verdict allows this probability of blaming draws that are right.
LEVEL = 0.01
# A table shows at most this many parameters, the worst of them.
ROWS = 20


class AuditReport(NamedTuple):
    """The errors of draws, as gradients of the log density at the draws show them.

    ``print`` shows a table and a verdict. An error that is larger than three of its standard errors
    carries a star.

    Attributes
    ----------
    names : tuple of str
        The D unconstrained coordinates, such as ``beta[0]``; a positive parameter is its logarithm.
        All arrays are (D,), in this order.
    mean_shift, mean_shift_se : numpy.ndarray
        Mean of the draws minus that of the posterior, in posterior standard deviations, and its
        standard error, which contains the Monte Carlo error of the draws.
    width_ratio, width_ratio_se : numpy.ndarray
        Standard deviation of the draws over that of the posterior, and its standard error.
    p_values : dict
        p-values of the hypothesis that the draws are the posterior's: ``"means"`` and ``"widths"``
        of all parameters (corrected for their number), ``"joint mean"``, ``"joint width"`` and
        ``"kernel"`` of all together.
    p_value : float
        p-value of all tests together.
    virial : float
        Mean of -(x - E x) . grad log p / D, one at draws of the posterior.
    kernel_stein_discrepancy : float
        The kernel Stein discrepancy of the draws, in coordinates where their covariance is one.
    ess : numpy.ndarray
        Effective sample sizes of the draws that were looked at.
    num_chains, num_draws : int
        Numbers of chains, and of draws looked at in each.
    r_hat : float
        The largest R-hat of all draws; NaN for a single chain.
    agree : bool
        Whether it is no larger than that of chains which agree may be.
    notes : tuple of str
        What the audit could not see, or should not be trusted about.
    """

    names: tuple[str, ...]
    mean_shift: np.ndarray
    mean_shift_se: np.ndarray
    width_ratio: np.ndarray
    width_ratio_se: np.ndarray
    p_values: dict[str, float]
    p_value: float
    virial: float
    kernel_stein_discrepancy: float
    ess: np.ndarray
    num_chains: int
    num_draws: int
    r_hat: float
    agree: bool
    notes: tuple[str, ...]

    @property
    def passed(self) -> bool:
        """Whether no error was found, at a level of 1 %, and the chains agree."""
        return self.p_value >= LEVEL and self.agree

    def verdict(self) -> str:
        """Return what the audit says, in a sentence or two."""
        far = np.abs(self.mean_shift) / np.maximum(self.mean_shift_se, 1e-300)
        wide = np.abs(np.log(self.width_ratio)) / np.maximum(self.width_ratio_se, 1e-300)
        if self.p_value >= LEVEL and not self.agree:
            return (
                f"The chains do not agree (R-hat {self.r_hat:.2f}): each of them has seen a part "
                "of the posterior at most. The gradients show no error where the draws are "
                f"(p = {self.p_value:.2g}): draws that depend on each other are worth few "
                "independent ones."
            )
        if self.passed:
            return (
                f"No error was found (p = {self.p_value:.2g}). Errors that would have been: of a "
                f"mean, {3 * np.median(self.mean_shift_se):.2g} posterior standard deviations; of "
                f"a width, {100 * 3 * np.median(self.width_ratio_se):.2g} %."
            )
        found = []
        if far.max() > 3:
            j = int(np.argmax(far))
            found.append(f"the mean of {self.names[j]} is off by {self.mean_shift[j]:.2g} sd")
        if wide.max() > 3:
            j = int(np.argmax(wide))
            percent = 100 * (self.width_ratio[j] - 1)
            found.append(
                f"{self.names[j]} is {abs(percent):.2g} % too {'wide' if percent > 0 else 'narrow'}"
            )
        what = ", and ".join(found) or "of their shape, in no single mean or width"
        return f"The draws are not the posterior's (p = {self.p_value:.2g}): {what}."

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as lists, numbers and strings, ready for JSON."""
        plain = {
            field: value.tolist() if isinstance(value, np.ndarray) else value
            for field, value in self._asdict().items()
        }
        return {**plain, "names": list(self.names), "notes": list(self.notes)}

    def __str__(self):
        return _render(self)

    __repr__ = __str__


def _render(report: AuditReport) -> str:
    width_log = np.log(report.width_ratio)
    worst = np.maximum(
        np.abs(report.mean_shift) / np.maximum(report.mean_shift_se, 1e-300),
        np.abs(width_log) / np.maximum(report.width_ratio_se, 1e-300),
    )
    shown = np.sort(np.argsort(-worst)[:ROWS])
    length = max(9, *(len(report.names[j]) for j in shown))
    lines = [
        f"Audit of {report.num_chains} x {report.num_draws} draws, D = {len(report.names)}",
        f"{'parameter':{length}}  mean error (sd)      width ratio          ESS",
    ]
    for j in shown:
        star = lambda value, se: "*" if abs(value) > 3 * se else " "  # noqa: E731
        shift, shift_se = report.mean_shift[j], report.mean_shift_se[j]
        ratio, ratio_se = report.width_ratio[j], report.width_ratio_se[j]
        lines.append(
            f"{report.names[j]:{length}}  {shift:+8.3f} +- {shift_se:.3f}{star(shift, shift_se)}"
            f"   {ratio:8.3f} +- {ratio_se:.3f}{star(width_log[j], ratio_se)}"
            f"   {report.ess[j]:6.0f}"
        )
    if len(shown) < len(report.names):
        lines.append(f"({len(report.names) - len(shown)} more, with smaller errors)")
    tests = ", ".join(f"{name} {value:.2g}" for name, value in report.p_values.items())
    lines += [f"p-values: {tests}", report.verdict()]
    return "\n".join([*lines, *(f"Note: {note}" for note in report.notes)])
