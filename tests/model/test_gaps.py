"""Data with gaps that the model itself looks for."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, WholeDataWarning

KEY = jax.random.key(0)


def line(size):
    rng = np.random.default_rng(0)
    x = rng.normal(size=size)
    return x, 1 + 2 * x + rng.normal(size=size)


def masked(x, y):
    coefficients = numpyro.sample("coefficients", dist.Normal(0, 5).expand([2]).to_event(1))
    with numpyro.plate("rows", len(y)), numpyro.handlers.mask(mask=~jnp.isnan(y)):
        mean = coefficients[0] + coefficients[1] * x
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=y)


@pytest.mark.slow
def test_rows_that_the_model_masks_may_be_missing():
    x, y = line(2000)
    y[::7] = np.nan
    there = ~np.isnan(y)
    design = np.stack([np.ones(there.sum()), x[there]], 1)
    precision = design.T @ design + np.eye(2) / 25
    mean, sd = np.linalg.solve(precision, design.T @ y[there]), 1 / np.sqrt(np.diag(precision))
    mcmc = SGWORLD(masked, num_samples=500)
    mcmc.run(KEY, x, y)
    draws = mcmc.get_samples()["coefficients"]
    assert mcmc.plan.dynamics.num_batches > 1
    assert (np.abs(draws.mean(0) - mean) < 0.15 * sd).all()
    assert (np.abs(draws.std(0) / sd - 1) < 0.08).all()


@pytest.mark.slow
def test_latent_values_in_the_place_of_gaps():
    def imputed(x, y):
        gaps = np.nonzero(np.isnan(x))[0]
        values = numpyro.sample("values", dist.Normal(0, 1).expand([len(gaps)]).to_event(1))
        numpyro.sample("y", dist.Normal(2 * jnp.asarray(x).at[gaps].set(values), 1.0), obs=y)

    x, y = line(60)
    x[[3, 40]] = np.nan
    with pytest.warns(WholeDataWarning):
        mcmc = SGWORLD(imputed, num_samples=500)
        mcmc.run(KEY, x, y)
    # A standard normal prior, and one observation of twice the value with variance one.
    draws = mcmc.get_samples()["values"]
    np.testing.assert_allclose(draws.mean(0), 2 * y[[3, 40]] / 5, atol=0.15 / 5**0.5)
    np.testing.assert_allclose(draws.std(0), 5**-0.5, rtol=0.08)


def test_gaps_that_the_model_does_not_look_for_are_named():
    def plain(x, y):
        slope = numpyro.sample("slope", dist.Normal(0, 5))
        numpyro.sample("y", dist.Normal(slope * x, 1.0), obs=y)

    x, y = line(100)
    x[5] = np.nan
    with pytest.raises(ValueError, match=r"`x` has NaN or infinity in 1 of 100 rows .* row 5"):
        SGWORLD(plain).run(KEY, x, y)
