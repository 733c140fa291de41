"""One-dimensional exact marginals, and the distances of draws from them.

All five kinds of marginals here are Pearson distributions. Their Stein kernel

    tau(x) = (1 / f(x)) * integral_x^inf (t - mean) f(t) dt

is a quadratic polynomial, so the Wasserstein-1 distance below is a finite sum, without quadrature.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy


class Marginal(NamedTuple):
    """An exact one-dimensional marginal.

    Attributes
    ----------
    distribution : scipy.stats frozen distribution
        The distribution, with ``cdf``, ``pdf``, ``ppf``, ``mean`` and ``std``.
    stein_kernel : callable
        The function tau(x) defined above; its expectation is the variance.
    """

    distribution: Any
    stein_kernel: Callable


def normal(mean, sd):
    """Return the marginal N(mean, sd^2)."""
    return Marginal(scipy.stats.norm(mean, sd), lambda x: np.full_like(x, sd**2))


def student_t(df, mean, scale):
    """Return the marginal of ``mean + scale * t_df`` for df > 2."""
    return Marginal(
        scipy.stats.t(df, mean, scale),
        lambda x: (df * scale**2 + (x - mean) ** 2) / (df - 1),
    )


def inverse_gamma(shape, scale):
    """Return the marginal with density proportional to x^(-shape-1) exp(-scale/x), shape > 2."""
    return Marginal(scipy.stats.invgamma(shape, scale=scale), lambda x: x**2 / (shape - 1))


def beta(a, b):
    """Return the marginal Beta(a, b)."""
    return Marginal(scipy.stats.beta(a, b), lambda x: x * (1 - x) / (a + b))


def gamma(shape, rate):
    """Return the marginal with density proportional to x^(shape-1) exp(-rate x)."""
    return Marginal(scipy.stats.gamma(shape, scale=1 / rate), lambda x: x / rate)


def ks_distance(marginal, draws):
    """Return the Kolmogorov-Smirnov distance max |F_n - F| of ``draws`` (n,) from the marginal."""
    return float(scipy.stats.kstest(draws, marginal.distribution.cdf).statistic)


def wasserstein_distance(marginal, draws):
    """Return the Wasserstein-1 distance of ``draws`` (n,) from the marginal, in their own units.

    It is the area between F_n and F. Between two ordered draws F_n is constant, and the area under
    F up to x is (x - mean) F(x) + tau(x) f(x), so that each piece has a closed form.
    """
    exact = marginal.distribution
    mean = exact.mean()

    def area(x):
        return (x - mean) * exact.cdf(x) + marginal.stein_kernel(x) * exact.pdf(x)

    x = np.sort(np.asarray(draws, dtype=np.float64))
    n = len(x)
    level = np.arange(1, n) / n
    below, cumulative = area(x), exact.cdf(x)
    pieces = np.abs(level * np.diff(x) - np.diff(below))
    # If F crosses F_n between two draws, the two sides of the crossing have opposite signs. This
    # happens in about sqrt(n) pieces, so that few of the slow quantiles are needed.
    crossed = np.flatnonzero((cumulative[:-1] < level) & (level < cumulative[1:]))
    c = level[crossed]
    q = exact.ppf(c)
    left = c * (q - x[crossed]) - (area(q) - below[crossed])
    right = (below[crossed + 1] - area(q)) - c * (x[crossed + 1] - q)
    pieces[crossed] = left + right
    above_last = below[-1] - (x[-1] - mean)
    return float(below[0] + pieces.sum() + above_last)


def wasserstein_noise(marginal):
    """Return the limit of sqrt(n) E[W1] for n independent exact draws.

    It is sqrt(2/pi) times the integral of sqrt(F (1 - F)), because sqrt(n) (F_n - F) tends to a
    Brownian bridge at F, whose mean modulus is sqrt(2 F (1 - F) / pi) (del Barrio, Gine, Matran
    1999).
    """
    # In s with u = 1/(1 + exp(-s)) the integrand decays exponentially at both ends, so that the
    # trapezoid rule is more than accurate enough. Small u and 1 - u keep their digits.
    s = np.linspace(-60.0, 60.0, 1201)
    tail = scipy.special.expit(-np.abs(s))
    exact = marginal.distribution
    x = np.where(s < 0, exact.ppf(tail), exact.isf(tail))
    density = exact.pdf(x)
    spread = tail * (1 - tail)
    values = np.divide(spread**1.5, density, out=np.zeros_like(s), where=density > 0)
    return float(np.sqrt(2 / np.pi) * np.trapezoid(values, s))
