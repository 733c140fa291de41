"""The criterion of the speed benchmark, and a line of its table."""

from typing import Any, NamedTuple

import numpy as np

from sgworld_benchmarks.accuracy.score import Score

__all__ = ["Criterion", "Timing", "table"]


class Criterion(NamedTuple):
    """The limits: every mean within ``mean`` reference sd, every sd within the fraction ``sd``."""

    mean: float
    sd: float

    def met(self, found: Score) -> bool:
        """Return whether all scalars are within the limits."""
        return found.within(self.mean, 1 - self.sd, 1 + self.sd)


class Timing(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    label
        Name of the contender.
    seconds
        Seconds from nothing to draws that meet the criterion, or to the end if they never did.
    met
        Whether the draws met the criterion.
    score
        Errors of the draws.
    rate
        Effective draws per second after set-up; None if that makes no sense.
    note
        A remark, above all on extrapolations.
    details
        Numbers for the JSON file.
    """

    label: str
    seconds: float
    met: bool
    score: Score
    rate: float | None
    note: str
    details: dict[str, Any]


def table(timings: list[Timing]) -> str:
    """Return the contenders as text, with factors against SGWORLD if NUTS is among them."""
    width = max(len(timing.label) for timing in timings)
    lines = [
        f"{'':{width}}  {'seconds':>8}  met  {'mean error, sd':>14}  {'sd ratio':>12}  {'ESS':>7}"
        f"  {'ESS/s':>8}  note"
    ]
    for label, seconds, met, found, rate, note, _ in timings:
        mean = np.abs(found.mean_error).max()
        ratios = f"{found.sd_ratio.min():.3f}-{found.sd_ratio.max():.3f}"
        speed = "-" if rate is None else f"{rate:.4g}"
        lines.append(
            f"{label:{width}}  {seconds:8.1f}  {'yes' if met else 'NO':3}  {mean:14.3f}  "
            f"{ratios:>12}  {found.ess.min():7.0f}  {speed:>8}  {note}"
        )
    ours = next(t for t in timings if t.label.startswith("SGWORLD"))
    for other in timings:
        if other.label.startswith("NUTS"):
            lines.append(
                f"against {other.label}: {other.seconds / ours.seconds:.3g} times less seconds, "
                f"{ours.rate / other.rate:.4g} times the effective draws per second after set-up"
                + ("" if ours.met else "; but SGWORLD does NOT meet the criterion")
                + ("" if other.met else f"; {other.label} did not meet it: a lower bound")
            )
    return "\n".join(lines)
