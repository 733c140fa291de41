"""Exact posteriors, with simulated data or your own, to measure the errors of samplers."""

from sgworld_mcmc.exact.base import ExactPosterior
from sgworld_mcmc.exact.beta_bernoulli import BetaBernoulli
from sgworld_mcmc.exact.compare import Comparison, compare
from sgworld_mcmc.exact.gamma_poisson import GammaPoisson
from sgworld_mcmc.exact.gaussian_mean import GaussianMean
from sgworld_mcmc.exact.linear_regression import LinearRegression
from sgworld_mcmc.exact.linear_regression_unknown_noise import LinearRegressionUnknownNoise

__all__ = [
    "BetaBernoulli",
    "Comparison",
    "ExactPosterior",
    "GammaPoisson",
    "GaussianMean",
    "LinearRegression",
    "LinearRegressionUnknownNoise",
    "compare",
]
