"""Models that cannot be cut into minibatches run on all rows, and say why."""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.contrib.control_flow import scan
from numpyro.infer import log_likelihood

from sgworld_mcmc import SGWORLD, WholeDataWarning
from sgworld_mcmc.exact import LinearRegression

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
X, Y = models.regression_data()
# Nothing is searched or measured: the tests ask how a model is seen.
RUN = {"num_samples": 20, "num_warmup": 2, "num_chains": 2}
QUICK = {**RUN, "step_size": 0.1, "gradient": "plain"}


def coefficients():
    return numpyro.sample("b", dist.Normal(0, 1).expand([3]).to_event(1))


def closed_over():
    numpyro.sample("y", dist.Normal(X @ coefficients(), 1), obs=Y)


def latent_for_each_row(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    with numpyro.plate("rows", len(y)):
        x = numpyro.sample("x", dist.Normal(mu, 1))
        numpyro.deterministic("twice", 2 * x)
        numpyro.sample("y", dist.Normal(x, 1), obs=y)


def standardising(X, y):
    numpyro.sample("y", dist.Normal((X - X.mean(0)) / X.std(0) @ coefficients(), 1), obs=y)


def autoregression(y):
    r, s = numpyro.sample("r", dist.Normal(0, 1)), numpyro.sample("s", dist.HalfNormal(1))
    numpyro.sample("y", dist.Normal(r * y[:-1], s), obs=y[1:])


def random_walk(y):
    s = numpyro.sample("s", dist.LogNormal(0, 1))

    def step(level, y):
        level = numpyro.sample("level", dist.Normal(level, s))
        return level, numpyro.sample("y", dist.Normal(level, 1), obs=y)

    scan(step, 0.0, y)


def python_values(X, y):
    X = np.asarray(X)
    b = coefficients()
    numpyro.sample("y", dist.Normal(jnp.asarray((X - X.mean(0)) / X.std(0)) @ b, 1), obs=y)


def filtered(X, y):
    """Boolean indices must be concrete, which NumPy's are."""
    keep = np.flatnonzero(np.asarray(y) > 0)
    numpyro.sample("y", dist.Normal(X[keep] @ coefficients(), 1), obs=y[keep])


def loop_of_sites(y):
    """A site for each row, in a loop of Python."""
    mu = numpyro.sample("mu", dist.Normal(0, 1))
    for row in range(len(y)):
        numpyro.sample(f"y{row}", dist.Normal(mu, 1), obs=y[row])


def test_many_sites_are_named_in_part():
    words = r"gradient of the whole log density, .*observations 'y0' \(\), .* and 9 more: "
    with pytest.warns(WholeDataWarning, match=words):
        SGWORLD(loop_of_sites, **QUICK).run(KEY, Y[:12])


@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (closed_over, (), "203 rows.*data that the model closes over"),
        (latent_for_each_row, (Y[:30],), "30 rows.*'x'.*a value for each row"),
        (standardising, (X, Y), "203 rows.*does not add up.*standardises"),
        (autoregression, (Y[:50],), "49 rows.*No array argument.*leading axis"),
        (random_walk, (Y[:30],), "30 rows.*'level' lies inside the rows"),
        (python_values, (X, Y), "203 rows.*fails on half of its rows"),
        (filtered, (X, Y), "95 rows.*No array argument.*leading axis"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_it_runs_on_all_rows_and_says_why(model, data, reason):
    mcmc = SGWORLD(model, **QUICK)
    with pytest.warns(WholeDataWarning, match=f"(?s)all {reason}"):
        mcmc.run(KEY, *data)
    assert mcmc.plan.dynamics.num_batches == 1
    samples = mcmc.get_samples()
    assert all(np.isfinite(x).all() and len(x) == 40 for x in samples.values())
    assert "all rows" in str(mcmc.bias_report())
    # NumPyro's own utilities are given the user's model and arguments.
    terms = log_likelihood(mcmc.sampler.model, samples, *data)
    assert len(terms["y"]) == 40
    with pytest.raises(ValueError):
        SGWORLD(model, batch_size=10, **QUICK).run(KEY, *data)


@pytest.mark.parametrize("batch_size", [1, 10])
@pytest.mark.parametrize(
    ("model", "data", "reason"),
    [
        (latent_for_each_row, (Y[:30],), "'x'.*has a value for each row"),
        (standardising, (X, Y), "does not add up"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_batch_size_is_refused_also_after_a_run_on_all_rows(model, data, reason, batch_size):
    """The second kernel finds the model that the first one has seen as a whole."""
    first = SGWORLD(model, **QUICK)
    with pytest.warns(WholeDataWarning, match=f"(?s){reason}"):
        first.run(KEY, *data)
    second = SGWORLD(model, batch_size=batch_size, **QUICK)
    second.sampler.share(first.sampler)
    with pytest.raises(ValueError, match=f"(?s){reason}"):
        second.run(KEY, *data)
    with pytest.warns(WholeDataWarning, match=f"(?s){reason}"):
        third = SGWORLD(model, **QUICK)
        third.sampler.share(first.sampler)
        third.run(KEY, *data)
    for name, draws in first.get_samples().items():
        np.testing.assert_array_equal(draws, third.get_samples()[name])


def test_deterministic_sites_with_a_value_for_each_row_are_kept():
    mcmc = SGWORLD(latent_for_each_row, **QUICK)
    with pytest.warns(WholeDataWarning):
        mcmc.run(KEY, Y[:30])
    samples = mcmc.get_samples()
    np.testing.assert_allclose(samples["twice"], 2 * samples["x"], rtol=1e-6)
    assert mcmc.to_arviz()["log_likelihood"]["y"].shape == (2, 20, 30)


@pytest.mark.slow
def test_draws_are_those_of_the_posterior():
    target = LinearRegression.from_data(X.astype(float), Y.astype(float), noise_scale=1.0)
    mcmc = SGWORLD(lambda: target.model(*target.data), num_samples=2000)
    with pytest.warns(WholeDataWarning):
        mcmc.run(KEY)
    compared = target.compare(mcmc.get_samples())
    assert np.abs(compared.mean_error).max() < 0.1
    assert np.abs(compared.sd_ratio - 1).max() < 0.07


def test_a_saved_plan_knows_it(tmp_path):
    mcmc = SGWORLD(standardising, **QUICK)
    with pytest.warns(WholeDataWarning):
        mcmc.run(KEY, X, Y)
    mcmc.save_plan(tmp_path / "plan")
    again = SGWORLD(standardising, plan=tmp_path / "plan", **RUN)
    again.run(KEY, X, Y)
    np.testing.assert_array_equal(again.get_samples()["b"], mcmc.get_samples()["b"])


def test_other_data_of_the_same_shape_are_seen():
    """Also where the arrays are part of the compiled programs."""
    for model in (standardising, python_values):
        mcmc = SGWORLD(model, **QUICK)
        with pytest.warns(WholeDataWarning):
            mcmc.run(KEY, X, Y)
        with pytest.warns(WholeDataWarning):
            mcmc.run(KEY, -X, Y)
        other = SGWORLD(model, **QUICK)
        with pytest.warns(WholeDataWarning):
            other.run(KEY, -X, Y)
        np.testing.assert_array_equal(mcmc.get_samples()["b"], other.get_samples()["b"])


WEIGHTS = np.ones(3)  # an array of the model's own: single precision only


@pytest.mark.parametrize("rows", [1000, 20_000])
def test_in_single_precision_too_a_model_that_standardises_is_found_out(rows):
    """The sums of the log density near the origin, of the order 1e10, hide it."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(rows, 3))
    y = 1000 + x @ np.array([1.0, 2.0, -1.0]) + generator.normal(size=rows)

    def regression(x, y):
        a, b = numpyro.sample("a", dist.Normal(0, 1000)), coefficients()
        numpyro.sample("y", dist.Normal(a + x @ (b * WEIGHTS), 1).to_event(1), obs=y)

    def standardised(x, y):
        regression((x - x.mean(0)) / x.std(0), y)

    settings = {**QUICK, "batch_size": 100}
    plan = SGWORLD(regression, **settings).set_up(KEY, x, y)
    assert plan.num_batches == rows // 100
    with pytest.raises(ValueError, match="'y' has a log density that does not add up"):
        SGWORLD(standardised, **settings).set_up(KEY, x, y)
    del settings["batch_size"]
    with pytest.warns(WholeDataWarning, match="does not add up"):
        SGWORLD(standardised, **settings).set_up(KEY, x, y)


def test_random_numbers_in_the_model_are_named():
    def dropout(X, y):
        b = coefficients()
        keep = jax.random.bernoulli(numpyro.prng_key(), 0.5, X.shape)
        numpyro.sample("y", dist.Normal((X * keep) @ b, 1), obs=y)

    # The step size of QUICK is one of overdamped dynamics.
    with pytest.raises(ValueError, match=r"draws random numbers \(numpyro.prng_key"):
        SGWORLD(dropout, batch_size=20, **QUICK).run(KEY, X, Y)


def test_times_that_have_to_increase_are_rows_in_their_own_order():
    """In random order the density is NaN: the model is seen as a whole, whatever the key."""
    times = np.cumsum(np.random.default_rng(0).uniform(0.5, 1.5, 30))
    y = np.random.default_rng(1).normal(size=30)

    def diffusion(times, y):
        rate = numpyro.sample("rate", dist.LogNormal(0, 1))
        steps = jnp.sqrt(jnp.diff(times, prepend=times[0] - 1))
        numpyro.sample("y", dist.Normal(0, rate * steps), obs=y)

    for seed in range(2):
        with pytest.warns(WholeDataWarning, match="rows in random order"):
            SGWORLD(diffusion, **QUICK).run(jax.random.key(seed), times, y)
    with pytest.raises(ValueError, match="whose times have to increase"):
        SGWORLD(diffusion, **QUICK, batch_size=10).run(KEY, times, y)


def test_observations_bound_to_a_model_are_named_as_what_keeps_minibatches_away():
    x, y = np.random.default_rng(0).standard_normal((2, 200)).astype(np.float32)

    def bound(x, y):
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("y", dist.Normal(slope * x, 1), obs=y)

    mcmc = SGWORLD(partial(bound, y=y), batch_size=10, progress_bar=False)
    with pytest.raises(ValueError, match=r"bound to it \(functools.partial.* arguments of the run"):
        mcmc.run(jax.random.key(0), x)


def test_a_model_that_knows_rows_by_their_numbers_is_said_to():
    x, y = np.random.default_rng(0).standard_normal((2, 60)).astype(np.float32)
    missing = np.array([3, 17, 40])
    x[missing] = np.nan

    def imputed(x, y):
        slope = numpyro.sample("slope", dist.Normal(0, 1))
        values = numpyro.sample("values", dist.Normal(0, 1).expand([3]).to_event(1))
        whole = x.at[missing].set(values)
        with numpyro.plate("rows", x.shape[0]):
            numpyro.sample("x", dist.Normal(0, 1), obs=whole)
            numpyro.sample("y", dist.Normal(slope * whole, 1), obs=y)

    mcmc = SGWORLD(imputed, num_samples=2, num_warmup=0, num_chains=1, progress_bar=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        mcmc.run(jax.random.key(0), x, y)
    assert any("knows rows by their numbers" in str(one.message) for one in seen)
