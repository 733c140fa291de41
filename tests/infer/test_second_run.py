"""A second run on the same arrays needs no set-up; on others, or changed ones, it does."""

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from sgworld_mcmc import SGWORLD

KEY = jax.random.key(0)
# Nothing to choose: the set-up compiles little.
SETTINGS = {"gradient": "plain", "batch_size": 20, "step_size": 0.05}


@pytest.fixture
def y():
    return np.random.default_rng(0).normal(size=203).astype(np.float32)


@pytest.fixture(scope="module")
def compiled():
    """A run whose compiled functions all others use."""
    mcmc = SGWORLD(models.gaussian, num_samples=30, num_warmup=3, num_chains=2, **SETTINGS)
    mcmc.run(KEY, np.zeros(203, np.float32))
    return mcmc


@pytest.fixture
def mcmc(compiled, monkeypatch):
    """A new run that counts its set-ups in ``set_ups``."""
    run = SGWORLD(models.gaussian, num_samples=30, num_warmup=3, num_chains=2, **SETTINGS)
    run.sampler.share(compiled.sampler)
    prepare, run.set_ups = run.sampler.prepare, 0

    def counted(*args, **options):
        run.set_ups += 1
        return prepare(*args, **options)

    monkeypatch.setattr(run.sampler, "prepare", counted)
    return run


def draws(mcmc, key, *args, **options):
    mcmc.run(key, *args, **options)
    return np.asarray(mcmc.get_samples()["mu"])


@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_a_second_run_on_the_same_array_does_no_set_up(mcmc, y, kind):
    data = kind(y)
    first, other = draws(mcmc, KEY, data), draws(mcmc, jax.random.key(1), data)
    np.testing.assert_array_equal(draws(mcmc, KEY, data), first)
    assert mcmc.set_ups == 1
    assert not np.any(first == other)
    # The partition is that of the first run, whatever the key.
    batches = mcmc.data.feed
    mcmc.run(jax.random.key(2), data)
    assert mcmc.data.feed is batches


def test_a_numpy_array_that_changed_in_place_is_set_up_again(mcmc, y):
    first = draws(mcmc, KEY, y)
    y += 5.0
    assert draws(mcmc, KEY, y).mean() - first.mean() == pytest.approx(5.0, abs=0.05)
    assert mcmc.set_ups == 2
    y[7] += 1e-3
    draws(mcmc, KEY, y)
    assert mcmc.set_ups == 3


@pytest.mark.slow
def test_other_arrays_and_initial_points_are_set_up_again(mcmc, y):
    data = jnp.asarray(y)
    first = draws(mcmc, KEY, data)
    shifted = draws(mcmc, KEY, data + 5.0)
    assert mcmc.set_ups == 2 and shifted.mean() - first.mean() == pytest.approx(5.0, abs=0.05)
    mcmc.run(KEY, data, init_params={"mu": jnp.zeros(2)})
    assert mcmc.set_ups == 3
    mcmc.run(KEY, data)
    assert mcmc.set_ups == 3
    with jax.enable_x64(True):
        mcmc.run(KEY, data)
    assert mcmc.set_ups == 4


def test_a_set_up_that_fails_leaves_nothing_to_use_again(mcmc, y):
    mcmc.run(KEY, y)
    bad = np.append(y[1:], np.float32(np.nan))
    with pytest.raises(ValueError, match="NaN or infinity in 1 of 203"):
        mcmc.run(KEY, bad)
    mcmc.run(KEY, y)
    assert mcmc.set_ups == 3


def test_the_rows_of_the_last_run_are_let_go_before_the_next_set_up(mcmc, y, monkeypatch):
    mcmc.run(KEY, y)
    held, prepare = [], mcmc.sampler.prepare
    monkeypatch.setattr(
        mcmc.sampler,
        "prepare",
        lambda *args, **options: (
            held.append((mcmc.data, mcmc._checked)) or prepare(*args, **options)
        ),
    )
    mcmc.run(KEY, y + 1)
    assert held == [(None, None)]
