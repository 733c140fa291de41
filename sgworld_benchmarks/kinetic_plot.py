"""The picture of the kinetic benchmark: epochs per effective draw against the condition number."""

from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

__all__ = ["plot_kinetic"]

# The colours of Okabe & Ito, which colour-blind readers can tell apart: one for each law of the
# batches. Overdamped dynamics has open markers and dashed lines, so that grey print will do.
STYLES = (
    {"color": "#D55E00", "marker": "o", "ls": "--", "mfc": "white", "ms": 9},
    {"color": "#0072B2", "marker": "s", "ls": "--", "mfc": "white", "ms": 6},
    {"color": "#009E73", "marker": "D", "ls": "--", "mfc": "white", "ms": 6},
    {"color": "#D55E00", "marker": "o", "ls": "-", "ms": 4.5},
    {"color": "#0072B2", "marker": "s", "ls": "-", "ms": 6},
    {"color": "#009E73", "marker": "D", "ls": "-", "ms": 6},
)


def plot_kinetic(names: Sequence[str], epochs: dict[float, Sequence[float]], path) -> None:
    """Save a log-log figure with one line for each scheme and guides kappa and sqrt(kappa).

    Parameters
    ----------
    names
        Names of the schemes, three overdamped and three kinetic ones, with replacement, in fresh
        orders and symmetric.
    epochs
        Epochs per effective draw of each of them, by condition number.
    path
        File to write.
    """
    figure = Figure(figsize=(7.6, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    conditions = np.array(sorted(epochs))
    values = np.array([epochs[kappa] for kappa in conditions])
    for name, style, column in zip(names, STYLES, values.T, strict=True):
        axes.plot(conditions, column, label=name, lw=1.3, **style)
    start = 0.6 * values.min()
    for power, label in ((1.0, r"$\kappa$"), (0.5, r"$\sqrt{\kappa}$")):
        guide = start * (conditions / conditions[0]) ** power
        axes.plot(conditions, guide, color="0.45", lw=0.9, ls=":")
        axes.annotate(
            label,
            (conditions[-1], guide[-1]),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            color="0.35",
        )
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel=r"condition number $\kappa$", ylabel="epochs per effective draw")
    axes.grid(True, which="major", lw=0.4, alpha=0.5)
    axes.legend(frameon=False, fontsize=9, loc="upper left")
    figure.savefig(path, dpi=200)
