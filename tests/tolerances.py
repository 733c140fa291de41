"""Tolerances of the statistical tests: k Monte Carlo standard errors, gated on the sample size.

Not called ``statistics``: the directory of the tests is on the import path, and the standard
library's module of that name must stay visible.

The fixed numbers are 4.5 standard errors (two-sided level 7e-6, so that some hundred comparisons
fail by chance less than once in a thousand re-seedings) and an effective sample size of 20 000, at
which 4.5 standard errors of a Gaussian's variance are 4.5 %. Noise that is off by 5 % moves the
variance by 10 % of its injected part: ten standard errors at a variance of 1, eight at the 1.25
that the tests work at.
"""

import numpy as np
from numpyro.diagnostics import effective_sample_size

SIGMAS = 4.5
MINIMUM_ESS = 20_000


def effective_draws(draws):
    """Smallest effective sample size over the coordinates of (chains, draws, D) draws.

    Never more than the number of draws: what antithetic chains gain for the mean they do not gain
    for the variance.
    """
    draws = np.asarray(draws, dtype=np.float64)
    ess = np.min(effective_sample_size(draws))
    return min(float(ess), float(draws.shape[0] * draws.shape[1]))


def assert_moments(draws, mean, covariance, sigmas=SIGMAS, minimum_ess=MINIMUM_ESS):
    """Assert that (chains, draws, D) draws have this mean and this covariance.

    Every entry is compared within ``sigmas`` standard errors, those of the products
    (x_i - m_i)(x_j - m_j) being taken from the draws: no normality is assumed. Fails too where the
    effective sample size is below ``minimum_ess``: the test would lack the power it claims.
    """
    draws = np.asarray(draws, dtype=np.float64)
    assert np.isfinite(draws).all(), "there are NaN or infinite draws"
    ess = effective_draws(draws)
    assert ess >= minimum_ess, f"effective sample size {ess:.0f} is below {minimum_ess}"
    flat = draws.reshape(-1, draws.shape[-1])
    centered = flat - flat.mean(axis=0)
    products = centered[:, :, None] * centered[:, None, :]
    mean_z = (flat.mean(axis=0) - mean) / (flat.std(axis=0) / np.sqrt(ess))
    covariance_z = (products.mean(axis=0) - covariance) / (products.std(axis=0) / np.sqrt(ess))
    worst = max(np.abs(mean_z).max(), np.abs(covariance_z).max())
    assert worst < sigmas, (
        f"{worst:.1f} standard errors off (limit {sigmas}, ess {ess:.0f}).\n"
        f"mean {flat.mean(axis=0)}, expected {mean}\n"
        f"covariance {products.mean(axis=0)}, expected {covariance}"
    )


def differs(*arguments, **settings):
    """Whether `assert_moments` fails with these arguments for a reason other than its gate."""
    try:
        assert_moments(*arguments, **settings)
    except AssertionError as error:
        return "standard errors off" in str(error)
    return False


def log_slope(x, y, error):
    """Slope of log y against log x by weighted least squares, and its standard error.

    ``error`` holds the standard errors of ``y``; the points are taken as independent.
    """
    x, y, error = (np.asarray(a, dtype=float) for a in (x, y, error))
    assert np.all(y > 0), f"no logarithm of {y}"
    weight = (y / error) ** 2
    log_x = np.log(x) - np.average(np.log(x), weights=weight)
    total = np.sum(weight * log_x**2)
    return float(np.sum(weight * log_x * np.log(y)) / total), float(total**-0.5)
