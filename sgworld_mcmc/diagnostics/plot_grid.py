"""Panels, colours, ticks and legends that all pictures share.

Figures are made without pyplot, so that they need no closing and change no global state.
"""

from pathlib import Path

__all__ = [
    "COLOURS",
    "DARK",
    "GREY",
    "add_legend",
    "density_axis",
    "fill_density",
    "label_panel",
    "line_style",
    "make_panels",
    "save",
]

# Okabe and Ito's palette, which colour-blind readers can tell apart, without its yellow (too light
# for lines). Dashes tell curves apart that lie on each other.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
_DASHES = ("-", (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (5, 1.2, 1.2, 1.2)))
GREY, DARK = "#D5D5D5", "#7F7F7F"


def make_panels(count, columns, width, height, split=None):
    """Make a figure with ``count`` panels in reading order.

    With ``split``, each panel is a row of axes whose widths are in these proportions.
    """
    from matplotlib.figure import Figure

    columns = min(count, columns or _columns(count))
    rows = -(-count // columns)
    figure = Figure(figsize=(max(width * columns, 3.4), height * rows + 0.3), layout="constrained")
    per_panel = 1 if split is None else len(split)
    grid = figure.add_gridspec(
        rows, columns * per_panel, width_ratios=None if split is None else list(split) * columns
    )
    axes = [
        [
            figure.add_subplot(grid[i // columns, per_panel * (i % columns) + k])
            for k in range(per_panel)
        ]
        for i in range(count)
    ]
    return figure, axes if split else [pair[0] for pair in axes]


def _columns(count):
    if count <= 4:
        return count
    candidates = (3, 4) if count <= 12 else (4, 5, 6)
    return min(candidates, key=lambda columns: (-count % columns, -columns))


def line_style(index, width=1.2):
    """Return the colour and dashes of curve number ``index``."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "linestyle": _DASHES[index % len(_DASHES)],
        "linewidth": width,
    }


def label_panel(axis, title):
    """Set the title of a panel, and the format of its ticks."""
    from matplotlib.ticker import ScalarFormatter

    axis.set_title(title, fontsize=8, loc="left", pad=3)
    axis.tick_params(labelsize=7, length=2.5, pad=2)
    for side in (axis.xaxis, axis.yaxis):
        formatter = ScalarFormatter(useMathText=True)
        formatter.set_powerlimits((-3, 4))
        side.set_major_formatter(formatter)
        side.get_offset_text().set_fontsize(6)


def density_axis(axis, left, right, title):
    """Leave only a horizontal axis with a few ticks away from its ends.

    Panels then have equal sizes, and the tick labels of neighbours do not collide.
    """
    from matplotlib.ticker import MaxNLocator

    axis.set_xlim(left, right)
    axis.set_ylim(bottom=0)
    axis.set_yticks([])
    axis.spines[["left", "top", "right"]].set_visible(False)
    label_panel(axis, title)
    inner = 0.1 * (right - left)
    ticks = MaxNLocator(3, steps=[1, 2, 5, 10]).tick_values(left + inner, right - inner)
    axis.set_xticks([t for t in ticks if left + inner <= t <= right - inner or t == 0 == left])


def add_legend(figure, handles):
    """Put one legend above all panels, in as many columns as fit the figure's width."""
    if handles:
        # An 8-point letter is about 0.06 inch wide, a handle with its gaps 0.55 inch.
        widest = 0.55 + 0.06 * max(len(handle.get_label()) for handle in handles)
        columns = max(1, int(figure.get_figwidth() / widest))
        figure.legend(
            handles=handles,
            loc="outside upper center",
            ncols=min(len(handles), columns),
            frameon=False,
            fontsize=8,
            handlelength=2.2,
        )


def save(figure, path):
    """Save the figure if there is a path, and return it."""
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=200)
    return figure


def fill_density(axis, grid, density):
    """Draw a reference density as a grey area with an outline."""
    axis.fill_between(grid, density, color=GREY, linewidth=0)
    axis.plot(grid, density, color=DARK, linewidth=0.8)
