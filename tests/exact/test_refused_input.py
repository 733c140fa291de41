"""Exact posteriors refuse what they cannot be made from, and name it."""

import jax
import numpy as np
import pytest
from posteriors import CASES

from sgworld_mcmc import exact

X3, Y3 = [[1.0], [2.0], [3.0]], [1.0, 2.0, 3.0]
REGRESSIONS = [exact.LinearRegression, exact.LinearRegressionUnknownNoise]


@pytest.mark.parametrize("family", REGRESSIONS)
@pytest.mark.parametrize(
    ("args", "settings", "message"),
    [
        (([[1.0], [np.nan], [np.inf]], Y3), {}, r"`X` has NaN or infinite values in 2 of 3 rows"),
        ((X3, [1.0, np.nan, 3.0]), {}, r"`y` has NaN or infinite values in 1 of 3 rows"),
        ((X3, Y3[:2]), {}, r"`X` has 3 rows, `y` has 2 rows"),
        ((Y3, Y3), {}, r"`X` has shape \(3,\)"),
        ((X3, X3), {}, r"`y` has shape \(3, 1\)"),
        ((X3, ["a", "b", "c"]), {}, r"`y` must be an array of real numbers"),
        ((np.zeros((0, 1)), []), {}, r"`X` is empty"),
        ((X3, Y3), {"prior_scale": 0.0}, r"`prior_scale` must be positive"),
        ((X3, Y3), {"prior_scale": [1.0, 2.0]}, r"`prior_scale` has shape \(2,\)"),
        ((X3, Y3), {"prior_mean": np.nan}, r"`prior_mean` has NaN"),
    ],
)
def test_regressions_refuse(family, args, settings, message):
    with pytest.raises(ValueError, match=message):
        family.from_data(*args, **settings)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.LinearRegression.from_data(X3, Y3, noise_scale=-1.0), "`noise_scale` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, a0=0.0), "`a0` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, b0=-2.0), "`b0` must"),
        (lambda: exact.LinearRegressionUnknownNoise.from_data(X3, Y3, a0=0.5), "`a0` = 0.5 with 3"),
        (lambda: exact.LinearRegression(correlation=1.0), "`correlation` is 1"),
        (lambda: exact.LinearRegression(num_data=0), "`num_data` must be at least 1"),
        (lambda: exact.GaussianMean(dim=-1), "`dim` must be at least 1"),
        (
            lambda: exact.GaussianMean.from_data([1.0, np.inf]),
            "`y` has NaN or infinite values in 1",
        ),
        (lambda: exact.GaussianMean.from_data(Y3, noise_scale=0.0), "`noise_scale` must"),
        (lambda: exact.GaussianMean.from_data(Y3, prior_scale=-1.0), "`prior_scale` must"),
        (
            lambda: exact.GaussianMean.from_data(np.ones((3, 2)), noise_covariance=-np.eye(2)),
            "`noise_covariance` is not positive definite",
        ),
        (
            lambda: exact.GaussianMean.from_data(
                np.ones((3, 2)), noise_covariance=[[1, 2], [0, 9]]
            ),
            "`noise_covariance` is not symmetric",
        ),
        (
            lambda: exact.GaussianMean.from_data(np.ones((3, 2)), noise_covariance=np.eye(3)),
            r"`noise_covariance` has shape \(3, 3\)",
        ),
        (lambda: exact.BetaBernoulli.from_data([0, 1, 2]), "`y` must hold 0 or 1; 1 of 3"),
        (lambda: exact.BetaBernoulli.from_data([0.5]), "`y` must hold 0 or 1"),
        (lambda: exact.BetaBernoulli.from_data([0, np.nan]), "`y` has NaN"),
        (lambda: exact.BetaBernoulli.from_data([0, 1], a0=0.0), "`a0` must be positive"),
        (lambda: exact.BetaBernoulli.from_data([0, 1], b0=-1.0), "`b0` must be positive"),
        (lambda: exact.BetaBernoulli(probability=1.5), "`probability` is 1.5"),
        (lambda: exact.GammaPoisson.from_data([1, -2, 3]), "`y` must hold whole numbers"),
        (lambda: exact.GammaPoisson.from_data([1.5, 2.0]), r"first is 1.5"),
        (lambda: exact.GammaPoisson.from_data([3e9]), "whole numbers from 0 to 2147483647"),
        (lambda: exact.GammaPoisson.from_data([[1, 2]]), r"`y` has shape \(1, 2\)"),
        (lambda: exact.GammaPoisson.from_data([1], a0=0.0), "`a0` must be positive"),
        (lambda: exact.GammaPoisson.from_data([1], b0=np.inf), "`b0` has NaN or infinite"),
        (lambda: exact.GammaPoisson(rate=0.0), "`rate` must be positive"),
    ],
)
def test_constructors_refuse(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_own_arrays_in_place_of_a_key_point_to_from_data():
    with pytest.raises(TypeError, match=r"`key` must be one JAX key.*LinearRegression.from_data"):
        exact.LinearRegression(np.ones((3, 1)))
    with pytest.raises(TypeError, match="`key` must be one JAX key"):
        exact.BetaBernoulli(7)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        ({"sigma2": np.ones(9)}, r"`samples` has no site \['beta'\]"),
        (
            {"beta": np.ones((9, 3)), "sigma2": np.ones(9)},
            r"`samples\['beta'\]` has shape \(9, 3\)",
        ),
        ({"beta": np.ones(2), "sigma2": np.ones(9)}, r"`samples\['beta'\]` has shape \(2,\)"),
        ({"beta": np.ones((9, 2)), "sigma2": np.ones(8)}, "different .chains, draws."),
        ({"beta": np.ones((1, 2)), "sigma2": np.ones(1)}, "1 chains of 1 draws"),
        (
            {"beta": np.ones((9, 2)), "sigma2": np.array([1.0, np.nan, np.inf] * 3)},
            r"`samples\['sigma2'\]` has NaN or infinite values in 6 of 9 draws",
        ),
        ({"beta": [["a", "b"]] * 9, "sigma2": np.ones(9)}, r"`samples\['beta'\]` must hold real"),
    ],
)
def test_compare_refuses(samples, message):
    with pytest.raises(ValueError, match=message):
        CASES["unknown_noise"]().compare(samples)


def test_other_methods_refuse():
    posterior = CASES["unknown_noise"]()
    with pytest.raises(TypeError, match="`samples` is a ndarray"):
        posterior.compare(np.ones((9, 3)))
    with pytest.raises(TypeError, match="`n` must be an integer"):
        posterior.sample(jax.random.key(0), 2.5)
    with pytest.raises(ValueError, match="`n` must be at least 1"):
        posterior.sample(jax.random.key(0), 0)
    with pytest.raises(TypeError, match="`key` is None"):
        posterior.sample(None, 5)
    with pytest.raises(ValueError, match=r"`name` 'beta' is not a scalar.*beta\[0\]"):
        posterior.marginal_cdf("beta", 0.0)
    with pytest.raises(ValueError, match=r"`position` has no site \['sigma2'\]"):
        posterior.log_prob({"beta": np.zeros(2)})
    with pytest.raises(ValueError, match=r"`position\['beta'\]` has shape \(3,\)"):
        posterior.log_prob({"beta": np.zeros(3), "sigma2": 1.0})
    with pytest.raises(ValueError, match="`position` has different leading axes"):
        posterior.log_prob({"beta": np.zeros((4, 2)), "sigma2": 1.0})
    with pytest.raises(TypeError, match="`position` is a ndarray"):
        posterior.log_prob(np.zeros(3))
