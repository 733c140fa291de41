"""Run SGWORLD with its default settings on one problem; note errors, seconds and warnings."""

import sys
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_benchmarks.accuracy.problem import Moments, Problem
from sgworld_benchmarks.accuracy.score import Score, score
from sgworld_mcmc import SGWORLD

__all__ = [
    "PREDICTIONS",
    "SETTINGS",
    "Outcome",
    "package_warnings",
    "predictions_of",
    "run_problem",
    "settings_of",
]

# The fields of the bias report that hold the settings that the package chose.
SETTINGS = (
    "gradient",
    "order",
    "batch_size",
    "num_batches",
    "steps_per_draw",
    "step_size",
    "time_per_epoch",
)
# The fields of the bias report that hold predictions, one number for each scalar.
PREDICTIONS = ("predicted_variance_error", "predicted_mean_shift")


class Outcome(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    name, size, dimension
        The problem, its number of rows N and of free coordinates D.
    score
        Errors by scalar; None if the run raised an error or there is nothing to compare with.
    seconds
        Seconds of the whole run: search for the mode, set-up, compilation and draws.
    report_seconds
        Seconds of ``bias_report()``.
    warnings
        Messages of the warnings that the package itself issued, in the run or in the report.
    error
        The error that the run raised, or None.
    settings
        The fields of `SETTINGS` that the bias report has.
    predictions
        The fields of `PREDICTIONS` that the bias report has, each a dict by scalar or a list.
    report
        The bias report as text, or None.
    """

    name: str
    size: int
    dimension: int
    score: Score | None
    seconds: float
    report_seconds: float
    warnings: tuple[str, ...]
    error: str | None
    settings: dict[str, Any]
    predictions: dict[str, Any]
    report: str | None

    @property
    def within(self) -> bool:
        """Whether every scalar is within the tolerances."""
        return self.score is not None and self.score.within()

    @property
    def silent_miss(self) -> bool:
        """Whether the run is out of tolerance without a warning, which must never happen."""
        return self.score is not None and not self.within and not self.warnings

    def to_dict(self) -> dict[str, Any]:
        """Return the outcome as JSON can hold it."""
        values = self._asdict() | {"within": self.within, "silent_miss": self.silent_miss}
        if self.score is not None:
            fields = self.score._asdict().items()
            values["score"] = {field: np.asarray(value).tolist() for field, value in fields}
        return values


def run_problem(
    name: str,
    problem: Problem,
    reference: Moments | None,
    dimension: int,
    rng_key: jax.Array,
    sampler: Callable = SGWORLD,
    show_errors: bool = True,
) -> Outcome:
    """Run a sampler with its default settings and compare it with the reference.

    Parameters
    ----------
    name, problem, dimension
        The problem and its number D of free coordinates.
    reference
        The moments to compare with; None if nothing can be compared.
    rng_key
        Random key of the run.
    sampler
        Function that makes a sampler of the model: :class:`sgworld_mcmc.SGWORLD`, or the same with
        settings.
    show_errors
        Whether to print the traceback of an error.
    """
    found, error, mcmc, samples, report = None, None, None, None, None
    with package_warnings() as messages:
        start = time.perf_counter()
        try:
            mcmc = sampler(problem.model)
            mcmc.run(rng_key, *problem.data, **problem.keywords)
            draws = mcmc.get_samples(group_by_chain=True)
            samples = {site: np.asarray(value) for site, value in draws.items()}
        except Exception as failure:  # a failure of one model is a result, not the end of all
            if show_errors:
                traceback.print_exc(file=sys.stderr)
            error = f"{type(failure).__name__}: {failure}"
        seconds = time.perf_counter() - start
        if samples is not None and hasattr(mcmc, "bias_report"):
            report = mcmc.bias_report()
        report_seconds = time.perf_counter() - start - seconds
    if samples is not None and reference is not None:
        found = score(samples, reference)
    return Outcome(
        name,
        problem.size,
        dimension,
        found,
        seconds,
        report_seconds,
        tuple(messages),
        error,
        settings_of(report),
        predictions_of(report),
        None if report is None else str(report),
    )


def settings_of(report: Any) -> dict[str, Any]:
    """Return the fields of `SETTINGS` that a bias report has, as Python numbers and strings."""
    found = {}
    for field in SETTINGS:
        value = getattr(report, field, None)
        if value is not None:
            # If the chains differ there is a number for each chain: the table shows their mean.
            found[field] = value if isinstance(value, str) else float(np.mean(np.asarray(value)))
    return found


def predictions_of(report: Any) -> dict[str, Any]:
    """Return the fields of `PREDICTIONS` that a bias report has: dicts of numbers, or lists."""
    found = {}
    for field in PREDICTIONS:
        value = getattr(report, field, None)
        if isinstance(value, Mapping):
            found[field] = {str(name): np.asarray(v, float).tolist() for name, v in value.items()}
        elif value is not None:
            found[field] = np.asarray(value, float).tolist()
    return found


@contextmanager
def package_warnings() -> Iterator[list[str]]:
    """Collect the messages of the warnings that this package issues; show all others as usual.

    The category does not say who warned, and ``stacklevel`` may point to the caller. So the frame
    that called ``warnings.warn`` decides: it has to belong to one of this package's modules.

    Examples
    --------
    >>> with package_warnings() as messages:
    ...     warnings.warn("of somebody else", DeprecationWarning)
    >>> messages
    []
    """
    messages = []
    with warnings.catch_warnings():
        warnings.simplefilter("always", append=True)
        others = warnings.showwarning

        def show(message, category, filename, lineno, file=None, line=None):
            frame = sys._getframe(1)
            while frame is not None and frame.f_globals.get("__name__") in _MACHINERY:
                frame = frame.f_back
            issuer = "" if frame is None else frame.f_globals.get("__name__", "")
            if issuer.split(".")[0] == _PACKAGE:
                text = f"{category.__name__}: {message}"
                if text not in messages:
                    messages.append(text)
            else:
                others(message, category, filename, lineno, file, line)

        warnings.showwarning = show
        yield messages


_PACKAGE = "sgworld_mcmc"
_MACHINERY = ("warnings", "_py_warnings")
