"""Exact posteriors of every family, small enough for tests."""

from sgworld_mcmc import exact

__all__ = ["CASES", "FAMILIES", "N", "pick"]

COVARIANCE = [[2.0, 0.9], [0.9, 1.0]]
CASES = {
    "gaussian_scalar": lambda: exact.GaussianMean.from_data([1.0, 2.5, 3.0], noise_scale=2.0),
    "gaussian_vector": lambda: exact.GaussianMean(
        num_data=40, dim=2, noise_scale=[0.5, 2.0], prior_mean=1.0, prior_scale=[0.3, 3.0]
    ),
    "gaussian_covariance": lambda: exact.GaussianMean(
        num_data=40, dim=2, noise_covariance=COVARIANCE
    ),
    "regression": lambda: exact.LinearRegression(
        num_data=50, dim=3, correlation=0.8, noise_scale=0.7, prior_mean=[1.0, 0.0, -1.0]
    ),
    "regression_wide": lambda: exact.LinearRegression(num_data=3, dim=5, prior_scale=1.5),
    "unknown_noise": lambda: exact.LinearRegressionUnknownNoise(
        num_data=30, dim=2, correlation=0.5, noise_scale=2.0, a0=3.0, b0=2.0, prior_mean=0.5
    ),
    "beta": lambda: exact.BetaBernoulli(num_data=20, a0=2.0, b0=3.0),
    "gamma": lambda: exact.GammaPoisson(num_data=15, a0=1.5, b0=0.5),
}
# One number of draws nearly everywhere, so that each sampler compiles once.
N = 20_000
FAMILIES = [
    exact.GaussianMean,
    exact.LinearRegression,
    exact.LinearRegressionUnknownNoise,
    exact.BetaBernoulli,
    exact.GammaPoisson,
]


def pick(draws, i):
    """Return some of the draws."""
    return {name: value[i] for name, value in draws.items()}
