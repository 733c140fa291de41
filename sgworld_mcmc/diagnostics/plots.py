"""Draw pictures of posterior draws: marginal densities, and traces with the ranks of each chain."""

from collections.abc import Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy
from numpyro.diagnostics import effective_sample_size

from sgworld_mcmc.diagnostics import plot_grid
from sgworld_mcmc.diagnostics.density import (
    density_on_grid,
    finite_draws,
    guess_support,
    plot_range,
)
from sgworld_mcmc.diagnostics.scalars import as_chains, flatten_scalars, select_scalars

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_density", "plot_trace"]


def plot_density(
    samples: Any,
    exact: Any = None,
    *,
    names: Iterable[str] | str | None = None,
    path: str | PathLike | None = None,
    label: str = "samples",
    exact_label: str | None = None,
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
    columns: int | None = None,
    chain_axes: int | None = None,
) -> "Figure":
    """Draw the marginal density of each parameter, of one or several samplers, over the exact one.

    Parameters
    ----------
    samples : draws, or dict of str to draws
        Anything that `as_chains` takes: an MCMC, an ArviZ object, or a dict of site names to
        arrays. A dict of labels to such objects draws several samplers in the same panels.
    exact : object or draws, optional
        The truth, filled in grey: an object with ``names`` (scalar names) and
        ``marginal_pdf(name, x)``, such as the exact posteriors of `sgworld_mcmc.exact`, or
        reference draws, for example of NUTS.
    names : iterable of str, optional
        Parameters to draw, scalars (``"beta[3]"``) or whole sites (``"beta"``). Default: all that
        the first sampler has.
    path : path, optional
        File to write; its ending decides the format.
    label : str
        Legend entry of a single sampler.
    exact_label : str, optional
        Legend entry of `exact`. Default: "exact" for a density, "reference" for draws.
    bounds : dict of str to (low, high), optional
        Support of a scalar or a site; None stands for no bound. By default 0 is taken as a bound
        if all draws are positive, and 1 as well if all are in (0, 1). The density is reflected
        there, which changes nothing for draws that keep away from the bound.
    columns : int, optional
        Number of panels in a row. By default the number from 1 to 6 that leaves the fewest gaps.
    chain_axes : {None, 1, 2}
        How dicts of arrays are grouped, as in `as_chains`: 1 means ungrouped draws. By default
        it is deduced from the shapes.

    Returns
    -------
    matplotlib.figure.Figure
        A figure that does not belong to pyplot and needs no closing.

    Notes
    -----
    `density_on_grid` estimates the densities. The horizontal range covers the truth, and the
    samplers up to one width of the truth beside it: a sampler that is far off leaves the panel.

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> draws = {"mu": rng.normal(size=(4, 500)), "beta": rng.normal(size=(4, 500, 2))}
    >>> len(plot_density(draws).axes)
    3
    """
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    labelled = samples if _is_labelled(samples) else {label: samples}
    if not labelled:
        raise ValueError("`samples` is an empty dict: it holds no draws")
    curves = {
        key: flatten_scalars(as_chains(value, chain_axes=chain_axes))
        for key, value in labelled.items()
    }
    chosen = list(select_scalars(next(iter(curves.values())), names))
    has_pdf = hasattr(exact, "marginal_pdf")
    reference = {}
    if exact is not None and not has_pdf:
        reference = flatten_scalars(as_chains(exact, chain_axes=chain_axes))
    exact_label = exact_label or ("exact" if has_pdf else "reference")
    known = list(exact.names) if has_pdf else list(reference)
    if exact is not None and not set(known) & set(chosen):
        raise ValueError(
            f"`exact` has the parameters {known[:8]} and none of those drawn, {chosen[:8]}: give "
            "the sites of both the same names"
        )

    figure, axes = plot_grid.make_panels(len(chosen), columns, width=1.75, height=1.45)
    styles = {key: plot_grid.line_style(place) for place, key in enumerate(curves)}
    for axis, name in zip(axes, chosen, strict=True):
        draws = {
            k: finite_draws(k, name, curve[name]) for k, curve in curves.items() if name in curve
        }
        truth = finite_draws(exact_label, name, reference[name]) if name in reference else None
        pdf = partial(exact.marginal_pdf, name) if has_pdf and name in known else None
        _draw_marginals(axis, name, draws, styles, truth, pdf, bounds)

    handles = [Line2D([], [], label=key, **style) for key, style in styles.items()]
    if exact is not None:
        patch = Patch(
            facecolor=plot_grid.GREY, edgecolor=plot_grid.DARK, linewidth=0.8, label=exact_label
        )
        handles.insert(0, patch)
    if len(handles) > 1:
        plot_grid.add_legend(figure, handles)
    return plot_grid.save(figure, path)


def plot_trace(
    samples: Any,
    names: Iterable[str] | str | None = None,
    path: str | PathLike | None = None,
    *,
    side: str | None = None,
    bins: int = 20,
    chain_axes: int | None = None,
) -> "Figure":
    """Draw each parameter's trace by chain, with the ranks or the density of each chain beside it.

    Parameters
    ----------
    samples : draws
        Anything that `as_chains` takes: an MCMC, an ArviZ object or a dict of
        ``(chains, draws, ...)``.
    names : iterable of str, optional
        Parameters to draw, scalars or whole sites; default all.
    path : path, optional
        File to write; its ending decides the format.
    side : {"rank", "density"}, optional
        What the panel at the side shows. Default: ranks for several chains, the density for a
        single one. The rank of a draw is its rank among the draws of all chains; chains that
        sample the same distribution have flat histograms (Vehtari et al. 2021, arXiv:1903.08008).
        The grey band is two standard deviations wide on either side, for a flat histogram of as
        many independent draws as a chain has effective draws.
    bins : int
        Number of bins of the rank histograms.
    chain_axes : {None, 1, 2}
        How dicts of arrays are grouped, as in `as_chains`.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    A trace longer than 2000 draws is drawn through the least and the greatest value in each of
    1000 stretches, so that no excursion is lost.

    Examples
    --------
    >>> import numpy as np
    >>> draws = {"mu": np.random.default_rng(0).normal(size=(4, 500))}
    >>> len(plot_trace(draws).axes)
    2
    """
    from matplotlib.lines import Line2D
    from matplotlib.ticker import MaxNLocator

    scalars = select_scalars(flatten_scalars(as_chains(samples, chain_axes=chain_axes)), names)
    count = next(iter(scalars.values())).shape[0]
    side = side or ("rank" if count > 1 else "density")
    if side not in ("rank", "density"):
        raise ValueError(f"`side` is {side!r}: pass 'rank', 'density' or None")
    columns = 1 if len(scalars) <= 6 else 2 if len(scalars) <= 24 else 3
    figure, axes = plot_grid.make_panels(
        len(scalars), columns, width=(7.0, 4.6, 4.0)[columns - 1], height=1.15, split=(2.6, 1)
    )
    for i, ((trace, beside), (name, values)) in enumerate(zip(axes, scalars.items(), strict=True)):
        for chain, line in enumerate(values):
            style = plot_grid.line_style(chain, width=0.5) | {"linestyle": "-"}
            trace.plot(*_thin_trace(line), **style, alpha=0.8, rasterized=True)
        trace.margins(x=0)
        trace.yaxis.set_major_locator(MaxNLocator(3))
        trace.spines[["top", "right"]].set_visible(False)
        plot_grid.label_panel(trace, name)
        title = side if i < columns else ""
        (_draw_ranks if side == "rank" else _draw_densities)(beside, name, values, bins, title)
        # All rows share the axes of draws and ranks: only the lowest panel of a column has labels.
        if i + columns < len(scalars):
            trace.tick_params(labelbottom=False)
            beside.tick_params(labelbottom=side == "density")
    if count > 1:
        handles = [
            Line2D([], [], label=f"chain {i}", **(plot_grid.line_style(i) | {"linestyle": "-"}))
            for i in range(min(count, len(plot_grid.COLOURS)))
        ]
        plot_grid.add_legend(figure, handles if count <= len(plot_grid.COLOURS) else [])
    return plot_grid.save(figure, path)


def _draw_marginals(axis, name, draws, styles, truth, pdf, bounds):
    """Draw the densities of a parameter's draws, by sampler, over those of the true ones."""
    support = guess_support(name, [*draws.values(), *([] if truth is None else [truth])], bounds)
    left, right = plot_range(list(draws.values()), truth, pdf, support)
    grid = np.linspace(left, right, 400)
    if truth is not None and np.ptp(truth) > 0:
        plot_grid.fill_density(axis, grid, density_on_grid(truth, grid, *support))
    elif pdf is not None:
        plot_grid.fill_density(axis, grid, np.asarray(pdf(grid)))
    for key, values in draws.items():
        if np.ptp(values) == 0:
            axis.axvline(values[0], **styles[key])
        else:
            axis.plot(grid, density_on_grid(values, grid, *support), **styles[key])
    plot_grid.density_axis(axis, left, right, name)


def _is_labelled(samples):
    """Return True if a dict maps labels to draws, and not sites to arrays."""
    if not isinstance(samples, dict):
        return False
    return all(
        hasattr(value, "get_samples") or isinstance(value, Mapping) for value in samples.values()
    )


def _thin_trace(line, most=2000):
    if line.size <= most:
        return np.arange(line.size), line
    edges = np.linspace(0, line.size, most // 2 + 1).astype(int)
    low, high = np.minimum.reduceat(line, edges[:-1]), np.maximum.reduceat(line, edges[:-1])
    return np.repeat((edges[1:] + edges[:-1]) / 2, 2), np.stack([low, high], axis=1).ravel()


def _draw_ranks(axis, name, values, bins, title):
    """Draw histograms of the ranks of each chain's draws among all, relative to a flat one."""
    chains, count = values.shape
    bins = min(bins, count)
    fractions = (scipy.stats.rankdata(values).reshape(values.shape) - 0.5) / values.size
    with np.errstate(all="ignore"):  # a chain that does not move has no effective size
        effective = np.mean([effective_sample_size(chain[None]) for chain in values])
    if np.isfinite(effective) and effective > 0:
        # The binomial standard deviation, less the chain's own part in the pooled ranks.
        sd = np.sqrt((bins - 1) / min(effective, count) * (1 - 1 / chains))
        axis.axhspan(max(0, 1 - 2 * sd), 1 + 2 * sd, color=plot_grid.GREY, alpha=0.6, linewidth=0)
    heights = [np.histogram(line, bins, (0, 1))[0] * bins / count for line in fractions]
    for chain, height in enumerate(heights):
        style = plot_grid.line_style(chain, width=0.9) | {"linestyle": "-"}
        axis.stairs(height, np.linspace(0, 1, bins + 1), baseline=None, **style)
    axis.set_xlim(0, 1)
    axis.set_ylim(0, max(2.0, 1.05 * np.max(heights)))
    axis.set_yticks([])
    axis.spines[["left", "top", "right"]].set_visible(False)
    plot_grid.label_panel(axis, title)
    axis.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])


def _draw_densities(axis, name, values, bins, title):
    lines = [finite_draws(f"chain {i}", name, line) for i, line in enumerate(values)]
    support = guess_support(name, lines)
    left, right = plot_range(lines, np.concatenate(lines), None, support)
    grid = np.linspace(left, right, 300)
    for chain, line in enumerate(lines):
        style = plot_grid.line_style(chain, width=0.9) | {"linestyle": "-"}
        if np.ptp(line) > 0:
            axis.plot(grid, density_on_grid(line, grid, *support), **style)
    plot_grid.density_axis(axis, left, right, title)
