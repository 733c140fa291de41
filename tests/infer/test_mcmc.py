"""The NumPyro interface: runs, resumes, chains, compilation, and what comes out."""

import os
import pickle
import subprocess
import sys
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer import MCMC
from tolerances import assert_moments

from sgworld_mcmc import SGLD, SGWORLD, DivergenceWarning, exact
from sgworld_mcmc.report.divergence import divergence_note
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.theory.variance_bias import order_mean_shift

KEY = jax.random.key(0)
# Raw coordinates, a given step of T = 0.55 per epoch and plain gradients: compiled fast.
RAW = {"gradient": "plain", "preconditioner": "none", "step_size": 0.05 / 203}
SMALL = {"num_samples": 40, "num_warmup": 5, "num_chains": 2, **RAW}


@pytest.fixture(scope="module")
def target():
    return exact.GaussianMean(num_data=203, dim=2)


@pytest.fixture(scope="module")
def small(target):
    """A finished run, its MCMC object compiled."""
    mcmc = SGWORLD(target.model, batch_size=20, **SMALL)
    mcmc.run(KEY, *target.data)
    return mcmc


def like(small, cls=SGWORLD, **settings):
    """A run on the same model, which need not compile the set-up again."""
    mcmc = cls(small.sampler._model, **{"batch_size": 20, **settings})
    mcmc.sampler.share(small.sampler)
    return mcmc


@pytest.fixture(scope="module")
def draws(small, target):
    small.run(KEY, *target.data)
    return np.asarray(small.get_samples(group_by_chain=True)["mu"])


def test_shapes_and_numpyro_class(small, draws):
    assert isinstance(small, MCMC)
    assert draws.shape == (2, 40, 2)
    assert small.get_samples()["mu"].shape == (80, 2)
    assert small.get_extra_fields(group_by_chain=True)["diverging"].shape == (2, 40)


def test_same_key_same_draws_other_key_other_draws(small, target, draws):
    small.run(KEY, *target.data)
    np.testing.assert_array_equal(small.get_samples(group_by_chain=True)["mu"], draws)
    small.run(jax.random.key(1), *target.data)
    assert not np.any(small.get_samples(group_by_chain=True)["mu"] == draws)


def test_second_run_on_other_data_compiles_nothing_and_sees_the_data(small, target, draws):
    (y,) = target.data
    (program,) = (made for (_, name), made in small.sampler._programs.items() if name == "some")
    before = program._cache_size()
    functions = functions_of(small.data.model, None)
    set_up = functions.descend.__wrapped__._cache_size()
    small.run(KEY, y + 5.0)
    after = np.asarray(small.get_samples(group_by_chain=True)["mu"])
    assert program._cache_size() == before > 0
    assert functions.descend.__wrapped__._cache_size() == set_up > 0
    np.testing.assert_allclose(after.mean((0, 1)) - draws.mean((0, 1)), 5.0, atol=0.05)


def test_resumed_run_equals_one_long_run(small, target, draws):
    half = like(small, **{**SMALL, "num_samples": 20})
    half.run(KEY, *target.data)
    first = half.get_samples(group_by_chain=True)["mu"]
    half.post_warmup_state = half.last_state
    half.run(half.last_state.rng_key, *target.data)
    both = np.concatenate([first, half.get_samples(group_by_chain=True)["mu"]], axis=1)
    np.testing.assert_array_equal(both, draws)


def test_warmup_then_run(small, target):
    mcmc = like(small, **SMALL)
    mcmc.warmup(KEY, *target.data)
    assert int(mcmc.last_state.step[0]) == 5 * 11
    mcmc.run(mcmc.last_state.rng_key, *target.data)
    assert int(mcmc.last_state.step[0]) == 45 * 11
    mcmc.warmup(KEY, *target.data, collect_warmup=True)
    assert mcmc.get_samples(group_by_chain=True)["mu"].shape == (2, 5, 2)


@pytest.mark.slow
def test_chain_methods(small, target, draws):
    """Together, one by one, or by a function that maps: draws of one distribution."""
    for method in ("sequential", jax.vmap):
        mcmc = like(small, chain_method=method, **SMALL)
        mcmc.run(KEY, *target.data)
        found = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
        # A chain that is set up alone splits its key otherwise: other draws of the same posterior.
        assert found.shape == draws.shape
        sd = np.sqrt(np.diag(target.covariance) * 2 / 80 * 4)
        assert np.all(np.abs(found.mean((0, 1)) - draws.mean((0, 1))) < 4.5 * sd)


@pytest.mark.slow
def test_thinning_keeps_every_third_draw(small, target, draws):
    mcmc = like(small, thinning=4, **SMALL)
    mcmc.run(KEY, *target.data, extra_fields=("step",))
    found = mcmc.get_samples(group_by_chain=True)["mu"]
    np.testing.assert_allclose(found, draws[:, 3::4], atol=1e-4)
    np.testing.assert_array_equal(
        mcmc.get_extra_fields()["step"][:10], 11 * (5 + 4 * np.arange(1, 11))
    )


@pytest.mark.slow
def test_plain_numpyro_mcmc_runs_the_kernel(small, target):
    """NumPyro's own loop, and several chain methods."""
    sampler = like(small, **RAW).sampler
    for method, chains in (("vectorized", 2), ("sequential", 1)):
        mcmc = MCMC(
            sampler,
            num_warmup=50,
            num_samples=2000,
            num_chains=chains,
            chain_method=method,
            progress_bar=False,
        )
        mcmc.run(KEY, *target.data)
        report = target.compare(mcmc)
        assert np.all(np.abs(report.mean_error) < 4.5 * report.mean_error_se)
        assert np.all(np.abs(report.sd_ratio - 1) < 4.5 * report.sd_ratio_se + 0.01)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, *target.data)
    assert int(mcmc.last_state.i) == 50 + 4000


@pytest.mark.slow
def test_plain_numpyro_mcmc_with_traced_arguments_says_what_to_do():
    def model(y, scale):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.sample("y", dist.Normal(mu, scale), obs=y)

    sampler = SGWORLD(model, batch_size=20, **RAW).sampler
    mcmc = MCMC(sampler, num_warmup=1, num_samples=2, progress_bar=False, jit_model_args=True)
    with pytest.raises(ValueError, match="jit_model_args"):
        mcmc.run(KEY, jnp.ones(50), 2.0)


def test_kernel_pickles_and_runs_again(small, target, draws):
    mcmc = pickle.loads(pickle.dumps(small))
    with pytest.raises(ValueError, match="pickled"):
        mcmc.bias_report()
    mcmc.run(KEY, *target.data)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], draws)


def test_init_params_start_the_chains_where_they_say(small, target):
    """With no preconditioner and no warm-up a tiny step stays at the mode found from there."""
    settings = {**SMALL, "num_samples": 1, "num_warmup": 0, "step_size": 1e-12}
    mcmc = like(small, **settings)
    mcmc.run(KEY, *target.data, init_params={"mu": jnp.array([[0.0, 1.0], [5.0, -5.0]])})
    np.testing.assert_allclose(
        mcmc.get_samples()["mu"], np.stack([target.mean["mu"]] * 2), atol=2e-3
    )


def test_divergence_is_reported_and_leaves_finite_draws(small, target):
    settings = {**SMALL, "preconditioner": np.full(2, 1 / 203), "step_size": 3.0}
    mcmc = like(small, **settings)
    with pytest.warns(
        DivergenceWarning, match=r"chain 0 at minibatch step \d+.*Reduce `step_size`"
    ):
        mcmc.run(KEY, *target.data)
    found = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    diverging = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["diverging"])
    assert np.isfinite(found).all()
    assert diverging[:, -1].all()
    np.testing.assert_array_equal(found[diverging], found[:, -1:].repeat(40, 1)[diverging])
    report = mcmc.bias_report()
    stein = report.stein._replace(variance_error=np.full(2, -4.8e33))
    assert "no measure: draws far away" in str(report._replace(stein=stein))
    assert "raise `batch_size`" in divergence_note(mcmc.last_state)
    whole = mcmc.last_state._replace(order=np.zeros((2, 1), np.int32))
    assert "batch_size" not in divergence_note(whole)


@pytest.mark.slow
def test_deterministic_and_transformed_sites_are_those_of_the_model():
    X, y = models.regression_data()

    def model(X, y):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))
        s = numpyro.sample("s", dist.HalfNormal(1))
        numpyro.deterministic("variance", s**2)
        mu = numpyro.deterministic("mu", X @ b)
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mu, s), obs=y)

    mcmc = SGWORLD(model, **{**SMALL, "num_chains": 1, "batch_size": 20})
    mcmc.run(KEY, X, y, extra_fields=("z.s",))
    found = mcmc.get_samples()
    assert set(found) == {"b", "s", "variance", "mu"}
    np.testing.assert_allclose(found["s"], np.exp(mcmc.get_extra_fields()["z.s"]), rtol=1e-5)
    np.testing.assert_allclose(found["variance"], found["s"] ** 2, rtol=1e-5)
    # Row by row in the user's order, not in that of the batches.
    np.testing.assert_allclose(found["mu"], found["b"] @ X.T, rtol=1e-4, atol=1e-5)
    mcmc.run(KEY, X, y, extra_fields=("~z.mu",))
    assert set(mcmc.get_samples()) == {"b", "s", "variance"}


def test_deterministic_sites_too_large_are_left_out_with_a_warning(monkeypatch):
    monkeypatch.setattr("sgworld_mcmc.model.numpyro_model.MAX_DETERMINISTIC", 100)

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1))
        numpyro.deterministic("residual", y - mu)
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    mcmc = SGWORLD(model, **{**SMALL, "num_chains": 1, "batch_size": 20})
    with pytest.warns(UserWarning, match=r"\['residual'\] have a value for each of 203 rows"):
        mcmc.run(KEY, models.regression_data()[1])
    assert set(mcmc.get_samples()) == {"mu"}


def test_arviz_reads_the_run_as_any_other(small, target):
    small.run(KEY, *target.data)
    numpyro.infer.initialization  # noqa: B018  arviz-base 1.3 needs the submodule imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = az.from_numpyro(small, log_likelihood=True)
    ours = small.to_arviz()
    for group in ("posterior", "log_likelihood", "observed_data"):
        for name in theirs[group].data_vars:
            np.testing.assert_allclose(ours[group][name], theirs[group][name], rtol=1e-4, atol=1e-4)
    assert ours["log_likelihood"]["y"].shape[:3] == (2, 40, 203)
    np.testing.assert_array_equal(ours["observed_data"]["y"], target.data[0])


@pytest.mark.slow
def test_subsampled_model_shows_all_rows_to_arviz():
    X, y = models.regression_data()
    settings = {**SMALL, "num_samples": 5, "num_chains": 1, "batch_size": 20}
    mcmc = SGWORLD(models.subsampled, **settings)
    mcmc.run(KEY, jnp.asarray(X), jnp.asarray(y))
    groups = mcmc.to_arviz()
    assert groups["log_likelihood"]["y"].shape == (1, 5, 203)
    b, s = (np.asarray(mcmc.get_samples()[name]) for name in ("b", "s"))
    expected = dist.Normal(b @ X.T, s[:, None]).log_prob(y)
    np.testing.assert_allclose(groups["log_likelihood"]["y"][0], expected, rtol=1e-3, atol=1e-3)


@pytest.fixture(scope="module")
def automatic():
    target = exact.LinearRegression(num_data=203, dim=2, correlation=0.5)
    return target, SGWORLD(target.model)


@pytest.mark.parametrize(
    ("cls", "settings"),
    [
        (SGWORLD, {}),
        (SGWORLD, {"order": "examples", "gradient": "plain"}),
        (SGWORLD, {"order": "symmetric", "gradient": "plain"}),
        (SGWORLD, {"gradient": "taylor", "steps_per_draw": 7}),
        (SGWORLD, {"order": "examples", "gradient": "taylor"}),
        (SGWORLD, {"preconditioner": "diagonal"}),
        (SGLD, {"gradient": "plain"}),
    ],
    ids=str,
)
@pytest.mark.slow
def test_every_setting_samples_the_posterior(cls, settings, automatic):
    """Automatic step size: the variance within the tolerance, 2 %, and Monte Carlo error.

    200 chains of 150 draws; SGLD with plain gradients is slow and is given ten epochs a draw.
    """
    target, first = automatic
    settings = {"batch_size": 20, **settings}
    if cls is SGLD and settings.get("gradient") == "plain":
        settings["steps_per_draw"] = 110
    mcmc = like(first, cls, num_samples=150, num_warmup=50, num_chains=200, **settings)
    mcmc.run(KEY, *target.data)
    chains = np.asarray(mcmc.get_samples(group_by_chain=True)["beta"], float)
    whitened = (chains - target.mean["beta"]) @ np.linalg.inv(
        np.linalg.cholesky(target.covariance)
    ).T
    flat = whitened.reshape(-1, 2)
    ess = 200 * 150 / 5
    expected = 0.0
    if settings.get("order") == "symmetric":
        step = float(mcmc.last_state.step_size[0])
        expected = predicted_shift(mcmc.data.feed, target, step)
    assert np.all(np.abs(flat.mean(0) - expected) < 4.5 / np.sqrt(ess))
    error = np.diag(np.cov(flat.T)) - 1
    assert np.all(np.abs(error) < 0.02 + 4.5 * np.sqrt(2 / ess))


def predicted_shift(batches, target, step_size):
    """Shift of the whitened mean that plain gradients on this fixed partition must have (B10)."""
    X, y = (np.asarray(x, float) for x in batches.main)
    count, rows = len(X), 203
    scale, precision = np.linalg.cholesky(target.covariance), np.eye(2) / 10.0**2
    products = []
    for m in range(count):
        features, response = X[m], y[m]
        if m < len(batches.extra[0]):
            features = np.concatenate([features, batches.extra[0][m]])
            response = np.concatenate([response, batches.extra[1][m]])
        prior = len(response) * count / rows * precision
        residual = response - features @ target.mean["beta"]
        hessian = scale.T @ (count * features.T @ features + prior) @ scale
        ascent = scale.T @ (count * features.T @ residual - prior @ target.mean["beta"])
        products.append((hessian - np.eye(2)) @ ascent)
    return order_mean_shift(step_size, count, np.mean(products, 0))


@pytest.mark.slow
def test_temperature_scales_the_covariance(small, target):
    settings = {"batch_size": 203, "temperature": 4.0, "step_size": 1.0, "gradient": "plain"}
    mcmc = like(small, num_chains=300, num_samples=100, **settings)
    mcmc.run(KEY, *target.data)
    chains = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    scaled = (chains - target.mean["mu"]) / np.sqrt(np.diag(target.covariance))
    assert_moments(scaled, np.zeros(2), 4 * np.eye(2), minimum_ess=5000)


@pytest.mark.slow
def test_sixty_four_bit_run_stays_sixty_four_bit():
    with jax.enable_x64(True):
        target = exact.GaussianMean(num_data=50, dim=1)
        mcmc = SGWORLD(target.model, num_samples=5, num_warmup=1, num_chains=1)
        mcmc.run(jax.random.key(0), *target.data)
        assert mcmc.get_samples()["mu"].dtype == jnp.float64
        assert mcmc.last_state.position.dtype == jnp.float64


@pytest.mark.slow
def test_parallel_chains_on_two_devices():
    """In a process of its own: the number of devices is fixed when JAX starts."""
    script = """
import jax, numpy as np
from numpyro.infer import MCMC
from sgworld_mcmc import SGWORLD, exact
target = exact.GaussianMean(num_data=203, dim=1)
settings = dict(batch_size=20, gradient="plain", preconditioner="none", step_size=0.05 / 203)
run = dict(num_chains=2, chain_method="parallel", num_samples=500, num_warmup=10)
mcmc = SGWORLD(target.model, **settings, **run)
plain = MCMC(mcmc.sampler, progress_bar=False, **run)
for sampler in (mcmc, plain):
    sampler.run(jax.random.key(0), *target.data)
    report = target.compare(sampler)
    assert report.num_chains == 2
    assert np.all(np.abs(report.mean_error) < 4.5 * report.mean_error_se), report
    assert np.all(np.abs(report.sd_ratio - 1) < 4.5 * report.sd_ratio_se), report
"""
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment, timeout=300)


def test_a_single_row():
    """Nothing can be compared or subsampled: full gradients."""

    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mu, 1.0), obs=y)

    mcmc = SGWORLD(model, num_samples=500)
    mcmc.run(KEY, np.ones(1))
    draws = np.asarray(mcmc.get_samples()["mu"])
    assert draws.mean() == pytest.approx(0.5, abs=0.1) and draws.var() == pytest.approx(
        0.5, rel=0.2
    )


def test_draws_in_double_precision_stay_so_however_they_are_asked_for():
    y = 5_400_000 + 10 * np.random.default_rng(0).standard_normal(2000)

    def far_from_zero(y):
        mu = numpyro.sample("mu", dist.Normal(5.4e6, 1e4))
        numpyro.sample("y", dist.Normal(mu, 10.0), obs=y)

    mcmc = SGWORLD(far_from_zero, num_samples=50, progress_bar=False)
    mcmc.run(jax.random.key(0), y)
    together, apart = (
        mcmc.get_samples(group_by_chain=by_chain)["mu"] for by_chain in (False, True)
    )
    assert mcmc.plan.double and together.dtype == apart.dtype == np.float64
    np.testing.assert_array_equal(together, np.ravel(apart))
