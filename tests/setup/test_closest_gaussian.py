"""Posteriors without a mode, of hundreds of latents: the Gaussian from which their runs begin."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from tolerances import SIGMAS

from sgworld_benchmarks.models.problems import build
from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.data.in_memory import cut
from sgworld_mcmc.infer import SGMCMCKernel
from sgworld_mcmc.setup.checked_model import check_model
from sgworld_mcmc.setup.closest_gaussian import closest_gaussian
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.mode_search import ModeSearch


def studies(size):
    rng = np.random.default_rng(0)
    errors = rng.uniform(0.2, 1, size)
    return 0.3 + 0.4 * rng.normal(size=size) + errors * rng.normal(size=size), errors


def effects(y, errors):
    """A latent effect for each row: the density grows without bound as tau goes to zero."""
    mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("tau", dist.HalfCauchy(1))
    with numpyro.plate("studies", len(y)):
        effect = numpyro.sample("effect", dist.Normal(mu, tau))
        numpyro.sample("y", dist.Normal(effect, errors), obs=y)


def exact(y, errors):
    """Return means and deviations of mu and tau, and means and deviations of the effects."""
    tau = np.linspace(0.2, 0.7, 400)[:, None]
    precision = 1 / (tau**2 + errors**2)
    about = (precision * y).sum(1)
    whole = precision.sum(1) + 1
    log = 0.5 * np.log(precision).sum(1) - 0.5 * (precision * y**2).sum(1)
    log += about**2 / whole / 2 - 0.5 * np.log(whole) + scipy.stats.cauchy.logpdf(tau[:, 0])
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ (about / whole)
    sd = np.sqrt(weight @ (1 / whole + (about / whole) ** 2) - mean**2)
    t = weight @ tau[:, 0]
    shrunk = tau**2 * precision  # the weight of a study's own result
    here = shrunk * y + (1 - shrunk) * (about / whole)[:, None]
    spread = shrunk * errors**2 + (1 - shrunk) ** 2 / whole[:, None]
    effect = weight @ here
    return (
        (mean, t),
        (sd, np.sqrt(weight @ tau[:, 0] ** 2 - t**2)),
        effect,
        np.sqrt(weight @ (spread + here**2) - effect**2),
    )


@pytest.mark.slow
@pytest.mark.parametrize("key", [0, 1])
def test_a_latent_for_each_of_hundreds_of_rows(key):
    data = studies(350)
    mcmc = SGWORLD(effects, num_samples=1000, num_chains=4)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(key), *data)
    assert mcmc.plan.fit.fitted and mcmc.plan.measurements.lost == 0
    means, deviations, effect, spread = exact(*data)
    draws = mcmc.get_samples(group_by_chain=True)
    for name, mean, sd in zip(("mu", "tau"), means, deviations, strict=True):
        found = np.asarray(draws[name], float)
        ess = float(numpyro.diagnostics.effective_sample_size(found))
        assert ess > 400
        assert abs(found.mean() - mean) / sd < 0.02 + SIGMAS / np.sqrt(ess)
        assert abs(found.std() / sd - 1) < 0.02 + SIGMAS / np.sqrt(2 * ess)
    found = np.asarray(draws["effect"], float)
    z = (found.mean((0, 1)) - effect) / spread
    assert np.abs(z).max() < 0.02 + (SIGMAS + 1) / np.sqrt(1000)
    assert np.mean(found.std((0, 1)) / spread) == pytest.approx(1, abs=0.02)


@pytest.mark.slow
def test_more_than_a_thousand_latents_without_minibatches():
    """Above a thousand dimensions the parameters of the Gaussian are independent."""
    data = studies(1100)
    mcmc = SGWORLD(effects, num_samples=1000, num_chains=4)
    with pytest.warns(TuningWarning, match="No usable posterior mode"):
        mcmc.run(jax.random.key(0), *data)
    assert isinstance(mcmc.plan.fit.coordinates, Diagonal)
    means, deviations, *_ = exact(*data)
    for name, mean, sd in zip(("mu", "tau"), means, deviations, strict=True):
        found = np.asarray(mcmc.get_samples(group_by_chain=True)[name], float)
        ess = float(numpyro.diagnostics.effective_sample_size(found))
        assert ess > 100
        assert abs(found.mean() - mean) / sd < 0.05 + SIGMAS / np.sqrt(ess)


def search_of(model, *data):
    rng = np.random.default_rng(0)
    checked = check_model(rng, model, SGMCMCKernel(model).settings, data, {}, {})
    rows = cut(tuple(jnp.asarray(x, jnp.float64) for x in data), 1)
    return ModeSearch(functions_of(checked.model, None), rows, (), rng)


def test_the_gaussian_closest_to_a_gaussian_is_itself():
    """From any start, and with its covariance."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5))
    y = x @ rng.normal(size=5) + rng.normal(size=60)

    def model(x, y):
        slope = numpyro.sample("slope", dist.Normal(0, 2).expand([5]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(x @ slope, 1), obs=y)

    with jax.enable_x64(True):
        fit = closest_gaussian(search_of(model, x, y), np.full(5, 3.0), np.full(5, 0.5))
    covariance = np.linalg.inv(x.T @ x + np.eye(5) / 4)
    np.testing.assert_allclose(fit.coordinates.covariance(), covariance, rtol=1e-4, atol=1e-6)
    sd = np.sqrt(np.diagonal(covariance))
    np.testing.assert_allclose((fit.coordinates.center - covariance @ x.T @ y) / sd, 0, atol=1e-3)
    assert fit.fitted and fit.stiffness == pytest.approx(1, abs=1e-3)


def test_a_skew_posterior_has_its_mean_and_not_its_mode():
    """One rate of few counts: log rate is log gamma, whose closest Gaussian is known.

    E_q exp(theta) = s + n under q, which fixes mean and variance: 1 / v = s + n exp(m + v / 2).
    """

    def model(y):
        log_rate = numpyro.sample("log_rate", dist.Normal(0, 10))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(log_rate)), obs=y)

    y = np.array([1.0, 0.0, 2.0, 0.0])
    with jax.enable_x64(True):
        fit = closest_gaussian(search_of(model, y), np.zeros(1), np.ones(1))
    center, variance = fit.coordinates.center[0], fit.coordinates.covariance()[0, 0]
    # Both conditions, solved by iteration; sixteen draws know an expectation to ten per cent.
    m, v = 0.0, 0.3
    for _ in range(200):
        rate = 4 * np.exp(m + v / 2)
        v = 1 / (rate + 0.01)
        m += v * (y.sum() - rate - 0.01 * m)
    assert center == pytest.approx(m, abs=0.3 * np.sqrt(v))
    assert variance == pytest.approx(v, rel=0.3)
    assert center < np.log(y.mean()) - 0.05  # the mode


def test_where_there_is_nothing_to_fit_none_is_returned():
    """An improper density has no closest Gaussian."""

    def model(y):
        numpyro.sample("flat", dist.ImproperUniform(dist.constraints.real, (), ()))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(0, 1), obs=y)

    with jax.enable_x64(True):
        assert closest_gaussian(search_of(model, np.ones(3)), np.zeros(1), np.ones(1)) is None


@pytest.mark.slow
def test_a_neck_that_the_steps_do_not_enter_is_warned_of():
    """The draws lack small spreads: three houses with the feature in each of forty counties."""
    problem = build("slopes_centred")
    mcmc = SGWORLD(problem.model)
    with pytest.warns(TuningWarning, match=r"At \d+% of the draws .* it has a neck"):
        mcmc.run(jax.random.key(0), *problem.data)
    report = str(mcmc.bias_report())
    assert "it has a neck" in report and "Nothing to do" not in report
