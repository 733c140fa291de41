"""Models that are fitted one after another in one process: nothing of them is left."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGLD, SGWORLD

KEY = jax.random.key(0)
SOME = {"num_samples": 20, "num_warmup": 2, "progress_bar": False}
QUICK = {**SOME, "gradient": "plain", "preconditioner": "none", "step_size": 1e-3, "batch_size": 50}


def rows_of_a_model():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((400, 2)).astype(np.float32)

    def model(x, y=None):
        b = numpyro.sample("b", dist.Normal(0, 1).expand([2]).to_event(1))
        with numpyro.plate("rows", len(x)):
            numpyro.sample("y", dist.Normal(x @ b, 1), obs=y)

    return model, (x, x @ np.ones(2, np.float32))


def a_latent_for_each_row():
    def model(y):
        center = numpyro.sample("center", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            latent = numpyro.sample("latent", dist.Normal(center, 1))
            numpyro.sample("y", dist.Normal(latent, 1), obs=y)

    return model, (np.linspace(-1, 1, 10, dtype=np.float32),)


def groups():
    def model(group, y):
        with numpyro.plate("groups", 20):
            effect = numpyro.sample("effect", dist.Normal(0, 1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Normal(effect[group], 1), obs=y)

    return model, (np.arange(3000) % 20, np.linspace(-1, 1, 3000, dtype=np.float32))


def a_network():
    def model(x, y):
        w = numpyro.sample("w", dist.Normal(0, 1).expand([3, 500]).to_event(2))
        numpyro.sample("y", dist.Normal(jnp.tanh(x @ w).mean(1), 1), obs=y)

    x = np.random.default_rng(0).standard_normal((60, 3)).astype(np.float32)
    return model, (x, x[:, 0])


def left_of(sampler, make, tmp_path=None, **settings):
    """Return what is still there of a user's model, and of what was compiled for it."""
    model, data = make()
    if tmp_path is not None:
        for number, x in enumerate(data):
            np.save(tmp_path / f"{number}.npy", x)
        data = [np.load(tmp_path / f"{n}.npy", mmap_mode="r") for n in range(len(data))]
    mcmc = sampler(model, **settings)
    mcmc.run(KEY, *data)
    mcmc.bias_report(), mcmc.get_samples(), mcmc.to_arviz()
    there = [weakref.ref(x) for x in (model, mcmc.data.model, mcmc.sampler)]
    del mcmc, model, data
    gc.collect()
    return [x() for x in there if x() is not None]


@pytest.mark.parametrize("sampler", [SGWORLD, SGLD])
def test_a_model_goes_with_what_was_compiled_for_it(sampler):
    assert left_of(sampler, rows_of_a_model, **QUICK) == []


def test_a_model_on_streamed_rows_goes_too(tmp_path):
    assert left_of(SGWORLD, rows_of_a_model, tmp_path, stream=True, **QUICK) == []


@pytest.mark.slow
@pytest.mark.parametrize("made", [rows_of_a_model, a_latent_for_each_row, groups, a_network])
def test_models_of_all_kinds_go_after_a_run_with_nothing_set(made):
    assert left_of(SGWORLD, made, **SOME) == []
