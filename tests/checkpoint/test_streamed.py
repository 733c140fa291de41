"""Runs on streamed rows that are saved: they go on bit for bit, with the rows that they had."""

import pickle

import jax
import models
import numpy as np
import pytest
from same_runs import same

from sgworld_mcmc import SGWORLD, InterruptedWarning, ParquetSource
from sgworld_mcmc.checkpoint.writer import Writer
from sgworld_mcmc.sampling import loop
from sgworld_mcmc.setup import forecast
from sgworld_mcmc.setup.streamed import prepare
from sgworld_mcmc.streaming import arguments
from sgworld_mcmc.streaming.arrays import ArraySource

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")

KEY, SIZE = jax.random.key(0), 3001
Y = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
FIXED = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
SETTINGS = {**FIXED, "num_samples": 60, "num_warmup": 5, "stream": True}
# The chains come into another chunk every other draw.
CALLS = {"steps_per_draw": 17}


@pytest.fixture
def rows(tmp_path):
    """Return a function that opens the file anew, as another process would."""
    np.save(tmp_path / "y.npy", Y)
    return lambda: np.load(tmp_path / "y.npy", mmap_mode="r")


@pytest.fixture(scope="module")
def shared():
    """Return a sampler whose compiled functions of the set-up serve all tests."""
    return SGWORLD(models.gaussian, **SETTINGS)


@pytest.fixture
def sampler(shared):
    def make(**settings):
        mcmc = SGWORLD(models.gaussian, **{**SETTINGS, **settings})
        mcmc.sampler.share(shared.sampler)
        return mcmc

    return make


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "draws"),
    [
        ({**CALLS, "order": "examples"}, "memory"),
        ({"order": "batches", "thinning": 2}, "disk"),
        ({**CALLS, "chain_method": "sequential", "num_chains": 3}, "disk"),
        ({"num_chains": 1, "steps_per_draw": 1}, "memory"),
    ],
)
def test_interrupted_runs_go_on_bit_for_bit(
    tmp_path, rows, sampler, press, small_window, settings, draws
):
    whole = sampler(**settings)
    whole.run(KEY, rows(), extra_fields=("step",))
    assert whole.plan.streaming.grid.chunks >= 4
    options = {"extra_fields": ("step",), "checkpoint": tmp_path / "run", "draws": draws}
    press("warm-up", 0.1)
    with pytest.raises(KeyboardInterrupt):
        sampler(**settings).run(KEY, rows(), **options)
    for done in (0.2, 0.5, 0.9):
        press("draws", done)
        with pytest.warns(InterruptedWarning, match="resume=True"):
            sampler(**settings).run(KEY, rows(), resume=True, **options)
    mcmc = sampler(**settings)
    mcmc.run(KEY, rows(), resume=True, **options)
    same(mcmc, whole)
    again = sampler(**settings)
    again.run(KEY, rows(), resume=True, **options)  # a finished run
    same(again, whole)
    assert str(again.bias_report()) == str(whole.bias_report())


@pytest.mark.slow
def test_every_block_may_be_a_checkpoint(tmp_path, rows, sampler, monkeypatch):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    monkeypatch.setattr(Writer, "busy", property(lambda self: self.wait()))
    whole, mcmc = (sampler(**CALLS) for _ in range(2))
    whole.run(KEY, rows())
    mcmc.run(KEY, rows(), checkpoint=tmp_path / "run", every=1e-6)
    same(mcmc, whole)


@pytest.mark.slow
def test_a_run_goes_on_in_its_chunks_whatever_the_memory(
    tmp_path, rows, sampler, press, monkeypatch
):
    # Streamed because the rows do not fit, in chunks for which there is the memory.
    monkeypatch.setattr(arguments, "fits", lambda nbytes: False)
    monkeypatch.setattr(prepare, "available_memory", lambda: 16 * 4 * 400)
    whole = sampler(stream="auto")
    whole.run(KEY, rows())
    assert whole.plan.streaming.grid.chunk_rows <= 400
    options = {"checkpoint": tmp_path / "run"}
    press("draws", 0.3)
    with pytest.warns(InterruptedWarning):
        sampler(stream="auto").run(KEY, rows(), **options)
    monkeypatch.setattr(arguments, "fits", lambda nbytes: True)
    monkeypatch.setattr(prepare, "available_memory", lambda: 2**33)
    with monkeypatch.context() as patched:
        patched.setattr(forecast, "available_memory", lambda: 10**5)
        with pytest.raises(MemoryError, match=r"takes about .* of memory, and 100 kB are free"):
            sampler(stream="auto").run(KEY, rows(), resume=True, **options)
    mcmc = sampler(stream="auto")
    mcmc.run(KEY, rows(), resume=True, **options)
    same(mcmc, whole)
    assert mcmc.plan.streaming.grid == whole.plan.streaming.grid


@pytest.mark.slow
def test_a_disk_that_fails_in_a_run_is_no_end(tmp_path, rows, sampler, monkeypatch):
    whole = sampler(**CALLS)
    whole.run(KEY, rows())
    mcmc, read, count = sampler(**CALLS), ArraySource.read_into, []
    y = rows()
    mcmc.set_up(KEY, y)

    def read_into(self, *args):
        count.append(1)
        if len(count) > 30:
            raise OSError("the disk is gone")
        return read(self, *args)

    with monkeypatch.context() as patched:
        patched.setattr(ArraySource, "read_into", read_into)
        with pytest.warns(InterruptedWarning, match=r"cut short.*the disk is gone"):
            mcmc.run(KEY, y, checkpoint=tmp_path / "run")
    again = sampler(**CALLS)
    again.run(KEY, rows(), checkpoint=tmp_path / "run", resume=True)
    same(again, whole)


@pytest.mark.slow
def test_other_rows_are_refused_before_any_work(tmp_path, rows, sampler, monkeypatch):
    options = {"checkpoint": tmp_path / "run"}
    sampler().run(KEY, rows(), **options)
    kernel = sampler().sampler.__class__
    for name in ("prepare", "init"):
        monkeypatch.setattr(kernel, name, lambda *_, **__: pytest.fail("work was done"))
    changed = Y.copy()
    changed[1234] += 1
    for number, (y, settings, reason) in enumerate(
        (
            (changed, {}, "the numbers in the rows that are streamed"),
            (Y[:-1], {}, r"`argument y`: 'float32\(3001,\)' then, 'float32\(3000,\)' now"),
            (Y, {"stream": False}, "`stream`: True then, False now"),
        )
    ):
        np.save(tmp_path / f"{number}.npy", y)
        other = np.load(tmp_path / f"{number}.npy", mmap_mode="r")
        with pytest.raises(ValueError, match=reason) as caught:
            sampler(**settings).run(KEY, other, resume=True, **options)
        assert "one of another run" in str(caught.value)
    with pytest.raises(ValueError, match=r"`devices`.* streamed"):
        sampler(devices=1).run(KEY, rows(), resume=True, **options)
    with pytest.raises(ValueError, match="potential_energy"):
        sampler().run(KEY, rows(), extra_fields=("potential_energy",), checkpoint=tmp_path / "two")


@pytest.mark.slow
def test_a_saved_plan_of_streamed_rows(tmp_path, rows, sampler):
    whole = sampler()
    whole.run(KEY, rows())
    whole.save_plan(tmp_path / "plan.npz")
    chains = {"num_samples": 60, "num_warmup": 5, "num_chains": 2}

    def planned(name, **settings):
        return SGWORLD(models.gaussian, plan=tmp_path / name, **chains, **settings)

    # A plan that was saved, although the rows would fit now, and one that was pickled.
    for mcmc in (planned("plan.npz"), pickle.loads(pickle.dumps(whole))):
        mcmc.run(KEY, rows())
        same(mcmc, whole)
    with pytest.raises(ValueError, match="rows that are streamed, and they are in memory"):
        planned("plan.npz", stream=False).run(KEY, rows())
    memory = sampler(stream=False)
    memory.run(KEY, Y)
    memory.save_plan(tmp_path / "memory.npz")
    with pytest.raises(ValueError, match="in memory then, streamed now"):
        planned("memory.npz", stream=True).run(KEY, rows())


@pytest.mark.slow
def test_rows_that_need_double_precision(tmp_path, sampler, press):
    np.save(tmp_path / "far.npy", Y.astype(float) + 1e6)
    rows = lambda: np.load(tmp_path / "far.npy", mmap_mode="r")  # noqa: E731
    whole = sampler()
    whole.run(KEY, rows())
    assert whole.plan.double and not jax.config.jax_enable_x64
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning):
        sampler().run(KEY, rows(), checkpoint=tmp_path / "run")
    mcmc = sampler()
    mcmc.run(KEY, rows(), checkpoint=tmp_path / "run", resume=True)
    same(mcmc, whole)
    assert str(mcmc.bias_report()) == str(whole.bias_report())


@pytest.mark.slow
def test_the_rows_may_lie_in_another_file(tmp_path, rows, sampler, press):
    arrow, parquet = (pytest.importorskip(name) for name in ("pyarrow", "pyarrow.parquet"))
    parquet.write_table(arrow.table({"y": Y}), tmp_path / "y.parquet", row_group_size=500)
    whole = sampler(**CALLS)
    whole.run(KEY, rows())
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning):
        sampler(**CALLS).run(KEY, rows(), checkpoint=tmp_path / "run")
    mcmc = sampler(**CALLS)
    source = ParquetSource(tmp_path / "y.parquet")
    mcmc.run(KEY, source, checkpoint=tmp_path / "run", resume=True)
    same(mcmc, whole)
