"""The memory of a run, beside the draws that are kept."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGWORLD, memory

# Peak memory is reset and read for the second run: the first one has compiled all programs.
PROGRAM = """
import ctypes, gc, sys
import jax, jax.numpy as jnp, numpyro, numpyro.distributions as dist
from sgworld_mcmc import SGWORLD

def status(name):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))

def model(X, y):
    w = numpyro.sample("w", dist.Normal(0, 1).expand([20, 5000]).to_event(2))
    numpyro.sample("y", dist.Normal(jnp.tanh(X @ w).mean(1), 1), obs=y)

mcmc = SGWORLD(
    model, chain_method=sys.argv[1], num_samples=200, num_warmup=1, num_chains=4,
    batch_size=10, step_size=0.1, friction=1.0, steps_per_draw=2,
)
X = jax.random.normal(jax.random.key(1), (40, 20))
data = X, X[:, 0]
mcmc.run(jax.random.key(0), *data)
kept = sum(x.nbytes for x in jax.tree.leaves(mcmc._states))
mcmc._states = mcmc._states_flat = None
gc.collect()
ctypes.CDLL("libc.so.6").malloc_trim(0)
with open("/proc/self/clear_refs", "w") as file:
    file.write("5")
before = status("VmRSS")
mcmc.run(jax.random.key(2), *data)
mcmc.get_samples(group_by_chain=True)
mcmc.get_samples()
mcmc.get_extra_fields()
print((status("VmHWM") - before) / kept, kept)
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="reads Linux's /proc")
@pytest.mark.parametrize("method", ["vectorized", "sequential"])
def test_a_run_takes_little_more_memory_than_its_draws(method):
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM, method],
        capture_output=True,
        text=True,
        check=True,
    )
    ratio, kept = map(float, made.stdout.split())
    assert kept >= 4 * 200 * 100_000 * 4
    # A copy of all draws would make it two or more.
    assert 0.9 < ratio < 1.3


def _wide(y):
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([50]).to_event(1))
    numpyro.deterministic("all_of_them", jnp.tile(mu, 40))
    with numpyro.plate("rows", y.shape[0]):
        numpyro.sample("y", dist.Normal(mu.sum(), 1), obs=y)


@pytest.fixture
def free(monkeypatch):
    """Let the machine have so many bytes."""
    return lambda nbytes: monkeypatch.setattr(memory, "available_memory", lambda: nbytes)


def test_draws_that_do_not_fit_are_refused_before_the_set_up(free):
    free(150_000)
    mcmc = SGWORLD(_wide, num_chains=2, num_samples=1000)
    with pytest.raises(MemoryError, match=r"draws would take 400 kB of memory, and 150 kB.*`keep`"):
        mcmc.run(jax.random.key(0), np.ones(30, np.float32))
    assert mcmc.plan is None


def test_sites_that_do_not_fit_are_refused_and_the_set_up_is_kept(free, tmp_path):
    """What the model computes from its latents may be larger than they are."""
    y = np.ones(30, np.float32)
    settings = dict(num_chains=2, num_warmup=10, progress_bar=False)
    mcmc = SGWORLD(_wide, num_samples=1000, **settings)
    free(2_000_000)
    with pytest.raises(MemoryError, match=r"draws would take 1[0-9.]* MB"):
        mcmc.run(jax.random.key(0), y)
    mcmc.save_plan(tmp_path / "plan.npz")
    fewer = SGWORLD(_wide, num_samples=100, plan=tmp_path / "plan.npz", **settings)
    fewer.run(jax.random.key(0), y)
    assert fewer.get_samples()["all_of_them"].shape == (200, 2000)
    small = SGWORLD(_wide, num_samples=1000, keep=lambda sites: sites["mu"].sum(), **settings)
    small.run(jax.random.key(0), y)
    assert small.num_samples == 1000
