"""Posteriors that are far from the Gaussian at their mode: a banana of a hierarchy's scale."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_from_pilots import adapted, is_far, without_strays
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.posterior import Posterior

GROUPS, SIGMA = 30, 0.7


def hierarchy(y, group):
    """Non-centred though every group has many rows: t z is known far better than t or z are."""
    m = numpyro.sample("m", dist.Normal(0, 2))
    t = numpyro.sample("t", dist.HalfNormal(1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([GROUPS]).to_event(1))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(m + t * z[group], SIGMA), obs=y)


def data(rows):
    rng = np.random.default_rng(8)
    group = np.repeat(np.arange(GROUPS), rows)
    effect = 1 + 0.8 * rng.normal(size=GROUPS)
    return effect[group] + SIGMA * rng.normal(size=group.size), group


def exact(y, rows):
    """Means and sds of m and t, the groups' effects integrated out; on a grid."""
    means = y.reshape(GROUPS, rows).mean(1)
    m, t = np.meshgrid(np.linspace(-0.5, 2.5, 400), np.linspace(0.3, 2.5, 600), indexing="ij")
    variance = t**2 + SIGMA**2 / rows
    log = -0.5 * (m / 2) ** 2 - 0.5 * t**2 - 0.5 * GROUPS * np.log(variance)
    log -= sum(0.5 * (mean - m) ** 2 / variance for mean in means)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    average = lambda x: (weight * x).sum()  # noqa: E731
    return {
        name: (average(x), np.sqrt(average(x**2) - average(x) ** 2))
        for name, x in (("m", m), ("t", t))
    }


@pytest.mark.parametrize("rows", [20, 100])
@pytest.mark.slow
def test_non_centred_hierarchy_with_many_rows_in_each_group(rows):
    y, group = data(rows)
    mcmc = SGWORLD(hierarchy, num_chains=4, num_samples=1000)
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        mcmc.run(jax.random.key(0), jnp.asarray(y, jnp.float32), jnp.asarray(group))
    draws = mcmc.get_samples()
    for name, (mean, sd) in exact(y, rows).items():
        assert abs(np.mean(draws[name]) - mean) < 0.15 * sd, name
        assert np.std(draws[name]) == pytest.approx(sd, rel=0.1), name


def test_when_coordinates_are_changed():
    ones = np.ones(2)
    pilot = Pilot(0.125, 0 * ones, 0.1 * ones, ones, 0.1 * ones, 0.0)
    center = CoordinateFit(Dense(np.zeros(2), np.eye(2)), np.eye(2), True, 0.0, 0, ())
    curved = center._replace(fitted=True, by_curvature=True)
    assert not is_far([pilot], center)
    wide, narrow = (pilot._replace(variance=scale * ones) for scale in (3.0, 0.2))
    shifted = pilot._replace(mean=ones)
    gone = pilot._replace(variance=np.nan * ones, diverged=0.9)
    assert all(is_far([one], center) for one in (wide, narrow, shifted, gone))
    # In coordinates of the curvature it may be wide, and there are no others to go to.
    assert not is_far([wide], curved) and not is_far([gone], curved)
    assert is_far([shifted], curved)
    # Covariances that lost chains at larger steps are given up.
    assert is_far([pilot, gone], center._replace(fitted=True))


def overflowing(y):
    """exp(exp(x)) in the far right tail: draws of the Gaussian at the mode meet infinities."""
    x = numpyro.sample("x", dist.Normal(0, 50).expand([3]).to_event(1))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Poisson(jnp.exp(jnp.exp(x / 5).sum() - 4)), obs=y)


@pytest.mark.slow
def test_where_the_density_overflows_the_draws_are_right_all_the_same():
    """Against sums over a grid; draws a thousand steps apart are better than a larger error."""
    x = np.linspace(-300, 20, 161)
    rate = np.exp(np.exp(x / 5)[:, None, None] + np.exp(x / 5)[:, None] + np.exp(x / 5) - 4)
    squares = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2
    weight = np.exp(-20 * rate - squares / (2 * 50**2)).sum((1, 2))
    mean = np.average(x, weights=weight)
    sd = np.sqrt(np.average((x - mean) ** 2, weights=weight))

    mcmc = SGWORLD(overflowing, num_samples=1000)
    mcmc.run(jax.random.key(0), jnp.zeros(20))
    draws = np.asarray(mcmc.get_samples()["x"], float)
    assert np.all(np.abs(draws.mean(0) - mean) < 0.1 * sd)
    np.testing.assert_allclose(draws.std(0), sd, rtol=0.07)


class Cliff(Posterior):
    """A potential of curvature 4 within a distance of the origin; not finite beyond."""

    def hessian(self, position, used=None):
        inside = np.linalg.norm(position) < self.temperature
        return 4 * np.eye(2) if inside else np.full((2, 2), np.nan)


def test_curvature_is_that_of_the_draws_where_it_is_finite():
    center = CoordinateFit(Dense(np.zeros(2), np.eye(2)), np.eye(2), True, 0.0, 0, ())
    cliff = Cliff(*[None] * 6, center, 1.0)
    positions = np.array([[0.5, 0.0], [-0.5, 0.0], [0.0, 3.0], [0.0, -3.0]])
    found, moved = adapted(cliff, positions, True)
    assert found.fit.by_curvature and found.fit.stiffness == pytest.approx(1.0)
    coordinates = found.fit.coordinates
    np.testing.assert_allclose(coordinates.covariance(), np.eye(2) / 4)
    np.testing.assert_allclose(coordinates.to_model(moved), positions)
    # Around a point where there is no Hessian nothing changes.
    far, same = adapted(cliff, positions + 5, True)
    assert far is cliff and same[0, 0] == 5.5


def test_strays_are_left_out_unless_they_are_many():
    rng = np.random.default_rng(0)
    positions = rng.normal(size=(100, 5)) * [1, 10, 0.1, 1, 1]
    np.testing.assert_array_equal(without_strays(positions), positions)
    positions[[3, 50], [0, 2]] = 400.0, -5.0
    kept = without_strays(positions)
    assert len(kept) == 98 and abs(kept).max() < 100
    positions[:40, 4] += 100.0  # another mode
    assert len(without_strays(positions)) == 100


def clinics(clinic, x, y):
    """Non-centred, whose mode lies at twice to seven times the scale of the mass."""
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    tau = numpyro.sample("tau", dist.HalfCauchy(1))
    b = numpyro.sample("b", dist.Normal(0, 1))
    with numpyro.plate("clinics", 40):
        level = mu + tau * numpyro.sample("alpha_decentered", dist.Normal(0, 1))
    with numpyro.plate("rows", x.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=level[clinic] + b * x), obs=y)


@pytest.mark.slow
@pytest.mark.parametrize("key", [0, 1, 4])
def test_a_mode_that_is_far_from_the_mass_is_left_whatever_the_key(key):
    rng = np.random.default_rng(5)
    clinic, x = np.repeat(np.arange(40), 150), rng.normal(size=6000)
    logits = -1 + 0.6 * rng.normal(size=40)[clinic] + 0.5 * x
    y = (rng.random(6000) < 1 / (1 + np.exp(-logits))).astype(float)
    mcmc = SGWORLD(clinics, progress_bar=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error", TuningWarning)
        mcmc.run(jax.random.key(key), clinic, x, y)
    # The intercepts of 40 clinics, each known to 0.2, have nearly the marginal scale.
    tau = mcmc.get_samples()["tau"]
    assert 0.4 < tau.mean() < 0.8 and 0.05 < tau.std() < 0.12
    assert mcmc.plan.measurements.lost == 0
