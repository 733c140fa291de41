"""Likelihoods full of kinks: no mode, and all the same no warning, since the draws are right."""

import warnings

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, TuningWarning

KEY, SIZE = jax.random.key(0), 400
X = np.random.default_rng(0).standard_normal(SIZE)
Y = 1 + 0.5 * X + np.random.default_rng(1).laplace(size=SIZE)


def model(x, y, quantile):
    b = numpyro.sample("b", dist.Normal(0, 5).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)):
        errors = dist.AsymmetricLaplaceQuantile(b[0] + b[1] * x, 0.3, quantile)
        numpyro.sample("y", errors, obs=y)


def exact_moments(quantile):
    """Means and deviations from sums over a grid, with NumPyro's own density."""
    center = np.array([1 + np.quantile(Y - 1 - 0.5 * X, quantile), 0.5])
    a, b = (c + np.linspace(-0.5, 0.5, 201) for c in center)
    errors = Y - a[:, None, None] - b[:, None] * X
    density = dist.AsymmetricLaplaceQuantile(0.0, 0.3, quantile).log_prob(errors)
    log = np.asarray(density, float).sum(-1) - (a[:, None] ** 2 + b**2) / 50
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = np.array([(weight.sum(1) @ a), (weight.sum(0) @ b)])
    square = np.array([(weight.sum(1) @ a**2), (weight.sum(0) @ b**2)])
    return mean, np.sqrt(square - mean**2)


@pytest.mark.slow
@pytest.mark.parametrize("quantile", [0.5, 0.9])
def test_quantile_regression_is_right_and_warns_of_nothing(quantile):
    mcmc = SGWORLD(model, num_samples=2000, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mcmc.run(KEY, X, Y, quantile)
    assert mcmc.plan.fit.kinked and "full of kinks" in str(mcmc.bias_report())
    mean, deviation = exact_moments(quantile)
    draws = np.asarray(mcmc.get_samples()["b"], float)
    assert (np.abs(draws.mean(0) - mean) < 0.1 * deviation).all()
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.07)


@pytest.mark.slow
def test_a_smooth_density_without_a_mode_has_no_kinks():
    """A centred hierarchy, whose density grows without bound where the scale goes to zero."""
    groups = 8
    y = np.array([28.0, 8, -3, 7, -1, 1, 18, 12])

    def schools(y):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 5)), numpyro.sample("tau", dist.HalfCauchy(5))
        with numpyro.plate("schools", groups):
            theta = numpyro.sample("theta", dist.Normal(mu, tau))
            numpyro.sample("y", dist.Normal(theta, 10.0), obs=y)

    mcmc = SGWORLD(schools, num_samples=100, progress_bar=False)
    with pytest.warns(TuningWarning, match="No usable posterior mode"):
        mcmc.run(KEY, y)
    assert not mcmc.plan.fit.kinked
