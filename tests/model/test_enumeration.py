"""Discrete latent sites are summed out, in minibatches where they belong to the rows."""

import builtins

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, WholeDataWarning
from sgworld_mcmc.model.enumeration import SUMMED
from sgworld_mcmc.setup.checked_model import check_model

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
Y = np.random.default_rng(2).normal(size=203) + np.repeat([-2.0, 2.0], [100, 103])
QUICK = {"num_samples": 20, "num_warmup": 2, "num_chains": 2, "step_size": 0.1, "gradient": "plain"}


def mixture(y, enumerate_by_hand=False):
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.ones(2)))
    centers = numpyro.sample("centers", dist.Normal(jnp.array([-1.0, 1.0]), 1).to_event(1))
    scale = numpyro.sample("scale", dist.LogNormal(0, 1))
    with numpyro.plate("rows", len(y)):
        if enumerate_by_hand:
            parts = dist.Normal(centers, scale)
            return numpyro.sample(
                "y", dist.MixtureSameFamily(dist.Categorical(weights), parts), obs=y
            )
        z = numpyro.sample("z", dist.Categorical(weights), infer={"enumerate": "parallel"})
        numpyro.deterministic("center", centers[z])
        return numpyro.sample("y", dist.Normal(centers[z], scale), obs=y)


def by_hand(y):
    mixture(y, enumerate_by_hand=True)


def change_point(y):
    with numpyro.plate("sides", 2):
        level = numpyro.sample("level", dist.Normal(0, 3))
    when = numpyro.sample("when", dist.Categorical(jnp.ones(len(y)) / len(y)))
    with numpyro.plate("rows", len(y)):
        after = (jnp.arange(len(y)) >= when).astype(int)
        numpyro.sample("y", dist.Normal(level[after], 1), obs=y)


def seen(model, *data):
    settings = SGWORLD(model).sampler.settings
    return check_model(np.random.default_rng(0), model, settings, data, {}, {}).model


def test_the_assignments_of_a_mixture_are_summed_out_in_minibatches():
    model, expected = seen(mixture, Y), seen(by_hand, Y)
    assert model.reason is None and model.additive == {SUMMED}
    assert model.latents == expected.latents
    rows = (jnp.asarray(Y[50:60]),)
    for seed in range(3):
        flat = jax.random.normal(jax.random.key(seed), (model.dimension,))
        value, slope = jax.value_and_grad(model.log_density)(flat, rows, ())
        same, same_slope = jax.value_and_grad(expected.log_density)(flat, rows, ())
        np.testing.assert_allclose(value, same, rtol=1e-5)
        np.testing.assert_allclose(slope, same_slope, rtol=1e-3, atol=1e-2)


def test_what_no_discrete_site_touches_is_judged_by_itself():
    """A prior that is written as a factor, and observations beside the mixture's."""

    def model(y, x):
        mu = numpyro.sample("mu", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.factor("prior", dist.Normal(0, 3).log_prob(mu))
        with numpyro.plate("rows", len(y)):
            z = numpyro.sample("z", dist.Bernoulli(0.3), infer={"enumerate": "parallel"})
            numpyro.sample("y", dist.Normal(mu * z, 1), obs=y)
            numpyro.sample("x", dist.Normal(mu, 2), obs=x)

    rng = np.random.default_rng(0)
    y, x = rng.standard_normal((2, 200)).astype(np.float32)
    found = seen(model, y, x)
    assert found.reason is None and found.additive == {SUMMED, "x"}
    mu = 0.7
    each = (
        np.logaddexp(np.log(0.3) - (y - mu) ** 2 / 2, np.log(0.7) - y**2 / 2)
        - np.log(2 * np.pi) / 2
    )
    other = dist.Normal(mu, 2).log_prob(x)
    expected = dist.Normal(0, 3).log_prob(mu) + 20 * (each[:10].sum() + other[:10].sum())
    rows = jnp.asarray(y[:10]), jnp.asarray(x[:10])
    np.testing.assert_allclose(found.log_density(jnp.array([mu]), rows, ()), expected, rtol=1e-5)


@pytest.mark.slow
def test_draws_agree_with_those_of_the_sum_by_hand():
    draws = []
    for model in (mixture, by_hand):
        mcmc = SGWORLD(model, num_samples=2000)
        mcmc.run(KEY, Y)
        assert mcmc.plan.dynamics.num_batches > 1
        draws.append(mcmc.get_samples())
    for name in ("weights", "centers", "scale"):
        a, b = (np.asarray(each[name], float) for each in draws)
        assert np.all(np.abs(a.mean(0) - b.mean(0)) < 0.1 * b.std(0))
        np.testing.assert_allclose(a.std(0), b.std(0), rtol=0.07)


def test_one_for_all_rows_needs_all_rows():
    mcmc = SGWORLD(change_point, **QUICK)
    with pytest.warns(WholeDataWarning, match="discrete sites summed out"):
        mcmc.run(KEY, Y)
    assert set(mcmc.get_samples()) == {"level"}
    model = mcmc.data.model
    flat = jnp.array([-2.0, 2.0])
    prior = dist.Normal(0, 3).log_prob(flat).sum()
    either = [dist.Normal(level, 1).log_prob(Y) for level in flat]
    every = [
        either[0][:when].sum() + either[1][when:].sum() - np.log(len(Y)) for when in range(len(Y))
    ]
    expected = prior + jax.nn.logsumexp(jnp.array(every))
    row = (jnp.zeros(1),)
    np.testing.assert_allclose(model.log_density(flat, row, (jnp.asarray(Y),)), expected, rtol=1e-5)


def test_what_cannot_be_enumerated_is_named():
    def counts(y):
        z = numpyro.sample("z", dist.Poisson(3.0))
        numpyro.sample("y", dist.Normal(numpyro.sample("mu", dist.Normal(0, 1)) + z, 1), obs=y)

    def only_discrete(y):
        z = numpyro.sample("z", dist.Bernoulli(0.5))
        numpyro.sample("y", dist.Normal(z, 1), obs=y)

    with pytest.raises(ValueError, match=r"\['z'\] are discrete without a finite number"):
        SGWORLD(counts).run(KEY, Y)
    with pytest.raises(ValueError, match="no continuous latent site"):
        SGWORLD(only_discrete).run(KEY, Y)


def test_a_missing_funsor_is_named(monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("numpyro.contrib.funsor"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match="pip install funsor"):
        SGWORLD(mixture).run(KEY, Y)
