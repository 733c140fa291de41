"""The auditor: right draws pass, wrong ones are measured, and slips are named."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from inference_data import inference_data
from numpyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from scipy.stats import binomtest

from sgworld_benchmarks.auditor import ERRORS, audit_target
from sgworld_mcmc import SGWORLD, Unconstrained, audit, exact
from sgworld_mcmc.auditing.kernel_stein import kernel_test, stein_kernel
from sgworld_mcmc.auditing.series import mean_test

TARGET = exact.LinearRegression(dim=3)
DRAWS = {site: np.asarray(x) for site, x in TARGET.sample(jax.random.key(1), 1000).items()}


def changed(width=1.0, shift=0.0):
    return {s: x.mean(0) + width * (x - x.mean(0)) + shift * x.std(0) for s, x in DRAWS.items()}


def test_exact_draws_pass_and_errors_are_measured():
    assert audit(TARGET.model, DRAWS, *TARGET.data).passed
    report = audit(TARGET.model, changed(1.2, 0.3), *TARGET.data)
    assert not report.passed and "not the posterior's" in report.verdict()
    np.testing.assert_allclose(report.width_ratio, 1.2, atol=0.1)
    np.testing.assert_allclose(report.mean_shift, 0.3, atol=0.12)
    table = str(report)
    assert "beta[0]" in table and "*" in table and "cannot see a mode" in table
    assert report.to_dict()["names"] == list(report.names)


def test_mean_errors_are_those_of_correlated_parameters():
    target = exact.LinearRegression(dim=4, correlation=0.95)
    draws = {s: np.asarray(x) for s, x in target.sample(jax.random.key(2), 2000).items()}
    sd = draws["beta"].std(0)
    draws["beta"] = draws["beta"] + 0.4 * sd * np.array([1, 0, 0, 0])
    report = audit(target.model, draws, *target.data)
    np.testing.assert_allclose(report.mean_shift, [0.4, 0, 0, 0], atol=0.12)


@pytest.mark.slow
def test_one_answer_for_all_forms_of_draws(tmp_path):
    chains = {site: x.reshape(4, 250, *x.shape[1:]) for site, x in DRAWS.items()}
    expected = audit(TARGET.model, chains, *TARGET.data)
    inference = inference_data(chains)
    path = tmp_path / "draws.nc"
    inference.to_netcdf(path)
    for draws in (inference, path, str(path), Unconstrained(chains)):  # real-valued sites
        report = audit(TARGET.model, draws, *TARGET.data)
        np.testing.assert_allclose(report.mean_shift, expected.mean_shift, rtol=1e-6)
        assert report.num_chains == 4


@pytest.mark.slow
def test_positive_parameters_are_judged_by_their_logarithms():
    target = exact.LinearRegressionUnknownNoise(dim=2)
    draws = target.sample(jax.random.key(3), 1000)
    assert audit(target.model, draws, *target.data).passed
    free = {s: np.asarray(x) if s == "beta" else np.log(x) for s, x in draws.items()}
    one, other = (audit(target.model, d, *target.data) for d in (draws, Unconstrained(free)))
    np.testing.assert_allclose(one.mean_shift, other.mean_shift, atol=1e-4)


@pytest.mark.slow
def test_draws_of_nuts_and_of_this_package_pass():
    ours = SGWORLD(TARGET.model, num_samples=250)
    ours.run(jax.random.key(0), *TARGET.data)
    nuts = MCMC(NUTS(TARGET.model), num_warmup=200, num_samples=500, progress_bar=False)
    nuts.run(jax.random.key(0), *TARGET.data)
    for draws in (ours, ours.get_samples(), nuts):
        assert audit(TARGET.model, draws, *TARGET.data).passed


@pytest.mark.slow
def test_a_mean_field_fit_is_too_narrow():
    target = exact.LinearRegression(dim=3, correlation=0.9)
    guide = AutoNormal(target.model)
    svi = SVI(target.model, guide, numpyro.optim.Adam(0.02), Trace_ELBO())
    found = svi.run(jax.random.key(0), 4000, *target.data, progress_bar=False)
    draws = guide.sample_posterior(jax.random.key(1), found.params, sample_shape=(1000,))
    report = audit(target.model, draws, *target.data)
    covariance = np.asarray(target.covariance)
    # A mean-field fit has the conditional standard deviations.
    ratio = 1 / np.sqrt(np.diag(np.linalg.inv(covariance)) * np.diag(covariance))
    assert not report.passed
    np.testing.assert_allclose(report.width_ratio, ratio, rtol=0.15)


def test_a_wrong_shape_is_seen_by_the_kernel():
    # Two normal lumps with the posterior's mean and covariance.
    rng = np.random.default_rng(0)
    z = rng.normal(size=(4, 250, 1))
    lumps = 0.95 * np.sign(rng.normal(size=z.shape)) + np.sqrt(1 - 0.95**2) * z
    assert kernel_test(z, -z, 1.0, rng).p_value > 0.01
    assert kernel_test(lumps, -lumps, 1.0, rng).p_value < 0.001


def test_the_kernel_is_that_of_its_definition():
    rng = np.random.default_rng(0)
    z, g = rng.normal(size=(2, 4, 3))

    def kernel(a, b):
        return (1 + ((a - b) ** 2).sum() / 3) ** -0.5

    def stein(a, b, u, v):
        trace = jnp.trace(jax.jacfwd(jax.grad(kernel, 0), 1)(a, b))
        cross = u @ jax.grad(kernel, 1)(a, b) + v @ jax.grad(kernel, 0)(a, b)
        return u @ v * kernel(a, b) + cross + trace

    expected = [
        [stein(a, b, u, v) for b, v in zip(z, g, strict=True)] for a, u in zip(z, g, strict=True)
    ]
    np.testing.assert_allclose(stein_kernel(z, g), expected, atol=1e-5)


def test_standard_errors_allow_for_correlation():
    rng, a = np.random.default_rng(0), 0.8
    x = np.zeros((200, 4, 400))
    x[..., 0] = rng.normal(size=(200, 4))
    for t in range(1, 400):
        x[..., t] = a * x[..., t - 1] + np.sqrt(1 - a * a) * rng.normal(size=(200, 4))
    means = x.mean((1, 2))
    errors = [mean_test(m[None], one[..., None]).error[0] for m, one in zip(means, x, strict=True)]
    # 200 sets: 5 % for the scatter of the means.
    assert 0.85 < means.std() / np.mean(errors) < 1.15


@pytest.mark.slow
@pytest.mark.parametrize("name", ["noise-5", "bernoulli-20"])
def test_level_and_power_on_exact_targets(name, monkeypatch):
    for error in ("one width", "one mean"):  # of which nothing is asserted
        monkeypatch.delitem(ERRORS, error)
    rates = audit_target(name, 40)
    assert binomtest(round(40 * rates.blamed["none"]), 40, 0.01, "greater").pvalue > 1e-3
    assert rates.blamed["all widths"] >= 0.8 and rates.blamed["all means"] >= 0.9
    assert abs(rates.mean_error - 0.2) < 0.05 and abs(rates.width_error - 1.1) < 0.03


def normal(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


Y = np.random.default_rng(0).normal(size=50)
GOOD = {"mu": np.zeros(100), "sigma": np.ones(100)}


@pytest.mark.parametrize(
    ("draws", "error", "message"),
    [
        ({"mu": np.zeros(100)}, ValueError, r"no values of the latent sites \['sigma'\]"),
        (GOOD | {"mu": np.zeros((100, 3, 2))}, ValueError, r"`draws\['mu'\]` has shape"),
        (GOOD | {"mu": np.zeros(90)}, ValueError, "differ in their numbers of chains and draws"),
        (GOOD | {"mu": np.full(100, np.nan)}, ValueError, r"`draws\['mu'\]` has NaN"),
        (GOOD | {"sigma": -np.ones(100)}, ValueError, "sigma outside of the support"),
        ({"mu": np.zeros(9), "sigma": np.ones(9)}, ValueError, "9 draws: an audit needs"),
        (GOOD, ValueError, "the same in all draws"),
        ([1, 2], TypeError, "must be a dict of arrays by site"),
        ({}, TypeError, "must be a dict of arrays by site"),
    ],
)
def test_slips_are_named(draws, error, message):
    with pytest.raises(error, match=message):
        audit(normal, draws, Y)


def shares(y):
    p = numpyro.sample("p", dist.Dirichlet(np.ones(3)))
    numpyro.sample("y", dist.Categorical(p), obs=y)


def test_values_of_a_simplex_must_add_up():
    y = np.arange(60) % 3
    draws = np.random.default_rng(1).dirichlet(1.0 + np.bincount(y), (4, 200))
    assert audit(shares, {"p": draws.astype(np.float32)}, y).passed
    with pytest.raises(ValueError, match=r"`draws\['p'\]` has values outside .* add up"):
        audit(shares, {"p": 0.9 * draws}, y)


def test_predictive_sites_and_other_names_are_ignored():
    draws = DRAWS | {"y": np.zeros((1000, 7))}
    assert audit(TARGET.model, draws, *TARGET.data).passed


def test_one_chain_that_is_wrong_among_right_ones_does_not_pass():
    draws = {site: x.reshape(4, 250, *x.shape[1:]).copy() for site, x in DRAWS.items()}
    assert audit(TARGET.model, draws, *TARGET.data).agree
    for values in draws.values():
        values[0] += values.std((0, 1))
    report = audit(TARGET.model, draws, *TARGET.data)
    assert not report.passed and not report.agree and report.r_hat > 1.1
    assert report.p_value > 0.01  # the disagreement makes all draws worth few
    assert "do not agree" in report.verdict()
    # A single chain of its own is told by the gradients.
    first = {site: x[0] for site, x in draws.items()}
    assert audit(TARGET.model, first, *TARGET.data).p_value < 0.01


def test_few_effective_draws_and_what_gradients_do_not_see_are_said():
    target = exact.GaussianMean(num_data=50, dim=2)
    generator = np.random.default_rng(0)
    draws = generator.multivariate_normal(target.mean["mu"], target.covariance, 150)
    few = audit(target.model, {"mu": draws}, *target.data)
    assert "right draws are blamed more often than the level says" in " ".join(few.notes)
    assert "wrong weights of modes that draws have visited" in " ".join(few.notes)
    draws = generator.multivariate_normal(target.mean["mu"], target.covariance, 1000)
    many = audit(target.model, {"mu": draws}, *target.data)
    assert "blamed more often" not in " ".join(many.notes)
