"""What is refused, with the reason, before any work."""

import json
import os
import subprocess
import sys

import jax
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.checkpoint.request import asked, difference, text_of

pytest.importorskip("orbax.checkpoint")
pytest.importorskip("zarr")

KEY = jax.random.key(0)
(Y,) = models.regression_data()[1:]
SETTINGS = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
SETTINGS |= {"num_samples": 10, "num_warmup": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    SGWORLD(models.gaussian, **SETTINGS).run(KEY, Y, checkpoint=path)
    return path


@pytest.fixture
def no_work(monkeypatch):
    """Fail if a set-up is made, or a draw."""
    kernel = SGWORLD(models.gaussian).sampler.__class__
    for name in ("prepare", "init"):
        monkeypatch.setattr(kernel, name, lambda *_, **__: pytest.fail("work was done"))


def other_prior(y):
    mu = numpyro.sample("mu", dist.Normal(0, 3))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def other_site(y):
    mu = numpyro.sample("nu", dist.Normal(0, 1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def resume(folder, model=models.gaussian, kind=SGWORLD, y=Y, key=KEY, options=None, **settings):
    mcmc = kind(model, **{**SETTINGS, **settings})
    mcmc.run(key, y, checkpoint=folder, resume=True, **(options or {}))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model": other_prior}, "log density of site 'mu'.*another prior"),
        ({"model": other_site}, "latent sites"),
        ({"y": Y[:-1]}, r"`argument y`: 'float32\(203,\)' then, 'float32\(202,\)' now"),
        ({"y": Y.astype(np.float64)}, "`argument y`"),
        ({"y": Y + 1}, "the numbers in the model's array arguments"),
        ({"kind": SGLD}, "`sampler`: 'SGWORLD' then, 'SGLD' now"),
        ({"step_size": 0.2}, "`step_size`: 0.1 then, 0.2 now"),
        ({"order": "symmetric"}, "`order`: FreshOrder"),
        ({"keep": lambda sites: sites}, "`keep`"),
        ({"num_samples": 11}, "`num_samples`: 10 then, 11 now"),
        ({"num_chains": 3}, "`num_chains`"),
        ({"num_warmup": 3}, "`num_warmup`"),
        ({"thinning": 2}, "`thinning`"),
        ({"chain_method": "sequential"}, "`chain_method`"),
        ({"key": jax.random.key(1)}, "`rng_key`"),
        ({"options": {"draws": "disk"}}, "`draws`: 'memory' then, 'disk' now"),
        ({"options": {"extra_fields": ("step",)}}, "`extra_fields`"),
        ({"options": {"init_params": {"mu": 0.0}}}, "`init_params`"),
    ],
)
def test_another_run_is_not_resumed(folder, no_work, change, reason):
    with pytest.raises(ValueError, match=reason) as caught:
        resume(folder, **change)
    assert "one of another run" in str(caught.value) and "another folder" in str(caught.value)


@pytest.mark.parametrize("name", ["version of plans", "format of the checkpoint", "jax"])
def test_another_version_is_not_resumed(folder, no_work, name):
    path = folder / "run.json"
    text = path.read_text()
    try:
        path.write_text(json.dumps({**json.loads(text), name: "'old'"}))
        with pytest.raises(ValueError, match=f"`{name}`: 'old' then"):
            resume(folder)
        path.write_text("{")
        with pytest.raises(ValueError, match="cannot be read"):
            resume(folder)
    finally:
        path.write_text(text)


def test_a_run_is_not_overwritten(folder, no_work):
    with pytest.raises(FileExistsError, match="resume=True"):
        SGWORLD(models.gaussian, **SETTINGS).run(KEY, Y, checkpoint=folder)


def test_a_folder_that_is_none(folder, tmp_path, no_work):
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("")
    mcmc = SGWORLD(models.gaussian, **SETTINGS)
    for path, kind, reason in (
        (tmp_path / "file", FileExistsError, "is a file"),
        (tmp_path / "file" / "below", OSError, "cannot be written"),
        (tmp_path / "full", FileExistsError, "holds other files"),
        (3, TypeError, "path of a folder"),
        (b"bytes", TypeError, "path of a folder"),
        ("", ValueError, "empty"),
        ("gs://bucket/run", ValueError, "local disk"),
    ):
        with pytest.raises(kind, match=reason):
            mcmc.run(KEY, Y, checkpoint=path)
    assert os.listdir(tmp_path / "full") == ["letter"]


def test_two_processes_on_one_folder(folder, no_work):
    child = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys, time; from sgworld_mcmc.checkpoint.folder import open_folder\n"
            f"held = open_folder({str(folder)!r}, True); print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(RuntimeError, match=f"in use by the process {child.pid}"):
            resume(folder)
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_the_lock_of_a_process_that_was_killed_is_none(folder):
    (folder / "lock").write_text("1")
    resume(folder)


def test_arguments_that_make_no_sense(tmp_path, no_work):
    def run(model=models.gaussian, mcmc=None, **options):
        mcmc = mcmc or SGWORLD(model, **SETTINGS)
        mcmc.run(KEY, Y, **{"checkpoint": tmp_path / "run", **options})

    with pytest.raises(ValueError, match="`every` must be positive"):
        run(every=0)
    with pytest.raises(TypeError, match="`resume` must be True or False"):
        run(resume="yes")
    with pytest.raises(ValueError, match="`draws` must be one of"):
        run(draws="zarr")
    for options in ({"resume": True}, {"draws": "disk"}):
        with pytest.raises(ValueError, match="needs `checkpoint`"):
            run(checkpoint=None, **options)
    with pytest.raises(ValueError, match="chain_method"):
        run(mcmc=SGWORLD(models.gaussian, **{**SETTINGS, "chain_method": jax.vmap}))
    with pytest.raises(ValueError, match="from its beginning"):
        SGWORLD(models.gaussian, **SETTINGS).warmup(KEY, Y, checkpoint=tmp_path / "run")

    def named(y, draws=1):
        models.gaussian(y)

    with pytest.raises(TypeError, match="`draws` is an argument of run"):
        run(model=named, draws=np.arange(3))
    assert not (tmp_path / "run").exists()


def test_what_was_asked_is_the_same_in_words():
    def schedule(rate):
        return lambda step: rate / (1 + step)

    assert text_of(schedule(0.1)) == text_of(schedule(0.1)) != text_of(schedule(0.2))
    one, other = asked(a=np.arange(3), b={"c": 1}), asked(a=np.arange(3) + 1, b={"c": 1})
    assert difference(one, one) is None and difference(one, other).startswith("`a`: array int64")
    assert text_of(jax.random.key(1)) != text_of(jax.random.key(2))
