"""Pilot chains follow the gradients of the model, however many of them are computed together."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD

RNG = np.random.default_rng(206)
GROUP, TOTAL = RNG.integers(0, 2, 60), RNG.integers(10, 80, 60)
COUNT = RNG.binomial(TOTAL, RNG.beta(np.array([3.0, 4.0])[GROUP], 5.0))


def beta_binomial(group, total, count):
    """XLA (jaxlib 0.10.2, CPU) computes the gradients of 128 points together wrongly."""
    a = numpyro.sample("a", dist.Normal(0, 1.5).expand([2]))
    theta = numpyro.sample("phi", dist.Exponential(1)) + 2
    mean = 1 / (1 + jnp.exp(-a[group]))
    numpyro.sample("y", dist.BetaBinomial(mean * theta, (1 - mean) * theta, total), obs=count)


@pytest.mark.slow
def test_pilot_chains_find_the_posterior_near_its_mode():
    plan = SGWORLD(beta_binomial).set_up(jax.random.key(0), GROUP, TOTAL, COUNT)
    found = plan.measurements
    assert found.lost == 0 and not found.recentred
    assert np.all(np.abs(found.steps.displacement) < 1)
    np.testing.assert_allclose(found.starts.std(0), 1, atol=0.4)
    assert plan.choice.met and plan.step_size > 0.1
