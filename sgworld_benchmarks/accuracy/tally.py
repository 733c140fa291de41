"""Repeat the accuracy benchmark with several seeds, and count misses and false warnings."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from sgworld_benchmarks.accuracy.run import Outcome
from sgworld_benchmarks.accuracy.score import MEAN_TOLERANCE, SD_HIGH, SD_LOW

__all__ = ["HEADER", "Tally", "line", "summary", "tally"]

HEADER = (
    f"{'model':21}{'runs':>6}{'missed':>8}{'clearly':>9}{'unwarned':>10}"
    f"{'warned, within':>16}{'raised':>8}  warnings (runs)"
)
# A miss is clear if it is out of tolerance by more than this many Monte Carlo standard errors.
SIGMAS = 2.0
# Number of characters that are printed of a warning.
SHOWN = 60


class Tally(NamedTuple):
    """What became of one model over several seeds.

    Attributes
    ----------
    name
        The problem.
    runs, raised
        Number of runs, and of those that raised an error.
    missed
        Number of runs with a mean or standard deviation out of tolerance.
    clear
        Number of those out of it by more than Monte Carlo error.
    unwarned
        Number of misses without a warning.
    needless
        Number of runs within the tolerances that gave a warning.
    warnings
        Maps the beginning of each warning to the number of runs that gave it.
    """

    name: str
    runs: int
    raised: int
    missed: int
    clear: int
    unwarned: int
    needless: int
    warnings: dict[str, int]


def tally(name: str, outcomes: list[Outcome]) -> Tally:
    """Count the outcomes of one model."""
    warnings: dict[str, int] = {}
    for outcome in outcomes:
        for text in {_beginning(warning) for warning in outcome.warnings}:
            warnings[text] = warnings.get(text, 0) + 1
    return Tally(
        name,
        len(outcomes),
        sum(o.error is not None for o in outcomes),
        sum(o.score is not None and not o.within for o in outcomes),
        sum(_is_clear(o) for o in outcomes),
        sum(o.silent_miss for o in outcomes),
        sum(o.within and bool(o.warnings) for o in outcomes),
        warnings,
    )


def line(found: Tally) -> str:
    """Return one line of the table."""
    warnings = sorted(found.warnings.items(), key=lambda item: -item[1])
    listing = "; ".join(f"{text} ({number})" for text, number in warnings)
    return (
        f"{found.name:21}{found.runs:6d}{found.missed:8d}{found.clear:9d}{found.unwarned:10d}"
        f"{found.needless:16d}{found.raised:8d}  {listing}"
    ).rstrip()


def summary(found: list[Tally]) -> str:
    """Add the models up."""
    runs, missed, clear, unwarned, needless, raised = (
        sum(getattr(one, field) for one in found)
        for field in ("runs", "missed", "clear", "unwarned", "needless", "raised")
    )
    return (
        f"{runs} runs: {missed} missed, {clear} of them by more than Monte Carlo error and "
        f"{unwarned} without a warning; {needless} within were warned; {raised} raised an error\n"
        f"in percent of the runs: missed {_rate(missed, runs)}, missed without a warning "
        f"{_rate(unwarned, runs)}, warned without need {_rate(needless, runs)}"
    )


def _rate(count: int, runs: int) -> str:
    """Return a part of the runs in percent, with its exact interval of 95 % (Clopper-Pearson)."""
    found = binomtest(count, runs).proportion_ci()
    return f"{100 * count / runs:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"


def _is_clear(outcome: Outcome) -> bool:
    """Return whether some error is larger than Monte Carlo error explains."""
    found = outcome.score
    if found is None or outcome.within:
        return False
    mean = np.abs(found.mean_error) - SIGMAS * found.mean_error_se > MEAN_TOLERANCE
    wide = found.sd_ratio - SIGMAS * found.sd_ratio_se > SD_HIGH
    narrow = found.sd_ratio + SIGMAS * found.sd_ratio_se < SD_LOW
    finite = np.isfinite([found.mean_error, found.sd_ratio]).all()
    return bool((mean | wide | narrow).any() or not finite)


def _beginning(warning: str) -> str:
    text = warning.split(": ", 1)[-1]
    return text if len(text) <= SHOWN else text[:SHOWN].rsplit(" ", 1)[0] + " ..."
