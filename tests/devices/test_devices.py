"""Runs on several devices: the draws of one device, where chains and rows lie, and refusals."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.data.dealing import batch_count, extra_rows
from sgworld_mcmc.data.in_memory import cut, joined, order_without, part_edges, random_order
from sgworld_mcmc.gradients.weighting import epoch_mean

HERE = Path(__file__).parent


# The devices over which the chains and the rows of each case lie.
WANTED = {
    "chains": [4, 1],
    "three chains": [3, 1],
    "small batches": [2, 1],
    "rows": [1, 4],
    "both": [2, 2],
    "mesh": [2, 2],
    "four parts on two devices": [1, 2],
    "all rows": [1, 4],
    "replacement": [1, 4],
    "dealt anew": [2, 1],
    "kinetic": [2, 2],
    "one after the other": [1, 2],
    "rows that matter": [2, 2],
    "parts of the set-up": [1, 4],
    "network": [2, 2],
}


@pytest.fixture(scope="module")
def spread():
    """What all cases have found, in one process that has four devices."""
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent)])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", str(HERE / "spread_runs.py"), *WANTED, "resumed"],
        capture_output=True,
        env={**os.environ, "PYTHONPATH": path},
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("name", WANTED)
def test_draws_are_those_of_one_device(spread, name):
    found = spread[name]
    # Rounding in single precision, in posterior standard deviations: the sums over rows are
    # made in another order.
    assert found["apart"] < 1e-3, found
    assert found["fields"] < 1e-4, found
    assert found["sum"] < 1e-3, found
    assert found["devices"] == WANTED[name], found
    assert found["spread"] == np.prod(WANTED[name]), found


@pytest.mark.slow
def test_rows_that_matter_are_in_the_batches_of_all_devices(spread):
    assert spread["rows that matter"]["taken"] == 5


@pytest.mark.slow
def test_the_report_says_what_was_done_and_why(spread):
    said = spread["both"]["said"]
    assert "shared in 2 equal parts" in said
    assert "chains lie over 2 devices and the rows of each batch over 2 devices" in said
    said = spread["small batches"]["said"]
    assert "too small" in said and "2 stay idle" in said


@pytest.mark.slow
def test_runs_go_on_on_another_number_of_devices(spread):
    assert spread["resumed"]["apart"] < 1e-3


# Nothing to choose: the set-up compiles little.
COUNTS = {"num_samples": 10, "num_warmup": 2, "num_chains": 2}
FIXED = {**COUNTS, "batch_size": 20, "step_size": 0.1, "gradient": "plain"}


@pytest.mark.parametrize("kind", [SGWORLD, SGLD])
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"devices": 1000}, "1000 devices, and JAX sees"),
        ({"devices": 0}, "devices"),
        ({"devices": "all"}, "must be"),
        ({"devices": []}, "sequence of jax.devices"),
        ({"devices": 2 * jax.devices()[:1]}, "twice"),
        ({"mesh": jax.make_mesh((1, 1), ("x", "data"))}, "'chains' and 'data'"),
        ({"mesh": 4}, "jax.sharding.Mesh"),
        ({"mesh": jax.make_mesh((1,), ("data",)), "devices": 1}, "give one of them"),
        ({"devices": 1, "chain_method": "parallel"}, "chain_method"),
        ({"data_shards": 0}, "data_shards"),
        ({"chains": 3}, "no setting 'chains'"),
    ],
)
def test_refusals(kind, settings, says):
    with pytest.raises((ValueError, TypeError), match=says):
        kind(models.gaussian, **settings)


@pytest.mark.slow
def test_one_device_is_a_layout_too():
    arguments = models.regression_data()[1:]
    draws = []
    for settings in ({}, {"devices": 1}, {"mesh": jax.make_mesh((1,), ("data",))}):
        mcmc = SGWORLD(models.gaussian, **FIXED, **settings)
        mcmc.run(jax.random.key(0), *arguments)
        draws.append(np.asarray(mcmc.get_samples()["mu"]))
    np.testing.assert_allclose(draws[1], draws[0], rtol=1e-5)
    np.testing.assert_allclose(draws[2], draws[0], rtol=1e-5)


@pytest.mark.slow
def test_a_saved_plan_knows_the_parts_of_its_rows(tmp_path):
    arguments = models.regression_data()[1:]
    mcmc = SGWORLD(models.gaussian, **FIXED, data_shards=3)
    mcmc.run(jax.random.key(0), *arguments)
    mcmc.save_plan(tmp_path / "plan.npz")
    again = SGWORLD(models.gaussian, **COUNTS, plan=tmp_path / "plan.npz")
    again.run(jax.random.key(0), *arguments)
    assert (again.get_samples()["mu"] == mcmc.get_samples()["mu"]).all()
    other = SGWORLD(models.gaussian, **FIXED)
    other.run(jax.random.key(0), *arguments)
    assert (other.get_samples()["mu"] != mcmc.get_samples()["mu"]).any()


@pytest.mark.parametrize("size", [1003, 1000, 24])
@pytest.mark.parametrize("shards", [2, 3, 8])
@pytest.mark.parametrize("batch_size", [24, 100])
def test_every_batch_has_equal_shares_of_all_parts(size, shards, batch_size):
    order = random_order(np.random.default_rng(0), size, shards)
    np.testing.assert_array_equal(np.sort(order), np.arange(size))
    count = batch_count(size, min(batch_size, size), shards)
    feed = cut((jnp.asarray(order),), count, shards)
    assert feed.size == size and feed.num_batches == count
    np.testing.assert_array_equal(joined(feed)[0], order)
    edges = part_edges(size, shards)
    length, left, more = extra_rows(size, count, shards)
    assert length % shards == 0 and count * length + left * more == size and left <= count
    parts = np.asarray(feed.main[0]).reshape(count, shards, -1)
    for part in range(shards):
        inside = (parts[:, part] >= edges[part]) & (parts[:, part] < edges[part + 1])
        assert inside.all()


@pytest.mark.parametrize("size", [1003, 1000])
@pytest.mark.parametrize("shards", [2, 3, 8])
def test_the_parts_stay_without_a_few_rows(size, shards):
    order = random_order(np.random.default_rng(0), size, shards)
    few = np.random.default_rng(1).permutation(size)[:17]
    left = order[order_without(few, size, shards)]
    np.testing.assert_array_equal(np.sort(left), np.sort(np.delete(order, few)))
    # One row of each part in turn, as long as all have some.
    part = np.searchsorted(part_edges(size, shards), left, side="right") - 1
    common = np.bincount(part).min() * shards
    assert (part[:common] == np.arange(common) % shards).all()


@pytest.mark.parametrize("count", [1, 7])
def test_extra_rows_count_once(count):
    y = np.random.default_rng(0).standard_normal(1003).astype(np.float32)
    feed = cut((jnp.asarray(y),), count, 8)
    assert feed.extra is not None
    total = epoch_mean(lambda mu, rows: len(y) * jnp.mean(rows[0] - mu), jnp.zeros(()), feed)
    assert float(total) == pytest.approx(float(y.astype(float).sum()), rel=1e-4)
