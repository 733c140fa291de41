"""Modes beside the one at which the chains are: found where they are, and nowhere else."""

from types import SimpleNamespace

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.diagnostics import to_arviz
from sgworld_mcmc.setup.other_modes import Mode, heaviest

RNG = np.random.default_rng(7)
NOISE = RNG.normal(size=40)
TWO = np.concatenate([RNG.normal(-1.5, 1, 30), RNG.normal(1.5, 1, 20)])


def square(y, center=0.3, scale=1.0):
    """The posterior of theta is the prior times an even function."""
    theta = numpyro.sample("theta", dist.Normal(center, scale))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(theta**2, 0.5), obs=y)


def product(y):
    """Half of the likelihood is where both factors are negative."""
    a, b = numpyro.sample("a", dist.Normal(0.3, 1)), numpyro.sample("b", dist.Normal(0.3, 1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(a * b, 1), obs=y)


def mixture(y):
    """The smaller component may be either of the two, with unequal probabilities."""
    means = numpyro.sample("means", dist.Normal(0, 3).expand([2]).to_event(1))
    parts = dist.MixtureSameFamily(dist.Categorical(np.array([0.6, 0.4])), dist.Normal(means, 1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", parts, obs=y)


def regression(y):
    """Far from the mode the potential is not convex, but there is one mode only."""
    mu, sigma = numpyro.sample("mu", dist.Normal(0, 100)), numpyro.sample("s", dist.HalfNormal(9))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, sigma), obs=y)


def others(model, *args, keys=8, **settings):
    """Return for each key the distances of the other modes that the set-up found."""
    mcmc = SGWORLD(model, **settings)
    return [mcmc.set_up(jax.random.key(key), *args).fit.other_modes for key in range(keys)]


@pytest.mark.parametrize(
    ("model", "rows"), [(square, 1 + 0.5 * NOISE), (product, 1.2 + NOISE[:25]), (mixture, TWO)]
)
def test_a_second_mode_is_found_with_any_key(model, rows):
    found = others(model, rows)
    assert all(len(each) == 1 for each in found)
    # From the heavier mode or from the other, which has another width.
    np.testing.assert_allclose(np.log(found), np.log(found[0][0]), atol=0.3)


def test_the_distance_is_that_in_posterior_standard_deviations():
    """At theta = +-m the potential's second derivative is 4 m^2 N / 0.25 + 1, nearly."""
    (found,) = others(square, 1 + 0.5 * NOISE, 0.0, keys=1)
    mean = np.mean(1 + 0.5 * NOISE)
    expected = 2 * np.sqrt(mean) * np.sqrt(16 * mean * 40 + 1)
    assert found == (pytest.approx(expected, rel=0.02),)


def test_a_mode_of_no_weight_is_not_spoken_of():
    """The prior is 200 nats lower at the second mode."""
    assert others(square, 1 + 0.5 * NOISE, 1.0, 0.1, keys=4) == [()] * 4


def test_one_mode_is_one_however_far_the_search_begins():
    assert others(regression, 60 + NOISE, keys=4) == [()] * 4


def test_modes_between_which_chains_pass_are_one():
    """The density between the modes is hardly lower than at them."""
    assert others(square, 0.05 + 0.5 * NOISE[:4] - 0.5 * NOISE[:4].mean(), 0.0, keys=2) == [()] * 2


def test_streamed_rows_have_other_modes_too(tmp_path):
    path = tmp_path / "rows.npy"
    np.save(path, np.concatenate([1 + 0.5 * NOISE] * 500).astype(np.float32))
    found = others(square, np.load(path, mmap_mode="r"), keys=2, stream=True)
    mean = np.mean(1 + 0.5 * NOISE)
    expected = 2 * np.sqrt(mean) * np.sqrt(16 * mean * 20000 + 1)
    assert found == [(pytest.approx(expected, rel=0.02),)] * 2


def test_points_that_a_user_gives_lead_to_their_own_mode():
    mcmc = SGWORLD(square, num_samples=50, num_chains=2)
    start = {"theta": np.array([-1.0, -0.9])}
    mcmc.run(jax.random.key(0), 1 + 0.5 * NOISE, init_params=start)
    assert np.all(to_arviz(mcmc).posterior["theta"] < 0)


def test_a_mode_that_is_little_heavier_does_not_take_the_place_of_the_first():
    end = SimpleNamespace(position=np.zeros(1))
    first, alike, heavy = (Mode(end, None, nats) for nats in (0.0, 2.0, 7.0))
    assert heaviest([first, alike]) is first
    assert heaviest([first, alike, heavy]) is heavy
