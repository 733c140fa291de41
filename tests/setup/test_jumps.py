"""Log densities that jump are told from those with kinks, and from smooth ones."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD

KEY = jax.random.key(0)
_rng = np.random.default_rng(0)
T = _rng.uniform(0, 1, 3000).astype(np.float32)
Y = (np.where(T < 0.37, 0.0, 0.5) + _rng.standard_normal(3000)).astype(np.float32)


def change_point(t, y):
    tau = numpyro.sample("tau", dist.Uniform(0, 1))
    levels = numpyro.sample("levels", dist.Normal(0, 5).expand([2]).to_event(1))
    with numpyro.plate("rows", len(t)):
        numpyro.sample("y", dist.Normal(jnp.where(t < tau, *levels), 1.0), obs=y)


def change_of_slope(t, y):
    tau = numpyro.sample("tau", dist.Uniform(0, 1))
    levels = numpyro.sample("levels", dist.Normal(0, 5).expand([2]).to_event(1))
    mean = levels[0] + levels[1] * jnp.maximum(t - tau, 0)
    with numpyro.plate("rows", len(t)):
        numpyro.sample("y", dist.Laplace(mean, 1.0), obs=y)


def smooth_step(t, y):
    tau = numpyro.sample("tau", dist.Uniform(0, 1))
    levels = numpyro.sample("levels", dist.Normal(0, 5).expand([2]).to_event(1))
    later = jax.nn.sigmoid((t - tau) / 0.02)
    with numpyro.plate("rows", len(t)):
        numpyro.sample("y", dist.Normal(levels[0] + levels[1] * later, 1.0), obs=y)


@pytest.mark.slow
def test_draws_of_a_change_point_are_warned_of_by_its_name():
    """Its draws are those of the prior: nothing else in the run says so."""
    mcmc = SGWORLD(change_point, num_samples=100, progress_bar=False)
    with pytest.warns(UserWarning, match="The log density jumps along 'tau': a comparison"):
        mcmc.run(KEY, T, Y)
    assert "! The log density jumps along 'tau'" in str(mcmc.bias_report())


@pytest.mark.parametrize("model", [change_of_slope, smooth_step])
def test_kinks_and_smooth_steps_are_none(model):
    mcmc = SGWORLD(model, progress_bar=False)
    assert mcmc.set_up(KEY, T, Y).fit.jumps == ()


def test_streamed_rows_are_looked_at_too(tmp_path):
    np.save(tmp_path / "t", T), np.save(tmp_path / "y", Y)
    mapped = (np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "ty")
    mcmc = SGWORLD(change_point, stream=True, progress_bar=False)
    assert mcmc.set_up(KEY, *mapped).fit.jumps == ("tau",)
