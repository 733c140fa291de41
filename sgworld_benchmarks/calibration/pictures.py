"""The pictures of the calibration: distributions and histograms of the ranks."""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sgworld_benchmarks.bias_plot import STYLES
from sgworld_benchmarks.calibration.ranks import (
    COUNT,
    SIGNIFICANCE,
    Ranks,
    band,
    distribution,
    histogram,
    judge,
)

__all__ = ["plot_distributions", "plot_histograms"]

TITLES = {"sgworld": "SGWORLD, defaults", "sgld": "SGLD, same step size", "nuts": "NUTS"}
GOOD, BAD = STYLES[0][0], STYLES[2][0]


def plot_distributions(found: dict[str, dict[str, Ranks]], path: Path) -> None:
    """Save the distance of the ranks' distribution from a uniform one, a line for each quantity.

    Uniform ranks of all quantities of a panel stay in its grey band with a probability of 99 %.
    Lines that leave it are orange.
    """
    figure, panels = _panels(found)
    points = np.arange(1, COUNT + 1) / (COUNT + 1)
    for (sampler, name), axes in panels.items():
        one = found[sampler][name]
        quantities = one.ranks.shape[1]
        low, high = band(len(one.ranks), 1 - SIGNIFICANCE / quantities)
        axes.fill_between(points, low - points, high - points, color="0.88", lw=0)
        lines, outside = distribution(one.ranks) - points[:, None], judge(one).outside
        for place in np.argsort(outside, kind="stable"):
            color = BAD if outside[place] else GOOD
            axes.plot(points, lines[:, place], color=color, lw=0.8, alpha=0.8)
        axes.set(xlim=(0, 1), ylim=(-0.22, 0.22))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([-0.2, 0, 0.2])
    figure.supxlabel("rank of the true value among the draws, as a part of 100", fontsize=9)
    figure.supylabel("distribution of the ranks, minus the uniform one", fontsize=9)
    figure.savefig(path, dpi=110)


def plot_histograms(found: dict[str, dict[str, Ranks]], path: Path) -> None:
    """Save histograms of the ranks, all quantities of a model over one another."""
    figure, panels = _panels(found)
    for (sampler, name), axes in panels.items():
        one = found[sampler][name]
        for column in one.ranks.T:
            counts = histogram(column)
            height = counts * len(counts) / len(column)
            axes.stairs(height, np.linspace(0, 1, len(counts) + 1), color=GOOD, lw=0.7, alpha=0.6)
        error = 3 * np.sqrt(len(counts) / len(one.ranks))
        axes.axhspan(1 - error, 1 + error, color="0.88", lw=0, zorder=0)
        axes.set(xlim=(0, 1), ylim=(0, 3))
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
    figure.supxlabel("rank of the true value among the draws, as a part of 100", fontsize=9)
    figure.supylabel("data sets in a bin, in units of what is expected", fontsize=9)
    figure.savefig(path, dpi=110)


def _panels(found: dict[str, dict[str, Ranks]]) -> tuple[Figure, dict]:
    """Return a figure with a panel for each sampler (row) and model (column)."""
    names = list(next(iter(found.values())))
    figure = Figure(figsize=(1.35 * len(names) + 1.2, 1.5 * len(found) + 0.7), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(found), len(names), sharex=True, sharey=True, squeeze=False)
    panels = {}
    for row, sampler in zip(grid, found, strict=True):
        row[0].set_ylabel(TITLES[sampler], fontsize=8)
        for axes, name in zip(row, names, strict=True):
            panels[sampler, name] = axes
            axes.tick_params(labelsize=7)
            axes.grid(True, lw=0.3, alpha=0.5)
    for axes, name in zip(grid[0], names, strict=True):
        axes.set_title(name, fontsize=9)
    return figure, panels
