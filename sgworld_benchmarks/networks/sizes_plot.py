"""The picture of what networks of many parameters cost."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sgworld_benchmarks.networks.large import Size

__all__ = ["plot_sizes"]


def plot_sizes(sizes: list[Size], path) -> None:
    """Save a figure of two panels: seconds of a step, and memory, against the dimension."""
    figure = Figure(figsize=(9.6, 4.0), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    dimension = np.array([size.dimension for size in sizes], float)
    step = np.array([1e3 * size.step for size in sizes])
    left.plot(dimension, step, "o-", color="#0072B2", label="measured")
    left.plot(dimension, step[-1] * dimension / dimension[-1], ":", color="0.45", label="linear")
    left.set(ylabel="milliseconds of a step", xlabel="parameters D")
    memory = np.array([[size.memory, size.kept] for size in sizes]) / 2**20
    right.plot(dimension, memory[:, 0], "o-", color="#0072B2", label="largest memory of the run")
    right.plot(dimension, memory[:, 1], "s--", color="#D55E00", mfc="white", label="its draws")
    right.set(ylabel="MiB", xlabel="parameters D")
    for axes in (left, right):
        axes.set(xscale="log", yscale="log")
        axes.grid(True, which="major", lw=0.4, alpha=0.5)
        axes.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=150)
