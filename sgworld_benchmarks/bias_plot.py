"""The picture of the bias benchmark: predicted and measured errors of variances."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter

# The colours of Okabe & Ito, which colour-blind readers can tell apart; the markers are for print
# in grey.
STYLES = (
    ("#0072B2", "s"),
    ("#009E73", "D"),
    ("#D55E00", "o"),
    ("#56B4E9", "^"),
    ("#E69F00", "v"),
    ("#CC79A7", "P"),
    ("#000000", "X"),
)


def plot_bias(points, path, factor):
    """Save a figure with a log-log panel of predicted and measured |error| for each posterior.

    A hollow marker means that the measured error has the other sign. The band shows the factor.
    """
    targets = list(dict.fromkeys(point.target for point in points))
    kinds = list(dict.fromkeys(point.kind for point in points))
    figure = Figure(figsize=(3.3 * len(targets) + 0.4, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(targets), sharex=True, sharey=True, squeeze=False)[0]
    line = np.geomspace(0.004, 0.25, 50)
    for axes, target in zip(panels, targets, strict=True):
        axes.fill_between(line, line / factor, line * factor, color="0.9", lw=0)
        axes.plot(line, line, color="0.5", lw=0.8)
        for point in points:
            if point.target != target:
                continue
            number = kinds.index(point.kind)
            color, marker = STYLES[number % len(STYLES)]
            # The kinds are drawn side by side: their predictions are nearly the same numbers.
            x = abs(point.predicted) * 1.025 ** (number - (len(kinds) - 1) / 2)
            size, error = abs(point.measured), point.error
            low = min(error, 0.999 * size)
            axes.errorbar(
                x,
                size,
                yerr=[[low], [error]],
                color=color,
                marker=marker,
                ms=5,
                mew=0.8,
                mfc=color if point.measured * point.predicted > 0 else "white",
                lw=0.8,
                ls="",
            )
        axes.set(xscale="log", yscale="log", title=target, xlabel="predicted |variance error|")
        axes.title.set_fontsize(10)
        axes.set_xlim(0.007, 0.14)
        axes.set_ylim(0.004, 0.25)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0.005, 0.01, 0.02, 0.05, 0.1, 0.2]))
            axis.set_major_formatter(FuncFormatter(lambda x, _: f"{100 * x:g} %"))
            axis.set_minor_formatter(NullFormatter())
        axes.grid(True, which="major", lw=0.4, alpha=0.5)
    panels[0].set_ylabel("measured |variance error|")
    handles = [
        Line2D([], [], color=STYLES[k % len(STYLES)][0], marker=STYLES[k % len(STYLES)][1], ls="")
        for k in range(len(kinds))
    ]
    columns = min(len(targets), 4)
    figure.legend(
        handles, kinds, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )
    figure.savefig(path, dpi=130)
