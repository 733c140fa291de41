"""The picture of the networks' benchmark: errors of the predictions against epochs."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from sgworld_benchmarks.networks.epochs import SCHEMES, EpochTable

__all__ = ["plot_epochs"]

# The colours of Okabe & Ito, one for each order. Overdamped dynamics has dashed lines and open
# markers, so that grey print will do.
COLOURS = {"replacement": "#D55E00", "batches": "#0072B2", "symmetric": "#009E73"}
MARKERS = {"replacement": "o", "batches": "s", "symmetric": "D"}


def plot_epochs(table: EpochTable, path) -> None:
    """Save a figure of two panels, total variation and energy, with one line for each scheme."""
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for scheme, tv, excess in zip(SCHEMES, table.tv, table.excess, strict=True):
        style = {
            "color": COLOURS[scheme.order],
            "marker": MARKERS[scheme.order],
            "ls": "-" if scheme.kinetic else "--",
            "mfc": None if scheme.kinetic else "white",
            "ms": 5,
            "lw": 1.4,
            "label": scheme.name,
        }
        left.plot(table.budgets, tv, **style)
        right.plot(table.budgets, excess, **style)
    left.axhline(table.floor, color="0.45", lw=0.9, ls=":")
    left.annotate(
        "error of the reference",
        (table.budgets[0], table.floor),
        xytext=(0, 3),
        textcoords="offset points",
        color="0.35",
        fontsize=9,
    )
    left.set(yscale="log", ylabel="total variation of the predictive probabilities")
    right.set(ylabel="energy above the reference, in D/2")
    if np.nanmin(table.excess) > 0:
        right.set_yscale("log")
    else:
        right.set_yscale("symlog", linthresh=0.01)
        right.axhline(0.0, color="0.45", lw=0.9, ls=":")
    for axes in (left, right):
        axes.set(xscale="log", xlabel="epochs of each chain, the second half of which predicts")
        axes.set_xticks(np.array(table.budgets), [str(budget) for budget in table.budgets])
        axes.xaxis.set_minor_locator(NullLocator())
        axes.grid(True, which="major", lw=0.4, alpha=0.5)
    right.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
