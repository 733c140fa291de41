"""A disk that fails in mid-run: one warning, all draws, and a checkpoint that is still whole."""

import contextlib
import errno
import functools
import resource
import warnings

import jax
import models
import numpy as np
import pytest

from sgworld_mcmc import SGWORLD, CheckpointWarning
from sgworld_mcmc.checkpoint import saved_run
from sgworld_mcmc.checkpoint.draws_store import DrawsStore
from sgworld_mcmc.checkpoint.states import States
from sgworld_mcmc.checkpoint.writer import Writer
from sgworld_mcmc.infer import checkpointed
from sgworld_mcmc.sampling import loop

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")

KEY = jax.random.key(0)
(Y,) = models.regression_data()[1:]
SETTINGS = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
# Too few draws for checks that compile programs, which JAX could not write to its cache either.
SETTINGS |= {"num_samples": 24, "num_warmup": 5}
CASES = pytest.mark.parametrize(
    ("draws", "method"),
    [("memory", "vectorized"), ("disk", "vectorized"), ("disk", "sequential")],
)


@pytest.fixture(autouse=True)
def many_blocks(monkeypatch):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    monkeypatch.setattr(saved_run, "WINDOW_BYTES", 80)  # a third of the draws
    # The run waits for the disk, so that every block is a checkpoint.
    monkeypatch.setattr(Writer, "busy", property(lambda self: self.wait()))


def mu(mcmc):
    return np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])


@functools.cache
def whole(method):
    """The run on a disk that works, whose set-up functions all others use."""
    mcmc = SGWORLD(models.gaussian, chain_method=method, **SETTINGS)
    mcmc.run(KEY, Y)
    return mcmc


def another(method="vectorized"):
    mcmc = SGWORLD(models.gaussian, chain_method=method, **SETTINGS)
    mcmc.sampler.share(whole(method).sampler)
    return mcmc


def fails_and_goes_on(folder, draws, method, cause, mend=lambda: None):
    """Check a run whose disk fails, and another one that resumes it on a disk that works."""
    options = {"checkpoint": folder, "every": 1e-6, "draws": draws}
    expected, mcmc = whole(method), another(method)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        mcmc.run(KEY, Y, **options)
    mend()
    (warning,) = [w for w in caught if w.category is CheckpointWarning]
    assert cause in str(warning.message) and "stays valid" in str(warning.message)
    np.testing.assert_array_equal(mu(mcmc), mu(expected))
    np.testing.assert_array_equal(
        mcmc.get_extra_fields()["diverging"], expected.get_extra_fields()["diverging"]
    )
    assert mcmc.to_arviz()["posterior"]["mu"].shape == (2, 24)
    again = another(method)
    again.run(KEY, Y, resume=True, **options)
    np.testing.assert_array_equal(mu(again), mu(expected))


def after(calls, method, error):
    """Return the method, which raises an error from some call on."""
    count = [0]

    def wrapped(self, *args):
        count[0] += 1
        if calls < count[0] < 10**6:
            raise error
        return method(self, *args)

    def mend():
        count[0] = 10**6

    return wrapped, mend


@pytest.mark.slow
@CASES
@pytest.mark.parametrize("kind", [DrawsStore, States])
def test_a_disk_that_turns_read_only(tmp_path, monkeypatch, draws, method, kind):
    name = "append" if kind is DrawsStore else "save"
    error = OSError(errno.EROFS, "Read-only file system")
    wrapped, mend = after(3, getattr(kind, name), error)
    monkeypatch.setattr(kind, name, wrapped)
    fails_and_goes_on(tmp_path / "run", draws, method, "Read-only file system", mend)


@pytest.mark.slow
@CASES
def test_a_full_disk(tmp_path, monkeypatch, draws, method):
    """No file may have a byte, from the third state on."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    mend = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, before)  # noqa: E731
    save, count = States.save, [0]

    def filling(self, point):
        save(self, point)
        count[0] += 1
        if count[0] == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))

    monkeypatch.setattr(States, "save", filling)
    with contextlib.ExitStack() as stack:
        stack.callback(mend)
        fails_and_goes_on(tmp_path / "run", draws, method, "File too large", mend)


def test_a_plan_that_cannot_be_written(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(checkpointed, "save_plan", fail)
        with pytest.warns(CheckpointWarning, match="No space left"):
            mcmc = another()
            mcmc.run(KEY, Y, checkpoint=tmp_path / "run")
    np.testing.assert_array_equal(mu(mcmc), mu(whole("vectorized")))
    mcmc.run(KEY, Y, checkpoint=tmp_path / "run")  # nothing was there to lose


def test_draws_that_have_no_place_at_all(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(DrawsStore, "create", fail)
    with pytest.warns(CheckpointWarning, match="No space left"):
        mcmc = another()
        mcmc.run(KEY, Y, checkpoint=tmp_path / "run", draws="disk")
    np.testing.assert_array_equal(mu(mcmc), mu(whole("vectorized")))


@pytest.mark.parametrize("missing", ["orbax.checkpoint", "zarr"])
def test_packages_that_are_missing(tmp_path, monkeypatch, missing):
    monkeypatch.setattr(checkpointed, "_is_there", lambda name: name != missing)
    with pytest.raises(ImportError, match=r"pip install 'sgworld-mcmc\[checkpoints\]'"):
        SGWORLD(models.gaussian, **SETTINGS).run(KEY, Y, checkpoint=tmp_path / "run")
    assert not (tmp_path / "run").exists()
