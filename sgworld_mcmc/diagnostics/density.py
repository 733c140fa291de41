"""Estimate marginal densities of draws on a grid, with bounded supports."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy

__all__ = ["density_on_grid", "finite_draws", "guess_support", "plot_range"]

_BINS = 1024
_TAIL = 0.002  # probability that a picture leaves out on either side


def density_on_grid(
    draws: np.ndarray, grid: np.ndarray, low: float = -np.inf, high: float = np.inf
) -> np.ndarray:
    """Estimate a density by a Gaussian kernel that is reflected at the bounds of the support.

    A histogram of 1024 bins is smoothed by a Gaussian of width
    1.06 min(sd, IQR / 1.34) n^(-1/5), the best one for a normal density (Silverman 1986,
    section 3.4); modes that are far apart come out too smooth. It costs no more than the
    histogram, so that long runs can be drawn too.

    Parameters
    ----------
    draws : numpy.ndarray
        Finite values, any shape, not all the same.
    grid : numpy.ndarray
        (G,) increasing points.
    low, high : float
        Bounds of the support. Mass that the Gaussian carries over a bound is reflected.

    Returns
    -------
    numpy.ndarray
        (G,) density at the grid points; it is zero outside the support.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.random.default_rng(0).exponential(size=100_000)
    >>> bool(abs(density_on_grid(draws, np.array([0.0, 1.0]), low=0.0) - [1, 0.37]).max() < 0.06)
    True
    """
    draws = np.ravel(draws).astype(float)
    quartiles = np.quantile(draws, [0.25, 0.75])
    spread = min(draws.std(), np.ptp(quartiles) / 1.34) or draws.std()
    width = 1.06 * spread * draws.size**-0.2
    # The bins cover the grid and the smoothing beyond it; draws further out count in the total.
    start = max(low, grid[0] - 5 * width)
    stop = min(high, grid[-1] + 5 * width)
    counts, edges = np.histogram(draws, bins=_BINS, range=(start, stop))
    step = edges[1] - edges[0]
    # Reflection does nothing at ends that are not bounds, which lie 5 widths off the grid.
    smooth = scipy.ndimage.gaussian_filter1d(
        counts / (draws.size * step), width / step, mode="reflect"
    )
    centres = (edges[1:] + edges[:-1]) / 2
    inside = (grid >= low) & (grid <= high)
    return np.where(inside, np.interp(grid, centres, smooth), 0.0)


def finite_draws(label: str, name: str, draws: np.ndarray) -> np.ndarray:
    """Return the finite draws, flat; warn if some are not finite, raise if none is."""
    flat = np.ravel(draws)
    finite = flat[np.isfinite(flat)]
    if finite.size == 0:
        raise ValueError(
            f"no draw of {name!r} in {label!r} is finite: the sampler diverged; take a smaller "
            "step size, or leave it out with `names`"
        )
    if finite.size < flat.size:
        warnings.warn(
            f"{flat.size - finite.size} of {flat.size} draws of {name!r} in {label!r} are not "
            "finite and are left out of the picture",
            UserWarning,
            stacklevel=3,
        )
    return finite


def guess_support(
    name: str,
    draws: Sequence[np.ndarray],
    bounds: Mapping[str, tuple[float | None, float | None]] | None = None,
) -> tuple[float, float]:
    """Return the bounds of a parameter: those given for it or its site, or else a guess.

    The guess is 0 if all draws are positive, and also 1 if all are below 1. A bound that the draws
    keep away from by a few kernel widths changes nothing, so that a wrong guess for, say, a normal
    mean that happens to be positive does no harm.
    """
    for key in (name, name.partition("[")[0]):
        if bounds and key in bounds:
            low, high = bounds[key]
            return (-np.inf if low is None else low), (np.inf if high is None else high)
    if min(values.min() for values in draws) < 0:
        return -np.inf, np.inf
    return 0.0, (1.0 if max(values.max() for values in draws) <= 1 else np.inf)


def plot_range(
    draws: Sequence[np.ndarray],
    truth: np.ndarray | None = None,
    pdf: Callable[[np.ndarray], np.ndarray] | None = None,
    support: tuple[float, float] = (-np.inf, np.inf),
) -> tuple[float, float]:
    """Return the horizontal range of a panel: the truth, and the samplers that are near it.

    Parameters
    ----------
    draws : sequence of numpy.ndarray
        Finite draws of each sampler.
    truth : numpy.ndarray, optional
        Reference draws.
    pdf : callable, optional
        The exact density. If neither is given, the narrowest sampler stands for the truth.
    support : tuple of float
        Bounds of the parameter.

    Returns
    -------
    tuple of float
        Left and right end. A sampler that is far off does not squeeze the truth into a line: the
        range ends one width of the truth beside it.
    """
    ranges = [tuple(np.quantile(values, [_TAIL, 1 - _TAIL])) for values in draws]
    if truth is not None:
        core = tuple(np.quantile(truth, [_TAIL, 1 - _TAIL]))
    elif pdf is not None:
        core = _pdf_range(pdf, ranges, support)
    else:
        wide = [r for r in ranges if r[1] > r[0]] or ranges
        core = min(wide, key=lambda r: r[1] - r[0])
    width = (core[1] - core[0]) or abs(core[0]) or 1.0
    left = max(min(r[0] for r in [core, *ranges]), core[0] - width)
    right = min(max(r[1] for r in [core, *ranges]), core[1] + width)
    margin = 0.1 * max(right - left, 0.1 * width)
    left, right = left - margin, right + margin
    return float(max(left, support[0])), float(min(right, support[1]))


def _pdf_range(pdf, ranges, support):
    """Find where the density exceeds 1/200 of its maximum, starting at the narrowest sampler."""
    left, right = min(ranges, key=lambda r: (r[1] == r[0], r[1] - r[0]))
    width = (right - left) or 1.0
    for _ in range(30):
        left, right = max(left - width, support[0]), min(right + width, support[1])
        grid = np.linspace(left, right, 4001)
        grid = grid[(grid > support[0]) & (grid < support[1])]
        values = np.nan_to_num(np.asarray(pdf(grid)), posinf=0.0)
        inside = grid[values > values.max() / 200] if values.max() > 0 else grid
        if (inside[0] > grid[0] or left == support[0]) and (
            inside[-1] < grid[-1] or right == support[1]
        ):
            break
        width *= 2
    return inside[0], inside[-1]
