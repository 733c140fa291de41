"""Draws on disk: what ArviZ and NumPyro read, and memory that does not grow with their number."""

import os

import arviz as az
import jax
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.checkpoint import draws_store, saved_run, stored_draws

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")

KEY = jax.random.key(0)
DATA = models.regression_data()
SETTINGS = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
SETTINGS |= {"num_samples": 50, "num_warmup": 2}


def awkward(X, y):
    """Sites whose names are no names of files, and one that ArviZ has."""
    b = numpyro.sample("net/b", dist.Normal(0, 1).expand([3]).to_event(1))
    s = numpyro.sample("draw", dist.HalfNormal(1))
    numpyro.deterministic("net|b", b > 0)
    numpyro.deterministic("__sum", b.sum())
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(X @ b, s), obs=y)


def pair(tmp_path, model=models.plated, **settings):
    fields = ("step", "potential_energy", "z.b") if model is models.plated else ()
    runs = [SGWORLD(model, **{**SETTINGS, **settings}) for _ in range(2)]
    runs[0].run(KEY, *DATA, extra_fields=fields)
    runs[1].run(KEY, *DATA, extra_fields=fields, checkpoint=tmp_path / "run", draws="disk")
    return runs


@pytest.mark.slow
@pytest.mark.parametrize("group_by_chain", [True, False])
def test_sites_of_any_name_come_back(tmp_path, group_by_chain):
    memory, disk = pair(tmp_path, awkward)
    one, other = (x.get_samples(group_by_chain=group_by_chain) for x in (memory, disk))
    assert set(one) == set(other) == {"net/b", "draw", "net|b", "__sum"}
    jax.tree.map(np.testing.assert_array_equal, one, other)
    assert all(isinstance(x, np.ndarray) and x.dtype == one[k].dtype for k, x in other.items())


@pytest.mark.slow
def test_arviz_reads_them_lazily(tmp_path, monkeypatch):
    memory, disk = pair(tmp_path)
    read = []
    before = draws_store.DrawsStore.read
    monkeypatch.setattr(draws_store.DrawsStore, "read", lambda *a: read.append(a) or before(*a))
    lazy, whole = disk.to_arviz(), memory.to_arviz(log_likelihood=False)
    assert not read
    for variable in lazy["posterior"].data_vars.values():
        assert not variable.variable._in_memory
    for group in ("posterior", "sample_stats", "observed_data", "constant_data"):
        assert lazy[group].equals(whole[group]), group
    full = disk.to_arviz(log_likelihood=True)["log_likelihood"]
    assert full.equals(memory.to_arviz()["log_likelihood"])
    opened = xr.open_datatree(tmp_path / "run" / "draws.zarr", engine="zarr", consolidated=False)
    groups = az.InferenceData.from_datatree(opened)
    np.testing.assert_array_equal(groups["posterior"]["b"], whole["posterior"]["b"])
    assert groups["sample_stats"]["diverging"].dtype == bool
    assert "position" not in groups["sample_stats"]
    assert az.summary(groups).shape[0] == 4
    np.testing.assert_array_equal(
        az.from_numpyro(disk, log_likelihood=False)["posterior"]["b"], whole["posterior"]["b"]
    )


@pytest.mark.slow
def test_checks_look_at_some_of_many(tmp_path, monkeypatch):
    monkeypatch.setattr(stored_draws, "LOOKED_AT", 4 * 2 * 50 // 3)
    settings = {"quantities": lambda sites: {"s": sites["s"]}}
    memory, disk = pair(tmp_path, **settings)
    assert disk.draws().positions.shape == (2, 13, 4)
    np.testing.assert_array_equal(disk.draws().positions, memory.draws().positions[:, ::4])
    np.testing.assert_array_equal(disk.draws().samples["b"].shape, (2, 13, 3))
    np.testing.assert_array_equal(disk.quantities()["s"], memory.quantities()["s"])
    assert disk.bias_report().step_size == memory.bias_report().step_size


def many(y):
    x = numpyro.sample("x", dist.Normal(0, 1).expand([y.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(x, 1).to_event(1), obs=y)


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads Linux's /proc")
def test_memory_does_not_grow_with_the_draws(tmp_path, monkeypatch):
    """Draws of 320 MB pass through buffers of 16 MB and pieces that wait to be written."""
    y = np.random.default_rng(0).normal(size=(50, 100)).astype(np.float32)
    settings = {**SETTINGS, "steps_per_draw": 1, "num_samples": 200_000, "batch_size": 10}
    settings |= {"dynamics": "overdamped", "preconditioner": "none", "step_size": 0.01}
    held, note = [], saved_run.SavedRun._note

    def noted(self, progress):
        note(self, progress)
        pieces = sum(x.nbytes for _, _, piece in list(self._pieces) for x in piece)
        buffers = sum(x.nbytes for x in jax.tree.leaves(progress.buffers))
        held.append((progress.made, pieces, buffers, resident()))

    monkeypatch.setattr(saved_run.SavedRun, "_note", noted)
    mcmc = SGWORLD(many, **settings)
    mcmc.run(KEY, y, checkpoint=tmp_path / "run", every=2.0, draws="disk")
    made, pieces, buffers, memory = np.array(held).T
    window = saved_run.WINDOW_BYTES
    assert buffers.max() <= window and pieces.max() <= (saved_run.WAITING + 1) * window
    total = sum(file.stat().st_size for file in (tmp_path / "run").rglob("*"))
    assert total > 320e6
    # From a fifth of the draws on, when there have been pieces, the other 256 MB add nothing.
    early, late = made < 40_000, made >= 40_000
    assert memory[late].max() - memory[early].max() < 64e6
    stored = mcmc.draws_on_disk
    assert mcmc.draws().spacing == 5 and stored.made == 200_000
    assert mcmc.to_arviz()["posterior"]["x"].shape == (2, 200_000, 100)
