"""The table of the suite of models: one line and one verdict for each."""

from collections import Counter

import numpy as np

from sgworld_benchmarks.accuracy.run import Outcome
from sgworld_benchmarks.models.problems import MODELS

__all__ = ["HEADER", "line", "summary", "verdict"]

VERDICTS = ("ok", "ran", "warned", "MISS", "did not start")
HEADER = (
    f"{'model':24}{'title':36}{'N':>6}{'D':>5}  {'mean, sd':>8} {'sd ratio':>8} {'seconds':>8}  "
    f"{'gradients':12}{'verdict':9} warned or error"
)


def verdict(outcome: Outcome) -> str:
    """Return what became of a model.

    Returns
    -------
    str
        ``"ok"`` if it agrees with the reference, ``"warned"`` if it does not and the package
        warned, ``"MISS"`` if it does not and nobody was told, ``"ran"`` if there is no reference,
        ``"did not start"`` if the run raised an error.
    """
    if outcome.error is not None:
        return "did not start"
    if outcome.score is None:
        return "ran"
    if outcome.within:
        return "ok"
    return "MISS" if outcome.silent_miss else "warned"


def line(outcome: Outcome) -> str:
    """Return one line of the table."""
    title = _title(outcome.name)
    start = f"{outcome.name:24}{title:36}{outcome.size or '-':>6}{outcome.dimension:5d}"
    if outcome.error is not None:
        first = (outcome.error.splitlines() or [""])[0]
        return f"{start}  did not start: {first[:110]}"
    mean, spread = "-", "-"
    if outcome.score is not None:
        found = outcome.score
        mean = f"{abs(found.mean_error[found.worst_mean]):.3f}"
        spread = f"{found.sd_ratio[_worst(found.sd_ratio)]:.3f}"
    words = outcome.warnings[0][:60] if outcome.warnings else ""
    return (
        f"{start}  {mean:>8} {spread:>8} {outcome.seconds:8.1f}  {_gradients(outcome):12}"
        f"{verdict(outcome):9} {words}"
    ).rstrip()


def summary(outcomes: list[Outcome]) -> str:
    """Count the verdicts, and name the models that did not start or missed without a warning."""
    counts = Counter(map(verdict, outcomes))
    lines = [
        f"{len(outcomes)} models: " + ", ".join(f"{counts[v]} {v}" for v in VERDICTS if counts[v])
    ]
    for which in ("did not start", "MISS"):
        names = [outcome.name for outcome in outcomes if verdict(outcome) == which]
        if names:
            lines.append(f"{which}: {', '.join(names)}")
    return "\n".join(lines)


def _worst(ratio):
    """Return the index of the standard deviation that is furthest off; NaN is."""
    return int(np.argmax(np.nan_to_num(np.abs(ratio - 1), nan=np.inf)))


def _gradients(outcome):
    """Return whether a step read a minibatch or all rows."""
    batches = outcome.settings.get("num_batches")
    if batches is None:
        return "-"
    return "all rows" if batches <= 1 else "minibatches"


def _title(name):
    """Return the title of a model, or nothing if the model cannot be made."""
    try:
        return MODELS[name]().title
    except Exception:  # its error is in the outcome
        return ""
