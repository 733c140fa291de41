"""Where chains start: at given points, or apart if they were given apart; and schedules."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import MCMC

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.exact import GaussianMean

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
Y = np.random.default_rng(0).normal(5, 1, 200)
QUICK = {"num_samples": 30, "num_warmup": 3, "step_size": 0.3, "batch_size": 20, "num_chains": 2}
QUICK["gradient"] = "plain"
APART = {"x": np.array([5.0, -5.0])}


def two_modes(y):
    x = numpyro.sample("x", dist.Normal(0, 10))
    numpyro.sample("y", dist.Normal(jnp.abs(x), 1), obs=y)


def signs(mcmc):
    return np.sign(np.asarray(mcmc.get_samples(group_by_chain=True)["x"])).mean(1)


@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_each_chain_starts_where_it_is_told(method):
    mcmc = SGWORLD(two_modes, start="given", chain_method=method, **QUICK)
    mcmc.run(KEY, Y, init_params=APART)
    np.testing.assert_array_equal(signs(mcmc), [1, -1])


@pytest.mark.parametrize("chains", [1, 3])
def test_one_point_is_for_all_chains(chains):
    mcmc = SGWORLD(two_modes, start="given", **QUICK | {"num_chains": chains})
    mcmc.run(KEY, Y, init_params={"x": -5.0})
    np.testing.assert_array_equal(signs(mcmc), [-1] * chains)


def test_nothing_is_searched(monkeypatch):
    monkeypatch.setattr(
        "sgworld_mcmc.setup.find_posterior.fit_coordinates", lambda *_: pytest.fail("searched")
    )
    mcmc = SGWORLD(two_modes, start="given", **QUICK)
    mcmc.run(KEY, Y, init_params={"x": 4.9})
    assert mcmc.plan.fit.coordinates.center == pytest.approx([4.9])


def test_a_plain_mcmc_starts_there_too():
    kernel = SGWORLD(two_modes, start="given", **QUICK).sampler
    mcmc = MCMC(
        kernel,
        num_warmup=3,
        num_samples=30,
        num_chains=2,
        chain_method="vectorized",
        progress_bar=False,
    )
    mcmc.run(KEY, Y, init_params={"x": jnp.array([5.0, -5.0])})
    np.testing.assert_array_equal(signs(mcmc), [1, -1])


def test_a_search_from_points_far_apart_keeps_the_chains_apart():
    mcmc = SGWORLD(two_modes, **QUICK)
    mcmc.run(KEY, Y, init_params={"x": np.array([3.0, -8.0])})
    np.testing.assert_array_equal(signs(mcmc), [1, -1])
    # Points that lead to one mode are one search, as before.
    mcmc.run(KEY, Y, init_params={"x": np.array([3.0, 8.0])})
    np.testing.assert_array_equal(signs(mcmc), [1, 1])
    assert mcmc.plan.fit.modes is None


def test_a_step_size_schedule_is_followed_and_gives_the_weights():
    target = GaussianMean()
    schedule = optax.exponential_decay(0.4, 50, 0.9)
    settings = {"batch_size": 100, "gradient": "plain", "steps_per_draw": 10, "num_warmup": 5}
    mcmc = SGLD(target.model, step_size=schedule, num_samples=20, **settings)
    mcmc.run(KEY, *target.data)
    assert mcmc.plan.measurements is None  # everything was given
    used = np.asarray(mcmc.get_extra_fields(group_by_chain=True)["step_size"])
    last = mcmc.last_state.step[0] - 10 * np.arange(20)[::-1]
    # A draw's steps are those of its segments, each with the step size of its first step.
    segment = mcmc.plan.dynamics.segment
    np.testing.assert_allclose(used[0], schedule(last - segment), rtol=1e-5)
    with pytest.raises(ValueError, match="constant `step_size`"):
        mcmc.bias_report(control=True)


def test_a_temperature_schedule_ends_at_the_posterior():
    target = GaussianMean()
    cooling = optax.linear_schedule(30.0, 1.0, 300)
    mcmc = SGWORLD(target.model, temperature=cooling, num_warmup=400, num_samples=2000)
    mcmc.run(KEY, *target.data)
    compared = target.compare(mcmc.get_samples())
    assert np.abs(compared.sd_ratio - 1).max() < 0.07
    hot = SGWORLD(target.model, temperature=cooling, num_warmup=1, num_samples=200)
    with pytest.warns(UserWarning, match="temperature still changes"):
        hot.run(KEY, *target.data)


def curves(x, y):
    """A network, whose potential is convex nowhere near its posterior."""
    w = numpyro.sample("w", dist.Normal(0, 2).expand([8]).to_event(1))
    b = numpyro.sample("b", dist.Normal(0, 1).expand([8]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, 0.5).expand([8]).to_event(1))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(jnp.tanh(x[:, None] * w + b) @ v, 0.2), obs=y)


@pytest.mark.slow
def test_a_network_goes_on_from_draws_of_its_posterior():
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 200).astype(np.float32)
    y = (np.sin(2 * x) + 0.2 * rng.normal(size=200)).astype(np.float32)
    first = SGWORLD(curves, num_chains=4, num_samples=500, progress_bar=False)
    first.run(KEY, x, y)
    draws = first.get_samples(group_by_chain=True)
    ends = {site: np.asarray(value[:, -1]) for site, value in draws.items()}
    again = SGWORLD(curves, num_chains=4, num_samples=500, start="given", progress_bar=False)
    again.run(jax.random.key(1), x, y, init_params=ends)
    assert again.plan.kinetic is not None

    def predictions(mcmc):
        s = mcmc.get_samples()
        grid = jnp.linspace(-2, 2, 9)
        hidden = jnp.tanh(grid[:, None, None] * s["w"] + s["b"][None])
        return np.asarray((hidden * s["v"]).sum(-1)).T

    one, other = predictions(first), predictions(again)
    assert np.abs((one.mean(0) - other.mean(0)) / one.std(0)).max() < 0.3
    assert np.abs(np.log(other.std(0) / one.std(0))).max() < 0.3
