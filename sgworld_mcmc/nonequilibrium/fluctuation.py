"""Fluctuation theorems for entropy production, with standard errors.

The formulas are (N12) and (N13) of docs/nonequilibrium.md; see also arXiv:2306.03521.
"""

from typing import NamedTuple

import numpy as np
from scipy.special import expit

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.results import block_standard_error, block_sums, new_axes, table

__all__ = [
    "DetailedFluctuationTheorem",
    "IntegralFluctuationTheorem",
    "detailed_fluctuation_theorem",
    "integral_fluctuation_theorem",
]


class IntegralFluctuationTheorem(NamedTuple):
    """An estimate of <exp(-sigma)>, which is 1 by the theorem.

    Attributes
    ----------
    estimate, standard_error : float
        Mean of exp(-sigma) over stretches, and its standard error from blocks.
    z_score : float
        (estimate - 1) / standard_error.
    mean_production, mean_production_error : float
        Mean of sigma over stretches in nats, and its standard error.
    length : int
        Number of steps in a stretch.
    num_stretches : int
        Number of stretches, which do not overlap.
    effective_stretches : float
        (sum w)^2 / sum w^2 with w = exp(-sigma). If it is below a few hundred, rare stretches of
        negative production decide the estimate, and the standard error is too small.
    """

    estimate: float
    standard_error: float
    z_score: float
    mean_production: float
    mean_production_error: float
    length: int
    num_stretches: int
    effective_stretches: float

    def __str__(self):
        rare = self.effective_stretches < 200
        return table(
            f"integral fluctuation theorem, stretches of {self.length} steps",
            {
                "<exp(-sigma)>": f"{self.estimate:.5f} ± {self.standard_error:.5f}  (theorem: 1)",
                "<sigma>": f"{self.mean_production:.4g} ± {self.mean_production_error:.2g} nats",
                "stretches": f"{self.num_stretches} ({self.effective_stretches:.0f} effective)",
            },
            "Few stretches decide: the error is a lower limit." if rare else "",
        )

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw the estimate with its error bar against 1, and return the axes."""
        ax = new_axes(ax)
        ax.errorbar([self.length], [self.estimate], [self.standard_error], fmt="o", capsize=4)
        ax.axhline(1.0, color="0.5", lw=1)
        ax.set(xlabel="steps in a stretch", ylabel=r"$\langle e^{-\sigma}\rangle$")
        return ax


class DetailedFluctuationTheorem(NamedTuple):
    """log P(sigma = a) / P(sigma = -a) against a, which is a line of slope 1 by the theorem.

    Attributes
    ----------
    centers : numpy.ndarray
        (bins,) mean |sigma| in each pair of bins, in nats; NaN for empty bins.
    log_ratio, log_ratio_error : numpy.ndarray
        (bins,) log of the counts' ratio and its standard error; NaN if a count is zero.
    counts : numpy.ndarray
        (2, bins) numbers of stretches at +a and at -a.
    edges : numpy.ndarray
        (bins + 1,) edges of the bins of |sigma|.
    slope, slope_error : float
        Maximum-likelihood slope of P(sigma > 0 | |sigma|) = 1 / (1 + exp(-slope |sigma|)), from
        all stretches without binning, and its standard error from blocks.
    length, num_stretches : int
        Number of steps in a stretch, and number of stretches.
    """

    centers: np.ndarray
    log_ratio: np.ndarray
    log_ratio_error: np.ndarray
    counts: np.ndarray
    edges: np.ndarray
    slope: float
    slope_error: float
    length: int
    num_stretches: int

    def __str__(self):
        lines = [
            f"detailed fluctuation theorem, {self.num_stretches} stretches of {self.length} steps",
            f"  slope  {self.slope:.4f} ± {self.slope_error:.4f}  (theorem: 1)",
            f"  {'a':>10} {'log P(a)/P(-a)':>16} {'error':>8}",
        ]
        columns = zip(self.centers, self.log_ratio, self.log_ratio_error, strict=True)
        lines += [f"  {a:>10.4g} {r:>16.4g} {e:>8.2g}" for a, r, e in columns if np.isfinite(r)]
        return "\n".join(lines)

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw the log ratios, the theorem and the fitted slope, and return the axes."""
        ax = new_axes(ax)
        ax.errorbar(self.centers, self.log_ratio, self.log_ratio_error, fmt="o", ms=4, capsize=2)
        line = np.array([0, np.nanmax(self.centers)])
        ax.plot(line, line, color="0.5", lw=1, label="theorem: slope 1")
        label = f"slope {self.slope:.3f} ± {self.slope_error:.3f}"
        ax.plot(line, self.slope * line, ls="--", lw=1, label=label)
        ax.set(xlabel=r"$a$ [nats]", ylabel=r"$\ln P(\sigma=a)/P(\sigma=-a)$")
        ax.legend()
        return ax


def integral_fluctuation_theorem(sigma, length: int = 1) -> IntegralFluctuationTheorem:
    """Estimate <exp(-sigma)> of stretches, which is 1 by the theorem (N12).

    Parameters
    ----------
    sigma : array (steps,) or (chains, steps)
        Production of every step, from `entropy_production`.
    length : int
        Number of steps in a stretch. Stretches neither overlap nor span two chains.

    Returns
    -------
    IntegralFluctuationTheorem
        The estimate, its standard error and more; it prints and plots.

    Raises
    ------
    ValueError
        If there is NaN (the message says where), there are fewer than 2 x length steps, or the
        exponential overflows.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> sigma = rng.normal(0.5, 1.0, 10_000)     # Gaussian: mean = half the variance
    >>> result = integral_fluctuation_theorem(sigma)
    >>> bool(abs(result.z_score) < 3)
    True
    """
    stretches = _stretches(sigma, length)

    def moments(part):
        with np.errstate(over="ignore"):
            weight = np.exp(-part)
        return np.array([weight.sum(), part.sum(), weight @ weight])

    sizes, sums = block_sums(stretches, moments)
    total = int(sizes.sum())
    estimate, production, squares = (float(s) for s in sums.sum(axis=0) / total)
    if not np.isfinite(squares):
        raise ValueError(
            f"exp(-sigma) overflows: the lowest production of a stretch is {stretches.min():.3g} "
            "nats. The mean of exp(-sigma) of such data is that of a single stretch. Check the "
            "sign and the unit of `sigma`, or use shorter stretches."
        )
    error, production_error, _ = (float(e) for e in block_standard_error(sizes, sums))
    return IntegralFluctuationTheorem(
        estimate=estimate,
        standard_error=error,
        z_score=(estimate - 1) / error if error > 0 else 0.0,
        mean_production=production,
        mean_production_error=production_error,
        length=int(length),
        num_stretches=total,
        effective_stretches=total * estimate**2 / squares,
    )


def detailed_fluctuation_theorem(sigma, length: int = 1, bins=20) -> DetailedFluctuationTheorem:
    """Compare P(sigma = a) with P(sigma = -a), whose log ratio is a by the theorem (N13).

    Parameters
    ----------
    sigma, length
        The same as in `integral_fluctuation_theorem`. The theorem is exact per step; for sums of
        Ito steps it holds up to O(h), and ``entropy_production(..., midpoint=True)`` is better.
    bins : int or array
        Number of bins of equal width for |sigma|, which end where about ten stretches of negative
        production are left; or increasing edges that start at 0.

    Returns
    -------
    DetailedFluctuationTheorem
        Bin centres, log ratios and slope, with standard errors; it prints and plots.

    Raises
    ------
    ValueError
        If there is NaN, there are too few steps, or no stretch has negative production, so that
        there is nothing to compare.

    Notes
    -----
    The slope does not come from the bins. By the theorem the sign, given |sigma| = a, is positive
    with probability 1 / (1 + exp(-a)): a logistic regression with slope 1, which uses every stretch
    once and has no binning error. Its standard error comes from blocks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> result = detailed_fluctuation_theorem(rng.normal(0.5, 1.0, 20_000))
    >>> bool(abs(result.slope - 1) < 3 * result.slope_error)
    True
    """
    sums = _stretches(sigma, length)
    negative = int(np.sum(sums < 0))
    if negative == 0 or negative == sums.size:
        raise ValueError(
            f"`sigma` has no stretch of {'positive' if negative else 'negative'} production among "
            f"{sums.size}: there is nothing to compare. Use shorter stretches or more steps."
        )
    edges = _edges(sums, bins, negative)

    def histograms(part):
        size = np.abs(part)
        # The outermost bins hold the values outside of the edges, and are dropped below.
        # The last edge belongs to the last bin.
        index = np.searchsorted(edges, size, side="right") - (size == edges[-1])
        length = len(edges) + 1
        total = np.bincount(index, minlength=length)
        plus = np.bincount(index, weights=part > 0, minlength=length)
        return np.stack([plus, total - plus, np.bincount(index, size, length)])[:, 1:-1]

    plus, minus, size = block_sums(sums, histograms, 1)[1].sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        centers = size / (plus + minus)
        ratio = np.log(plus / minus)
        error = np.sqrt(1 / plus + 1 / minus)
    empty = (plus == 0) | (minus == 0)
    slope, slope_error = _logistic_slope(sums)
    return DetailedFluctuationTheorem(
        centers=centers,
        log_ratio=np.where(empty, np.nan, ratio),
        log_ratio_error=np.where(empty, np.nan, error),
        counts=np.stack([plus, minus]).astype(int),
        edges=edges,
        slope=slope,
        slope_error=slope_error,
        length=int(length),
        num_stretches=sums.size,
    )


def _stretches(sigma, length):
    """Return the sums (chains, stretches) over stretches of ``length`` steps."""
    length = check_integer("length", length, 1)
    sigma = np.asarray(sigma, dtype=np.float64)
    if sigma.ndim not in (1, 2):
        raise ValueError(f"`sigma` must be (steps,) or (chains, steps), not {sigma.shape}.")
    sigma = np.atleast_2d(sigma)
    if sigma.shape[1] < 2 * length:
        raise ValueError(
            f"`sigma` has {sigma.shape[1]} steps in each chain, fewer than 2 x `length` = "
            f"{2 * length}: use shorter stretches or a longer trajectory."
        )
    if not np.isfinite(sigma.sum()):
        bad = np.argwhere(~np.isfinite(sigma))
        if len(bad):
            raise ValueError(
                f"`sigma` has NaN or infinity, first in chain {bad[0, 0]}, step {bad[0, 1]}."
            )
    count = sigma.shape[1] // length
    if length == 1:
        return sigma
    return sigma[:, : count * length].reshape(len(sigma), count, length).sum(axis=2)


def _edges(sums, bins, negative):
    """Return the edges of the bins of |sigma|."""
    if np.ndim(bins) == 0:
        # The range ends at the tenth most negative stretch, found without a sorted copy.
        flat = sums.reshape(-1)
        parts = (flat[start : start + 2**18] for start in range(0, flat.size, 2**18))
        few = [np.partition(part, min(9, len(part) - 1))[:10].copy() for part in parts]
        lowest = np.sort(np.concatenate(few))[:10]
        top = -lowest[-1 if negative > 20 else 0]
        # The end is a value of the data, and rounding must not put its equals outside.
        return np.linspace(0, top * (1 + 1e-9), check_integer("bins", bins, 1) + 1)
    edges = np.asarray(bins, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or edges[0] < 0 or np.any(np.diff(edges) <= 0):
        raise ValueError("`bins` must be a number or increasing edges of |sigma| from 0 on.")
    return edges


def _logistic_slope(sums):
    """Fit the slope of the sign against |sigma|; return it with its standard error from blocks."""

    def derivatives(part):
        # The first derivative of the log likelihood, and minus the second.
        size = np.abs(part)
        chance = expit(slope * size)
        score = size * ((part > 0) - chance)
        return np.array([score.sum(), np.sum(size * size * chance * (1 - chance))])

    # The log likelihood is concave in the slope: Newton's method starts at the theorem's value, and
    # halves the range if a step leaves it.
    flat = sums.reshape(-1)
    scale = 1 / max(np.abs(flat[:: 1 + flat.size // 2**16]).mean(), 1e-300)
    slope, low, high = 1.0, -1e3 * scale, 1e3 * scale
    for _ in range(100):
        sizes, parts = block_sums(sums, derivatives)
        score, information = parts.sum(axis=0)
        low, high = (slope, high) if score > 0 else (low, slope)
        new = slope + score / information if information > 0 else (low + high) / 2
        new = new if low < new < high else (low + high) / 2
        change, slope = abs(new - slope), new
        # A hundredth of the standard error is accurate enough.
        if change < 0.01 / np.sqrt(information + 1e-300):
            break
    error = block_standard_error(sizes, parts)[0] * sizes.sum() / information
    return float(slope), float(error)
