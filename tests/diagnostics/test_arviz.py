"""ArviZ objects of finished runs: values against closed forms, both generations of ArviZ."""

from types import SimpleNamespace

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import HMC, MCMC, NUTS
from scipy import stats
from scipy.special import logsumexp

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.diagnostics import arviz as our_arviz
from sgworld_mcmc.diagnostics import model_groups, to_arviz

pytestmark = pytest.mark.slow
ROWS, CHAINS, DRAWS = 50, 2, 300


def regression(X, y, prior_scale=3.0):
    beta = numpyro.sample("beta", dist.Normal(0, prior_scale).expand([X.shape[1]]).to_event(1))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    numpyro.factor("soft_bound", -0.01 * sigma**2)
    with numpyro.plate("row", X.shape[0]):
        mean = numpyro.deterministic("mean", X @ beta)
        numpyro.sample("y", dist.Normal(mean, sigma), obs=y)


def run(model, *args, kernel=HMC, chains=1, draws=50, extra_fields=(), **kwargs):
    # HMC compiles in a third of the time of NUTS, which one run is enough for.
    mcmc = MCMC(
        kernel(model),
        num_warmup=200,
        num_samples=draws,
        num_chains=chains,
        chain_method="sequential",
        progress_bar=False,
    )
    mcmc.run(jax.random.key(1), *args, extra_fields=extra_fields, **kwargs)
    return mcmc


class Altered:
    """A finished run with another model, or without the draws of a site."""

    def __init__(self, mcmc, model=None, without=None):
        self._mcmc, self._without = mcmc, without
        self.sampler = SimpleNamespace(model=model or mcmc.sampler.model)

    def __getattr__(self, name):
        return getattr(self._mcmc, name)

    def get_samples(self, group_by_chain):
        samples = self._mcmc.get_samples(group_by_chain=group_by_chain)
        return {name: value for name, value in samples.items() if name != self._without}


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(3)
    X = rng.normal(size=(ROWS, 2)).astype(np.float32)
    y = X @ np.array([1.0, -0.5]) + 0.7 * rng.normal(size=ROWS)
    return jnp.asarray(X), jnp.asarray(y, jnp.float32)


@pytest.fixture(scope="module")
def mcmc(data):
    fields = ("potential_energy", "num_steps", "accept_prob", "adapt_state.step_size", "z")
    return run(regression, *data, kernel=NUTS, chains=CHAINS, draws=DRAWS, extra_fields=fields)


@pytest.fixture(scope="module")
def converted(mcmc):
    return to_arviz(mcmc, posterior_predictive=True, rng_key=jax.random.key(7))


def values(tree, group, name):
    return np.asarray(tree[group][name])


def test_log_likelihood_is_the_normal_log_density_of_every_row(converted, data):
    X, y = map(np.asarray, data)
    beta, sigma = values(converted, "posterior", "beta"), values(converted, "posterior", "sigma")
    expected = stats.norm.logpdf(y, beta @ X.T, sigma[..., None])
    actual = values(converted, "log_likelihood", "y")
    assert actual.shape == (CHAINS, DRAWS, ROWS)
    # float32: the error of the squared residual, which is up to ten standard deviations
    np.testing.assert_allclose(actual, expected, rtol=2e-5, atol=2e-5)
    assert list(converted["log_likelihood"].data_vars) == ["y"]  # not the factor


def test_chunks_change_nothing(mcmc, converted, monkeypatch):
    # 7 draws at a time: 600 draws make 86 chunks, the last of 5
    monkeypatch.setattr(model_groups, "_CHUNK_VALUES", 7 * ROWS + 3)
    again = to_arviz(mcmc, posterior_predictive=True, rng_key=jax.random.key(7))
    for group in ("log_likelihood", "posterior_predictive"):
        np.testing.assert_allclose(
            values(again, group, "y"), values(converted, group, "y"), rtol=1e-5, atol=1e-5
        )


def test_posterior_predictive_is_the_model_at_each_draw(converted, data):
    X = np.asarray(data[0])
    beta, sigma = values(converted, "posterior", "beta"), values(converted, "posterior", "sigma")
    new = values(converted, "posterior_predictive", "y")
    z = (new - beta @ X.T) / sigma[..., None]  # independent standard normals, if all is right
    assert abs(z.mean()) < 4 / np.sqrt(z.size)
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
    assert stats.kstest(z.ravel(), "norm").pvalue > 1e-3
    for a, b in ((z[:, :, 1:], z[:, :, :-1]), (z[:, 1:], z[:, :-1]), (z[:1], z[1:])):
        assert abs(np.mean(a * b)) < 4 / np.sqrt(a.size)
    # and so are mean and sd of each row over the posterior
    mean_error = (new.mean((0, 1)) - (beta @ X.T).mean((0, 1))) / np.sqrt((sigma**2).mean())
    assert np.abs(mean_error).max() < 4.5 / np.sqrt(CHAINS * DRAWS)


def test_posterior_predictive_depends_on_the_key_only(mcmc, converted):
    first = values(converted, "posterior_predictive", "y")
    for seed, same in ((7, True), (8, False)):
        tree = to_arviz(
            mcmc,
            log_likelihood=False,
            posterior_predictive=True,
            rng_key=jax.random.key(seed),
        )
        assert np.mean(values(tree, "posterior_predictive", "y") == first) == pytest.approx(
            float(same), abs=0.01
        )


def test_agrees_with_from_numpyro(mcmc, converted):
    theirs = az.from_numpyro(mcmc, log_likelihood=True)
    for group in ("posterior", "sample_stats"):
        assert set(converted[group].data_vars) >= set(theirs[group].data_vars) - {
            "reached_max_tree_depth"
        }
        for name in converted[group].data_vars:
            np.testing.assert_array_equal(
                values(converted, group, name), values(theirs, group, name), err_msg=name
            )
            assert converted[group][name].dims == theirs[group][name].dims
    np.testing.assert_allclose(
        values(converted, "log_likelihood", "y"), values(theirs, "log_likelihood", "y"), rtol=1e-5
    )
    np.testing.assert_array_equal(
        values(converted, "observed_data", "y"), values(theirs, "observed_data", "y")
    )
    assert converted["sample_stats"]["diverging"].dtype == bool
    assert {"lp", "n_steps", "tree_depth", "step_size"} <= set(converted["sample_stats"].data_vars)


def test_dims_data_and_attributes(converted, data):
    assert converted["posterior"]["beta"].dims == ("chain", "draw", "beta_dim_0")
    assert converted["posterior"]["mean"].dims == ("chain", "draw", "row")
    assert converted["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    assert converted["observed_data"]["y"].dims == ("row",)
    assert list(converted["observed_data"].data_vars) == ["y"]
    assert converted["constant_data"]["X"].dims == ("row", "X_dim_1")
    assert list(converted["constant_data"].data_vars) == ["X"]  # y is the observation
    np.testing.assert_array_equal(values(converted, "constant_data", "X"), data[0])
    assert converted["posterior"].attrs["sampler"] == "NUTS"


def test_round_trip_summary_and_loo(converted, tmp_path):
    path = tmp_path / "run.nc"
    converted.to_netcdf(path)
    back = az.from_netcdf(path)
    for group in ("posterior", "sample_stats", "log_likelihood", "observed_data", "constant_data"):
        for name in converted[group].data_vars:
            np.testing.assert_array_equal(values(back, group, name), values(converted, group, name))
    assert "sigma" in az.summary(back, var_names=["beta", "sigma"]).index
    result = az.loo(back)
    elpd = getattr(result, "elpd_loo", None)
    elpd = result.elpd if elpd is None else elpd
    pointwise = values(back, "log_likelihood", "y").reshape(-1, ROWS)
    lppd = np.sum(logsumexp(pointwise, axis=0) - np.log(len(pointwise)))
    assert 1 < lppd - elpd < 6  # the effective number of parameters: three here


def test_user_dims_and_coords_win(mcmc):
    tree = to_arviz(
        mcmc, coords={"slope": ["a", "b"]}, dims={"beta": ["slope"]}, log_likelihood=False
    )
    assert tree["posterior"]["beta"].dims == ("chain", "draw", "slope")
    assert list(tree["posterior"]["slope"].values) == ["a", "b"]
    assert tree["posterior"]["mean"].dims[-1] == "row"
    assert "log_likelihood" not in tree
    with pytest.raises(ValueError, match=r"coords\['slope'\].*3 labels"):
        to_arviz(mcmc, coords={"slope": ["a", "b", "c"]}, dims={"beta": ["slope"]})
    with pytest.raises(ValueError, match=r"dims\['sigma'\]"):
        to_arviz(mcmc, dims={"sigma": ["extra"]})


def test_a_large_log_likelihood_is_made_only_when_asked_for(mcmc, monkeypatch):
    monkeypatch.setattr(our_arviz, "LOG_LIKELIHOOD_LIMIT", CHAINS * DRAWS * ROWS - 1)
    with pytest.warns(UserWarning, match=r"2 chains x 300 draws x 50 rows.*log_likelihood=True"):
        assert "log_likelihood" not in to_arviz(mcmc)
    assert "log_likelihood" in to_arviz(mcmc, log_likelihood=True)
    monkeypatch.setattr(our_arviz, "LOG_LIKELIHOOD_LIMIT", CHAINS * DRAWS * ROWS)
    assert "log_likelihood" in to_arviz(mcmc)


@pytest.mark.slow
def test_observations_without_a_plate_and_an_improper_prior():
    def model(y):
        mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)

    y = jnp.linspace(-2, 2, 40)
    tree = to_arviz(run(model, y), posterior_predictive=True, rng_key=jax.random.key(0))
    z = values(tree, "posterior_predictive", "y") - values(tree, "posterior", "mu")[..., None]
    assert z.shape == (1, 50, 40)
    assert abs(z.std() - 1) < 4 / np.sqrt(2 * z.size)
    assert abs(np.mean(z[..., 1:] * z[..., :-1])) < 4 / np.sqrt(z.size)
    expected = stats.norm.logpdf(y - values(tree, "posterior", "mu")[..., None])
    np.testing.assert_allclose(values(tree, "log_likelihood", "y"), expected, rtol=1e-5)
    assert "constant_data" not in tree


@pytest.mark.slow
def test_events_masks_dict_arguments_and_handlers():
    def model(table, *, weight):
        with numpyro.plate("group", 2):
            mu = numpyro.sample("mu", dist.Normal(0, 5).expand([3]).to_event(1))
        with numpyro.plate("row", 12), numpyro.handlers.mask(mask=weight):
            numpyro.sample(
                "v",
                dist.Normal(mu[table["which"]], 1).to_event(1),
                obs=table["v"],
                infer={"event_dims": ["component"]},
            )

    v = jax.random.normal(jax.random.key(5), (12, 3))
    table = {"v": v, "which": jnp.arange(12) % 2}
    weight = jnp.arange(12) < 9
    wrapped = numpyro.handlers.scale(model, 2.0)  # hides the signature, scales the posterior
    tree = to_arviz(run(wrapped, table, weight=weight))
    mu = values(tree, "posterior", "mu")
    residual = np.asarray(v) - mu[:, :, np.arange(12) % 2]
    expected = -0.5 * (residual**2).sum(-1) - 1.5 * np.log(2 * np.pi)
    actual = tree["log_likelihood"]["v"]
    np.testing.assert_allclose(actual, np.where(weight, expected, 0.0), rtol=1e-4, atol=1e-5)
    assert actual.dims == ("chain", "draw", "row")
    assert tree["observed_data"]["v"].dims == ("row", "component")
    assert tree["posterior"]["mu"].dims == ("chain", "draw", "group", "mu_dim_1")
    assert set(tree["constant_data"].data_vars) == {"table.which", "weight"}


@pytest.mark.filterwarnings("ignore")
def test_latents_in_a_scan_and_rows_by_the_index_of_a_plate():
    """Both take NumPy arrays by a traced index, in groups that are made for all draws at once."""
    y = np.random.default_rng(0).normal(size=30)

    def walk(y):
        phi = numpyro.sample("phi", dist.Uniform(-1, 1))

        def step(h, value):
            h = numpyro.sample("h", dist.Normal(phi * h, 1.0))
            numpyro.sample("y", dist.Normal(h, 1.0), obs=value)
            return h, None

        scan(step, 0.0, y)

    def by_index(x, y):
        b = numpyro.sample("b", dist.Normal(0, 1))
        with numpyro.plate("rows", 30) as rows:
            numpyro.sample("y", dist.Normal(b * x[rows], 1.0), obs=y[rows])

    for model, data in ((walk, (y,)), (by_index, (y, 2 * y))):
        mcmc = SGWORLD(model, num_samples=20, num_warmup=20, num_chains=2, progress_bar=False)
        mcmc.run(jax.random.key(0), *data)
        terms = mcmc.to_arviz().log_likelihood["y"]
        samples = mcmc.get_samples(group_by_chain=True)
        mean = samples["h"] if model is walk else samples["b"][..., None] * y
        expected = stats.norm.logpdf(data[-1], mean, 1)
        np.testing.assert_allclose(terms, expected, rtol=1e-4, atol=1e-4)


def test_a_subsampled_plate_is_refused(mcmc):
    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 3).expand([2]).to_event(1))
        with numpyro.plate("row", ROWS, subsample_size=10):
            batch_X, batch_y = numpyro.subsample(X, 1), numpyro.subsample(y, 0)
            numpyro.sample("y", dist.Normal(batch_X @ beta, 1), obs=batch_y)

    with pytest.raises(ValueError, match=r"subsampled plate 'row' \(10 of 50 rows\)"):
        to_arviz(Altered(mcmc, model=model))


def test_dropped_latents_cannot_be_used(mcmc):
    dropped = Altered(mcmc, without="sigma")  # as with extra_fields=("~z.sigma",)
    with pytest.warns(UserWarning, match=r"left out: the latent sites \['sigma'\] have no draws"):
        tree = to_arviz(dropped)
    assert set(tree["posterior"].data_vars) == {"beta", "mean"}
    with pytest.raises(ValueError, match=r"`log_likelihood` needs draws.*sigma"):
        to_arviz(dropped, log_likelihood=True)
    with pytest.raises(ValueError, match=r"`posterior_predictive` needs draws.*sigma"):
        to_arviz(
            dropped,
            log_likelihood=False,
            posterior_predictive=True,
            rng_key=jax.random.key(0),
        )


def test_potential_functions_have_draws_only():
    kernel = HMC(potential_fn=lambda x: 0.5 * jnp.sum(x**2))
    plain = MCMC(kernel, num_warmup=50, num_samples=20, progress_bar=False)
    plain.run(jax.random.key(0), init_params=jnp.zeros(2))
    tree = to_arviz(plain)
    np.testing.assert_array_equal(tree["posterior"]["Param:0"][0], plain.get_samples())
    assert "observed_data" not in tree and "log_likelihood" not in tree


def test_arguments_are_checked(mcmc):
    with pytest.raises(ValueError, match="rng_key"):
        to_arviz(mcmc, posterior_predictive=True)
    with pytest.raises(ValueError, match="log_likelihood"):
        to_arviz(mcmc, log_likelihood="yes")
    with pytest.raises(ValueError, match=r"call `mcmc\.run"):
        to_arviz(MCMC(NUTS(regression), num_warmup=1, num_samples=1))
