"""The picture of the stationary benchmark: KL and variance error against the step size."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

NAMES = {
    "replacement": "SGLD (with replacement)",
    "batches": "SGWORLD, batches",
    "examples": "SGWORLD, examples",
    "symmetric": "SGWORLD, symmetric",
    "once": "SGWORLD, once",
}
# The colours of Okabe & Ito, which colour-blind readers can tell apart; the markers are for print
# in grey.
STYLES = {
    "replacement": ("#D55E00", "o"),
    "batches": ("#0072B2", "s"),
    "examples": ("#56B4E9", "^"),
    "symmetric": ("#009E73", "D"),
    "once": ("#CC79A7", "v"),
}


def plot_stationary(result, path, slope_ranges):
    """Save a two-panel log-log figure of a `StationaryResult`.

    Markers are the exact recursion, thin lines the closed forms; hollow markers show negative
    variance errors. The legend below the panels gives the fitted slopes of the KL.
    """
    figure = Figure(figsize=(9.0, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    steps = np.geomspace(result.step_sizes[0] / 1.15, result.step_sizes[-1] * 1.15, 300)
    errors, kls = result.predict(steps)
    slopes = _slopes(result, slope_ranges)
    handles = []
    for i, order in enumerate(result.orders):
        color, marker = STYLES[order]
        style = {"color": color, "marker": marker, "ls": "", "ms": 5, "mec": color, "mew": 0.8}
        label = NAMES[order] + slopes.get(order, "")
        handles += left.plot(result.step_sizes, result.kl[i], label=label, **style)
        left.plot(steps, kls[i], color=color, lw=0.8)
        error = result.variance_error[i]
        positive = error > 0
        right.plot(result.step_sizes[positive], error[positive], **style)
        right.plot(result.step_sizes[~positive], -error[~positive], **{**style, "mfc": "white"})
        right.plot(steps, np.abs(errors[i]), color=color, lw=0.8)
    key = {"color": "0.4", "marker": "o", "ms": 4, "lw": 0.8}
    handles.append(Line2D([], [], label="markers: exact recursion, lines: closed form", **key))
    left.set_ylabel("KL(stationary ‖ posterior)  [nats]")
    right.set_ylabel("|relative error of the variance|")
    count = result.num_batches
    for axes in (left, right):
        axes.set(xscale="log", yscale="log", xlabel="step size $h$ (whitened coordinates)")
        axes.set_xlim(steps[0], steps[-1])
        axes.grid(True, which="major", lw=0.4, alpha=0.5)
        top = axes.secondary_xaxis("top", functions=(lambda h: h * count, lambda t: t / count))
        top.set_xlabel(f"time per epoch $T = hM$  ($M = {count}$)")
        top.xaxis.set_minor_formatter(NullFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
    figure.legend(handles=handles, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.savefig(path, dpi=200)


def _slopes(result, slope_ranges):
    """Return the legend text with slopes fitted over the ranges that hold two times or more."""
    texts = {order: [] for order in result.orders}
    for low, high in slope_ranges:
        try:
            fitted = result.slopes(low, high)
        except ValueError:
            continue
        span = f"$T ≤ {high:g}$" if low == 0 else f"${low:g} ≤ T ≤ {high:g}$"
        for order, slope in fitted.items():
            texts[order].append(f"{slope:.1f} ({span})")
    return {o: ": slope " + ", ".join(parts) for o, parts in texts.items() if parts}
