"""Models with functions that do not promote types, such as convolutions."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD


def convolution(x, y):
    """Regress on the mean of a convolved image; ``jax.lax.conv`` wants equal types."""
    kernel = numpyro.sample("kernel", dist.Normal(0, 1).expand([1, 1, 3, 3]).to_event(4))
    seen = jax.lax.conv(x[:, None], kernel, window_strides=(1, 1), padding="SAME")
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(jnp.tanh(seen).mean((1, 2, 3)), 0.1), obs=y)


@pytest.mark.slow
def test_a_convolution_of_single_precision_runs_as_under_nuts():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 4, 4)).astype(np.float32)
    y = x.mean((1, 2)).astype(np.float32)
    mcmc = SGWORLD(convolution, num_samples=20, num_warmup=10, num_chains=1)
    mcmc.run(jax.random.key(0), x, y)
    assert mcmc.get_samples()["kernel"].shape == (20, 1, 1, 3, 3)
