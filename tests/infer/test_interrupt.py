"""Ctrl-C: a real SIGINT at every stage of a run."""

import os
import signal
import threading
import time
import warnings

import arviz as az
import jax
import jax.numpy as jnp
import models
import numpy as np
import pytest

from sgworld_mcmc import SGWORLD, InterruptedWarning, progress
from sgworld_mcmc.interrupts import waiting
from sgworld_mcmc.sampling import loop
from sgworld_mcmc.setup.compiled_functions import functions_of

KEY = jax.random.key(0)
(Y,) = models.regression_data()[1:]
SETTINGS = {"batch_size": 20, "step_size": 0.1, "gradient": "plain", "num_chains": 2}
SETTINGS |= {"num_samples": 60, "num_warmup": 5}
CONTINUE = "post_warmup_state = mcmc.last_state"


@pytest.fixture(scope="module")
def first():
    mcmc = SGWORLD(models.gaussian, **SETTINGS)
    mcmc.run(KEY, Y)
    return mcmc


@pytest.fixture(scope="module")
def whole(first):
    return np.asarray(first.get_samples(group_by_chain=True)["mu"])


@pytest.fixture(autouse=True)
def ctrl_c_raises_again():
    """Also where the tests run in the background, where a shell has signals ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    after = signal.signal(signal.SIGINT, before)
    assert after is signal.default_int_handler


def like(first, **settings):
    mcmc = SGWORLD(first.sampler._model, **{**SETTINGS, **settings})
    mcmc.sampler.share(first.sampler)
    return mcmc


@pytest.fixture
def press(monkeypatch):
    """Press Ctrl-C, perhaps several times, when a stage has come to a part of it."""
    monkeypatch.setattr(loop, "BLOCK_SECONDS", 1e-9)  # a call a block

    def at(stage, done=None, times=1):
        method = "enter" if done is None else "update"
        before = getattr(progress.Reporter, method)
        left = [times]

        def pressing(self, value):
            before(self, value)
            here = value == stage if done is None else self.name == stage
            if here and (done is None or self._done[stage] >= done):
                while left[0]:
                    left[0] -= 1
                    signal.raise_signal(signal.SIGINT)

        monkeypatch.setattr(progress.Reporter, method, pressing)

    return at


@pytest.mark.parametrize(
    ("stage", "done"),
    [
        ("checking the model", None),
        ("searching the mode", None),
        ("compiling", None),
        ("warm-up", None),
        ("warm-up", 0.5),
        ("draws", None),
    ],
)
def test_before_the_first_draw_it_raises_and_says_where(first, whole, press, stage, done):
    mcmc = like(first)
    press(stage, done)
    with pytest.raises(KeyboardInterrupt) as caught:
        mcmc.run(KEY, Y)
    (note,) = caught.value.__notes__
    assert stage in note and "no draws" in note
    assert mcmc.last_state is None
    mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole)


def test_pilot_chains_are_interrupted(press):
    press("pilot chains")
    with pytest.raises(KeyboardInterrupt) as caught:
        SGWORLD(models.gaussian).run(KEY, Y)
    assert "pilot chains" in caught.value.__notes__[0]


def test_draws_so_far_are_kept_and_the_run_can_be_continued(first, whole, press):
    mcmc = like(first)
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning, match=CONTINUE) as caught:
        mcmc.run(KEY, Y, extra_fields=("step",))
    assert "24 of 60 draws of 2 of 2 chains" in str(caught[0].message)
    found = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    np.testing.assert_array_equal(found, whole[:, :24])
    assert mcmc.get_samples()["mu"].shape == (48,)
    assert set(mcmc.get_extra_fields()) == {"diverging", "step"}
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)
    rest = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    assert rest.shape == (2, 60)
    np.testing.assert_array_equal(rest[:, :36], whole[:, 24:])
    mcmc.post_warmup_state = None
    mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole)


def test_everything_reads_the_draws_that_are_kept(first, press, capsys):
    mcmc = like(first)
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning):
        mcmc.run(KEY, Y)
    mcmc.print_summary()
    assert "mu" in capsys.readouterr().out
    groups = mcmc.to_arviz()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        theirs = az.from_numpyro(mcmc, log_likelihood=True)
    for group in (groups, theirs):
        assert group["posterior"]["mu"].shape == (2, 24)
        assert group["log_likelihood"]["y"].shape == (2, 24, len(Y))
    assert mcmc.bias_report().names == ("mu",)


@pytest.mark.slow
def test_thinned_draws_are_kept_whole(first, press):
    mcmc = like(first, thinning=3)
    mcmc.run(KEY, Y)
    thinned = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    press("draws", 0.4)
    with pytest.warns(InterruptedWarning, match="8 of 20 draws"):
        mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], thinned[:, :8])
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)
    np.testing.assert_array_equal(
        mcmc.get_samples(group_by_chain=True)["mu"][:, :12], thinned[:, 8:]
    )


def test_the_second_one_raises(first, whole, press):
    mcmc = like(first)
    press("draws", 0.4, times=2)
    with pytest.raises(KeyboardInterrupt) as caught:
        mcmc.run(KEY, Y)
    assert "(draws)" in caught.value.__notes__[0]


def test_draws_of_an_earlier_run_stay_with_their_data(first, whole, press):
    mcmc = like(first)
    mcmc.run(KEY, Y)
    press("warm-up")
    with pytest.raises(KeyboardInterrupt) as caught:
        mcmc.run(KEY, Y + 100)
    assert "those of an earlier run" in caught.value.__notes__[0]
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole)
    np.testing.assert_array_equal(mcmc.to_arviz()["observed_data"]["y"], Y)
    assert abs(mcmc.bias_report().center).max() < 50


def test_chains_one_after_the_other(first, press):
    mcmc = like(first, chain_method="sequential", num_chains=3)
    mcmc.run(KEY, Y)
    chains = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    press("draws", 0.8)  # of all three: in the third
    with pytest.warns(InterruptedWarning, match="60 of 60 draws of 2 of 3 chains"):
        mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], chains[:2])
    assert mcmc.to_arviz()["posterior"]["mu"].shape == (2, 60)
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)
    assert mcmc.get_samples(group_by_chain=True)["mu"].shape == (2, 60)


@pytest.mark.slow
def test_the_first_of_several_chains_is_kept_in_part(first, press):
    mcmc = like(first, chain_method="sequential", num_chains=2, num_samples=40)
    mcmc.run(KEY, Y)
    chains = np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])
    press("draws", 0.25)
    with pytest.warns(InterruptedWarning, match="20 of 40 draws of 1 of 2 chains"):
        mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], chains[:1, :20])
    mcmc.post_warmup_state = mcmc.last_state
    mcmc.run(mcmc.last_state.rng_key, Y)
    rest = mcmc.get_samples(group_by_chain=True)["mu"]
    assert rest.shape == (1, 40)
    np.testing.assert_array_equal(rest[:, :20], chains[:1, 20:])
    mcmc.post_warmup_state = None
    mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], chains)


def test_a_warmup_that_was_interrupted_leaves_no_trace(first, whole, press):
    mcmc = like(first)
    press("warm-up", 0.5)
    with pytest.raises(KeyboardInterrupt):
        mcmc.warmup(KEY, Y)
    mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole)


def test_the_checks_after_the_run_can_be_left_out(first, whole, press):
    mcmc = like(first)
    press("checking the draws")
    with pytest.warns(InterruptedWarning, match="all of them are kept"):
        mcmc.run(KEY, Y)
    np.testing.assert_array_equal(mcmc.get_samples(group_by_chain=True)["mu"], whole)


def test_ctrl_c_from_outside_ends_a_long_run_soon(first):
    mcmc = like(first, num_samples=2_000_000)

    def press():
        while mcmc._reporter is None or not mcmc._reporter._done.get("draws"):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)
        press.time = time.perf_counter()

    thread = threading.Thread(target=press)
    thread.start()
    with pytest.warns(InterruptedWarning):
        mcmc.run(KEY, Y)
    thread.join()
    assert time.perf_counter() - press.time < 10
    assert 0 < len(mcmc.get_samples()["mu"]) < 2_000_000


def test_waiting_for_a_long_computation_ends_at_once():
    @jax.jit
    def long(x):
        return jax.lax.fori_loop(0, 400, lambda _, x: jnp.tanh(x @ x), x)

    made = []

    def noted(x):
        made.append(long(x))
        threading.Timer(0.1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        return made[0]

    begin = time.perf_counter()
    with pytest.raises(KeyboardInterrupt):
        waiting(noted)(jnp.ones((500, 500)))
    interrupted = time.perf_counter() - begin
    assert not made[0].is_ready()
    jax.block_until_ready(made)
    assert interrupted < time.perf_counter() - begin


def test_no_part_of_the_set_up_is_waited_for_outside_of_python(first):
    functions = functions_of(first.data.model, None)
    compiled = {name: f for name, f in vars(functions).items() if callable(f)}
    compiled.pop("model", None)
    assert len(compiled) > 10
    bare = [name for name, f in compiled.items() if hasattr(f, "lower")]
    assert not bare, bare
