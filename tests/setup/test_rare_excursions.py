"""Posteriors whose tails are stiff: a step that is too large is seen in rare excursions only."""

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD

EFFECT = np.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
ERROR = np.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])


def schools(effect, error, school):
    mu = numpyro.sample("mu", dist.Normal(0, 10))
    tau = numpyro.sample("tau", dist.HalfNormal(10))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([8]).to_event(1))
    with numpyro.plate("data", 8):
        numpyro.sample("effect", dist.Normal(mu + tau * z[school], error), obs=effect)


def exact_scale():
    """Mean and standard deviation of the scale, the schools' effects integrated out; on a grid."""
    mu, log_tau = np.meshgrid(np.linspace(-30, 40, 501), np.linspace(-9, 5, 1501), indexing="ij")
    tau = np.exp(log_tau)
    log = -0.5 * (mu / 10) ** 2 - 0.5 * (tau / 10) ** 2 + log_tau
    for y, s in zip(EFFECT, ERROR, strict=True):
        variance = s**2 + tau**2
        log -= 0.5 * np.log(variance) + 0.5 * (y - mu) ** 2 / variance
    weight = np.exp(log - log.max())
    mean = (weight * tau).sum() / weight.sum()
    return mean, np.sqrt((weight * (tau - mean) ** 2).sum() / weight.sum())


@pytest.mark.slow
def test_eight_schools_are_right_whatever_the_key():
    """Large scales are stiff: a step of 0.25 throws a chain far out, once in thousands of steps."""
    mean, sd = exact_scale()
    first = SGWORLD(schools, num_chains=4, num_samples=1000, progress_bar=False)
    errors = []
    for key in range(8):
        mcmc = SGWORLD(schools, num_chains=4, num_samples=1000, progress_bar=False)
        mcmc.sampler.share(first.sampler)
        mcmc.run(jax.random.key(key), EFFECT, ERROR, np.arange(8))
        errors.append((mcmc.get_samples()["tau"].mean() - mean) / sd)
    # About 800 effective draws: one standard error of a mean is 0.035 standard deviations.
    assert np.abs(errors).max() < 0.14 and abs(np.mean(errors)) < 0.05
