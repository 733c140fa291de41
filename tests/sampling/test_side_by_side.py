"""Chains in groups, each in a thread of its own, give the draws of chains in one group."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.infer import kernel
from sgworld_mcmc.sampling import side_by_side
from sgworld_mcmc.sampling.side_by_side import join_chains, split_chains

Y = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)


def model(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([3]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1).to_event(1), obs=y)


def run(chains=4, **settings):
    mcmc = SGWORLD(
        model,
        dynamics="kinetic",
        num_chains=chains,
        num_samples=30,
        num_warmup=3,
        batch_size=10,
        step_size=0.05,
        friction=1.0,
        **settings,
    )
    mcmc.run(jax.random.key(3), Y, extra_fields=("potential_energy",))
    return mcmc


@pytest.mark.parametrize(("cores", "chains"), [(2, 4), (4, 4), (3, 4), (2, 3)])
def test_draws_do_not_depend_on_the_number_of_cores(monkeypatch, cores, chains):
    monkeypatch.setattr(side_by_side, "_cores", lambda: 1)
    alone = run(chains)
    monkeypatch.setattr(side_by_side, "_cores", lambda: cores)
    together = run(chains)
    for get in ("get_samples", "get_extra_fields"):
        one = getattr(alone, get)(group_by_chain=True)
        other = getattr(together, get)(group_by_chain=True)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), one, other
        )
    np.testing.assert_array_equal(
        jax.random.key_data(alone.last_state.rng_key),
        jax.random.key_data(together.last_state.rng_key),
    )
    # A run goes on from the joined state.
    together.post_warmup_state = together.last_state
    together.run(together.last_state.rng_key, Y)
    assert together.get_samples(group_by_chain=True)["mu"].shape == (chains, 30, 3)


def test_large_draws_are_made_in_one_group(monkeypatch):
    monkeypatch.setattr(side_by_side, "_cores", lambda: 2)
    both = run().get_samples()["mu"]
    monkeypatch.setattr(side_by_side, "MOST_BYTES", 0)
    np.testing.assert_allclose(run().get_samples()["mu"], both, rtol=1e-4, atol=1e-5)


def test_chains_of_many_parameters_one_after_the_other_have_the_same_draws(monkeypatch):
    together = run().get_samples()["mu"]
    monkeypatch.setattr(kernel, "ONE_BY_ONE", 1)
    np.testing.assert_allclose(run().get_samples()["mu"], together, rtol=1e-4, atol=1e-5)


def test_parts_are_joined_to_what_was_split(monkeypatch):
    monkeypatch.setattr(side_by_side, "_cores", lambda: 2)
    tree = {"x": jnp.arange(12.0).reshape(4, 3), "key": jax.random.split(jax.random.key(0), 4)}
    parts = split_chains(tree)
    assert [part["x"].shape for part in parts] == [(2, 3), (2, 3)]
    joined = join_chains(parts)
    np.testing.assert_array_equal(joined["x"], tree["x"])
    assert bool(jnp.all(joined["key"] == tree["key"]))
