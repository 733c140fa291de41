"""A run with a checkpoint has the draws of one without, also if it ends and goes on in between."""

import functools
import os
import pickle

import jax
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from same_runs import same

from sgworld_mcmc import SGLD, SGWORLD, InterruptedWarning
from sgworld_mcmc.checkpoint import copies, saved_run
from sgworld_mcmc.checkpoint.writer import Writer
from sgworld_mcmc.sampling import loop

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")

KEY = jax.random.key(0)
DATA = models.regression_data()
(Y,) = DATA[1:]
FIXED = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
SETTINGS = {**FIXED, "num_samples": 60, "num_warmup": 5}


def mu(mcmc):
    return np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])


KINDS = [
    {},
    {"chain_method": "sequential", "num_chains": 3},
    {"num_chains": 1, "thinning": 3, "order": "examples", "record_moments": True},
    {"chain_method": "sequential", "thinning": 2, "noise": "independent"},
]


@functools.cache
def run_of(kind):
    """An uninterrupted run, whose set-up functions others use, and its report."""
    whole = SGWORLD(models.gaussian, **{**SETTINGS, **KINDS[kind]})
    whole.run(KEY, Y, extra_fields=("step", "rng_key"))
    return whole, str(whole.bias_report())


@pytest.mark.slow
@pytest.mark.parametrize("draws", ["memory", "disk"])
@pytest.mark.parametrize("kind", range(len(KINDS)))
def test_interrupted_runs_go_on_bit_for_bit(tmp_path, press, small_window, kind, draws):
    whole, report = run_of(kind)

    def another():
        mcmc = SGWORLD(models.gaussian, **{**SETTINGS, **KINDS[kind]})
        mcmc.sampler.share(whole.sampler)
        return mcmc

    fields = ("step", "rng_key")
    options = {"extra_fields": fields, "checkpoint": tmp_path / "run", "draws": draws}
    press("warm-up", 0.1)
    with pytest.raises(KeyboardInterrupt) as caught:
        another().run(KEY, Y, **options)
    assert "resume=True" in caught.value.__notes__[0]
    for done in (0.2, 0.5, 0.9):
        press("draws", done)
        with pytest.warns(InterruptedWarning, match="resume=True"):
            mcmc = another()
            mcmc.run(KEY, Y, resume=True, **options)
        made = mu(mcmc)
        chains, count = made.shape
        assert count <= whole.num_samples // whole.thinning
        np.testing.assert_array_equal(made, mu(whole)[:chains, :count])
    mcmc.run(KEY, Y, resume=True, **options)  # the object that was interrupted goes on
    same(mcmc, whole)
    again = another()
    again.run(KEY, Y, resume=True, **options)  # a finished run
    same(again, whole)
    assert str(again.bias_report()) == report


@pytest.mark.slow
def test_the_state_begins_a_longer_run_as_ever(tmp_path):
    whole = SGWORLD(models.gaussian, **{**SETTINGS, "num_samples": 120})
    whole.run(KEY, Y)
    mcmc = SGWORLD(models.gaussian, **SETTINGS)
    mcmc.run(KEY, Y, checkpoint=tmp_path / "run")
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)
    np.testing.assert_allclose(mu(mcmc), mu(whole)[:, 60:], rtol=1e-5)


@pytest.mark.slow
def test_every_block_may_be_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    monkeypatch.setattr(Writer, "busy", property(lambda self: self.wait()))
    settings = {**SETTINGS, "num_samples": 20}
    whole, mcmc = (SGLD(models.gaussian, **settings) for _ in range(2))
    whole.run(KEY, Y)
    mcmc.sampler.share(whole.sampler)
    mcmc.run(KEY, Y, checkpoint=tmp_path / "run", every=1e-6)
    same(mcmc, whole)
    assert len(os.listdir(tmp_path / "run" / "states")) <= 3


def means(y):
    """So many parameters that no mode is searched."""
    mu = numpyro.sample("mu", dist.Normal(0, 1).expand([y.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1).to_event(1), obs=y)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sgworld_mcmc.TuningWarning")
@pytest.mark.filterwarnings("ignore:`log_likelihood` is left out")
@pytest.mark.parametrize("draws", ["memory", "disk"])
def test_kinetic_dynamics_without_a_mode(tmp_path, press, draws):
    y = np.random.default_rng(0).normal(size=(64, 1100)).astype(np.float32)
    settings = {"num_samples": 80, "num_warmup": 20, "num_chains": 2}
    settings |= {"keep": lambda sites: (sites["mu"][:2], {"s": sites["mu"].sum()})}
    fields = ("motion",) if draws == "memory" else ()
    saved = {"checkpoint": tmp_path / "run", "draws": draws, "extra_fields": fields}
    whole, *others = (SGWORLD(means, **settings) for _ in range(3))
    whole.run(KEY, y, extra_fields=fields)
    for other in others:
        other.sampler.share(whole.sampler)
    assert whole.plan.kinetic is not None
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning):
        others[0].run(KEY, y, **saved)
    others[1].run(KEY, y, resume=True, **saved)
    same(others[1], whole)
    found, expected = others[1].quantities(), whole.quantities()
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert others[1].to_arviz()["posterior"]["kept.0"].shape == (2, 80, 2)


@pytest.mark.slow
def test_a_run_with_everything_chosen(tmp_path):
    settings = {"num_samples": 200, "num_warmup": 20, "num_chains": 2}
    whole = SGWORLD(models.plated, **settings)
    whole.run(KEY, *DATA)
    mcmc = SGWORLD(models.plated, **settings)
    mcmc.run(KEY, *DATA, checkpoint=tmp_path / "run", resume=True)  # there is nothing yet
    same(mcmc, whole)
    again = SGWORLD(models.plated, **settings)
    again.run(KEY, *DATA, checkpoint=tmp_path / "run", resume=True)
    same(again, whole)
    assert str(again.bias_report()) == str(whole.bias_report())


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"chain_method": "sequential"}, {"num_chains": 1}])
def test_draws_on_an_accelerator_are_cut_out_there(tmp_path, monkeypatch, settings):
    """The way of devices with memory of their own, on a device that has none."""
    monkeypatch.setattr(copies, "_shares_memory", lambda: False)
    monkeypatch.setattr(saved_run, "WINDOW_BYTES", 140)
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)
    monkeypatch.setattr(Writer, "busy", property(lambda self: self.wait()))
    settings = {**SETTINGS, "num_samples": 17, **settings}
    whole, mcmc = (SGWORLD(models.gaussian, **settings) for _ in range(2))
    whole.run(KEY, Y)
    mcmc.sampler.share(whole.sampler)
    mcmc.run(KEY, Y, checkpoint=tmp_path / "run", every=1e-6, draws="disk")
    same(mcmc, whole)


@pytest.mark.slow
def test_paths_of_all_kinds(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    settings = {**SETTINGS, "num_samples": 4, "num_chains": 1}
    whole = SGWORLD(models.gaussian, **settings)
    whole.run(KEY, Y)
    for path in ("relative", "with/missing/parents", tmp_path / "größe ✓ ß"):
        mcmc = SGWORLD(models.gaussian, **settings)
        mcmc.sampler.share(whole.sampler)
        mcmc.run(KEY, Y, checkpoint=path, draws="disk")
        np.testing.assert_array_equal(mu(mcmc), mu(whole))
        assert (tmp_path / path / "plan.npz").exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(mu(mcmc), mu(whole))
    copy = pickle.loads(pickle.dumps(mcmc))
    np.testing.assert_array_equal(mu(copy), mu(whole))
