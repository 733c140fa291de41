"""A set-up that is saved and used again: the same draws, or a refusal that says why."""

import dataclasses
import functools
import json
import pickle
from typing import ClassVar

import jax
import jax.numpy as jnp
import models
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.data.orders.fresh import FreshOrder
from sgworld_mcmc.data.orders.replacement import Replacement
from sgworld_mcmc.setup.plan_file import VERSION, load_plan, save_plan

KEY = jax.random.key(3)
FAST = {"num_samples": 30, "num_warmup": 3, "num_chains": 2}
FIXED = {"gradient": "control_variate", "batch_size": 20, "step_size": 0.1}


def data(seed=0):
    return np.random.default_rng(seed).normal(size=203).astype(np.float32)


def draws(mcmc):
    return np.asarray(mcmc.get_samples(group_by_chain=True)["mu"])


@pytest.fixture(scope="module")
def first():
    mcmc = SGWORLD(models.gaussian, **FAST, **FIXED)
    mcmc.run(KEY, data())
    return mcmc


@pytest.fixture
def path(first, tmp_path):
    first.save_plan(tmp_path / "plan.npz")
    return tmp_path / "plan.npz"


def test_the_same_key_gives_the_same_draws_without_a_set_up(first, path, monkeypatch):
    again = SGWORLD(models.gaussian, plan=path, **FAST)
    monkeypatch.setattr(again.sampler, "prepare", lambda *_, **__: pytest.fail("set up anew"))
    again.run(KEY, data())
    np.testing.assert_array_equal(draws(again), draws(first))
    assert str(again.bias_report()) == str(first.bias_report())
    # Another key, and then the arrays as JAX's: the plan stays.
    again.run(jax.random.key(4), jnp.asarray(data()))
    assert not np.any(draws(again) == draws(first))


@pytest.mark.slow
def test_a_plan_with_everything_measured_comes_back_as_it_was(tmp_path):
    mcmc = SGWORLD(models.plated, **FAST)
    plan = mcmc.set_up(KEY, *models.regression_data())
    mcmc.save_plan(tmp_path / "plan")
    loaded = load_plan(tmp_path / "plan")
    assert loaded.dynamics == plan.dynamics and hash(loaded.dynamics) == hash(plan.dynamics)
    assert loaded.choice.prediction.worst() == plan.choice.prediction.worst()
    same = lambda a, b: np.testing.assert_array_equal(a, b)  # noqa: E731
    jax.tree.map(same, loaded.tuning, plan.tuning)
    jax.tree.map(same, loaded.measurements, plan.measurements)
    jax.tree.map(same, loaded.fit, plan.fit)
    with np.load(tmp_path / "plan", allow_pickle=False) as archive:
        assert "tuning.coordinates.center" in archive.files and "partition" in archive.files


def test_pickling_keeps_the_plan(first, monkeypatch):
    copy = pickle.loads(pickle.dumps(first))
    assert copy.data is None and copy.plan.step_size == first.plan.step_size
    np.testing.assert_array_equal(draws(copy), draws(first))
    with monkeypatch.context() as patch:
        patch.setattr(copy.sampler, "prepare", lambda *_, **__: pytest.fail("set up anew"))
        copy.run(KEY, data())
    np.testing.assert_array_equal(draws(copy), draws(first))
    # Other data are set up anew: nothing of the old plan is used for them.
    other = pickle.loads(pickle.dumps(first))
    other.run(KEY, data() + 5)
    assert draws(other).mean() - draws(first).mean() == pytest.approx(5, abs=0.1)


def other_prior(y):
    mu = numpyro.sample("mu", dist.Normal(50, 0.1))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(mu, 1), obs=y)


def other_site(y):
    nu = numpyro.sample("nu", dist.Normal(0, 10))
    with numpyro.plate("data", len(y)):
        numpyro.sample("y", dist.Normal(nu, 1), obs=y)


@pytest.mark.parametrize(
    ("model", "y", "reason"),
    [
        (models.gaussian, data()[:-1], r"number of rows: 203 then, 202 now"),
        (models.gaussian, data(1), "numbers in the model's array arguments"),
        (models.gaussian, data().astype(np.float64), "arguments: .*float32.* now"),
        (other_prior, data(), "another prior or likelihood"),
        (other_site, data(), "latent sites.*mu.* then, .*nu.* now"),
    ],
)
def test_another_model_or_other_data_are_refused_with_the_reason(path, model, y, reason):
    mcmc = SGWORLD(model, plan=path, **FAST)
    with pytest.raises(ValueError, match=f"(?s)made for another model.*{reason}"):
        mcmc.run(KEY, y)
    assert mcmc._states is None


def test_files_that_are_no_plan_are_refused_before_anything_runs(path, tmp_path):
    make = functools.partial(SGWORLD, models.gaussian)
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 30):
        (tmp_path / "cut").write_bytes(whole[:length])
        with pytest.raises(ValueError, match="truncated, or no plan"):
            make(plan=tmp_path / "cut")
    np.savez(tmp_path / "other.npz", x=np.ones(3))
    with pytest.raises(ValueError, match="no plan"):
        make(plan=tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        make(plan=tmp_path / "nothing")
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    header = json.loads(str(arrays["plan"]))
    arrays["plan"] = np.array(json.dumps({**header, "version": VERSION + 1}))
    np.savez(tmp_path / "new.npz", **arrays)
    with pytest.raises(ValueError, match=f"version {VERSION + 1}, this package reads"):
        make(plan=tmp_path / "new.npz")
    del arrays["tuning.step_size"]
    arrays["plan"] = np.array(json.dumps(header))
    np.savez(tmp_path / "less.npz", **arrays)
    with pytest.raises(ValueError, match=r"tuning\.step_size.* is missing"):
        make(plan=tmp_path / "less.npz")


def test_settings_beside_a_plan_are_refused(first, path):
    with pytest.raises(ValueError, match=r"\['batch_size'\] are part of the plan"):
        SGWORLD(models.gaussian, plan=path, batch_size=3)
    with pytest.raises(ValueError, match="one of SGWORLD, not of SGLD"):
        SGLD(models.gaussian, plan=path)
    with pytest.raises(ValueError, match="`order` is another one than the plan's"):
        SGWORLD(models.gaussian, plan=path, order="symmetric")
    with pytest.raises(ValueError, match="`init_params` cannot be given beside `plan`"):
        SGWORLD(models.gaussian, plan=path).run(KEY, data(), init_params={"mu": np.zeros(4)})
    with pytest.raises(ValueError, match="does not say which model"):
        SGWORLD(models.gaussian, plan=first.plan)


def test_a_scale_of_the_likelihood_and_any_prior_are_told_apart(tmp_path):
    """However many rows there are: sites are compared one by one, without a factor N."""

    def model(y, scale=1.0, prior=10.0):
        mu = numpyro.sample("mu", dist.Normal(0, prior))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mu, scale), obs=y)

    y = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    mcmc = SGWORLD(model, **FIXED)
    mcmc.set_up(KEY, y)
    mcmc.save_plan(tmp_path / "plan")
    SGWORLD(functools.partial(model), plan=tmp_path / "plan").set_up(KEY, y)
    for settings, site in (({"prior": 0.01}, "mu"), ({"scale": 1.003}, "y")):
        other = SGWORLD(functools.partial(model, **settings), plan=tmp_path / "plan")
        with pytest.raises(ValueError, match=f"site '{site}'.*another prior or likelihood"):
            other.set_up(KEY, y)


def test_a_plan_is_saved_only_for_the_data_that_it_was_made_for(tmp_path):
    y = data()
    mcmc = SGWORLD(models.gaussian, **FAST, **FIXED)
    mcmc.run(KEY, y)
    with pytest.raises(ValueError, match="NaN"):
        mcmc.run(KEY, np.full(203, np.nan, np.float32))
    np.testing.assert_array_equal(mcmc.to_arviz()["observed_data"]["y"], y)
    mcmc.save_plan(tmp_path / "plan")  # the failed run has changed nothing
    SGWORLD(models.gaussian, plan=tmp_path / "plan").set_up(KEY, y)
    y += 1
    with pytest.raises(ValueError, match="have changed since the set-up"):
        mcmc.save_plan(tmp_path / "other")
    assert pickle.loads(pickle.dumps(mcmc)).plan is None


def test_a_run_is_continued_on_its_own_data_only(first):
    mcmc = pickle.loads(pickle.dumps(first))
    mcmc.post_warmup_state = mcmc.last_state
    with pytest.raises(ValueError, match="numbers in the model's array arguments"):
        mcmc.run(mcmc.last_state.rng_key, data(1))
    mcmc.run(mcmc.last_state.rng_key, data())


def test_there_is_nothing_to_save_before_the_first_run(tmp_path):
    with pytest.raises(ValueError, match="no plan to save"):
        SGWORLD(models.gaussian).save_plan(tmp_path / "plan")


def test_misspelt_settings_are_named():
    with pytest.raises(
        TypeError, match=r"SGWORLD has no setting 'stepsize'. Did you mean 'step_si"
    ):
        SGWORLD(models.gaussian, stepsize=1)
    for name in ("init_params", "rng_key", "checkpoint"):
        with pytest.raises(TypeError, match=rf"no setting '{name}': it belongs to run\("):
            SGWORLD(models.gaussian, **{name: None})
    with pytest.raises(TypeError, match="'target_accept_prob', which is one of NUTS"):
        SGWORLD(models.gaussian, target_accept_prob=0.9)
    with pytest.raises(TypeError, match="SGLD has no setting 'order'"):
        SGLD(models.gaussian, order="batches")
    with pytest.raises(ValueError, match="with replacement: use SGLD"):
        SGWORLD(models.gaussian, order=Replacement())


def test_a_hessian_that_is_not_made_is_not_asked_for():
    def model(y):
        mu = numpyro.sample("mu", dist.Normal(0, 1).expand([1200]).to_event(1))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Normal(mu.sum(), 1), obs=y)

    with pytest.raises(ValueError, match="`gradient` 'taylor' needs the whole Hessian"):
        SGWORLD(model, gradient="taylor").run(KEY, data())
    with pytest.raises(ValueError, match="`preconditioner` 'dense' needs the whole Hessian"):
        SGWORLD(model, preconditioner="dense").run(KEY, data())


@dataclasses.dataclass(frozen=True)
class Backwards(FreshOrder):
    """An order of a user's own."""

    name: ClassVar[str] = "backwards"

    def next(self, rng_key, order, epoch):
        return order[::-1]


@pytest.mark.slow
def test_an_order_of_ones_own_is_given_beside_its_plan(tmp_path):
    mcmc = SGWORLD(models.gaussian, order=Backwards(), **FAST)
    mcmc.run(KEY, data())
    path = tmp_path / "plan"
    mcmc.save_plan(path)
    with pytest.raises(ValueError, match=r"Backwards.* is missing or not known.*`order`"):
        SGWORLD(models.gaussian, plan=path, **FAST)
    again = SGWORLD(models.gaussian, plan=path, order=Backwards(), **FAST)
    again.run(KEY, data())
    np.testing.assert_array_equal(draws(again), draws(mcmc))


@pytest.mark.slow
def test_rows_of_equal_curvature_are_dealt_as_before(tmp_path):
    """What is kept of the batches belongs to them: others would have another posterior."""
    size, groups = 30_000, 310
    rng = np.random.default_rng(2)
    index = rng.integers(0, groups, size).astype(np.int32)
    y = rng.poisson(np.exp(0.5 * rng.standard_normal(groups))[index]).astype(np.float32)

    def counts(index, y):
        mu, tau = numpyro.sample("mu", dist.Normal(0, 1)), numpyro.sample("tau", dist.HalfNormal(1))
        with numpyro.plate("groups", groups):
            u = numpyro.sample("u", dist.Normal(mu, tau))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Poisson(jnp.exp(u[index])), obs=y)

    first = SGWORLD(counts, **FAST)
    first.run(KEY, index, y)
    assert first.plan.fit.unit and first.plan.tuning.controls.batches is not None
    first.save_plan(tmp_path / "plan")
    taus = []
    for dealt in (first.plan.dealt, first.plan.dealt + 1):
        plan = dataclasses.replace(load_plan(tmp_path / "plan"), dealt=dealt)
        if dealt != first.plan.dealt:
            # A machine that has rounded otherwise has dealt other batches: what it kept of them
            # does not belong to those that are dealt here.
            controls = plan.tuning.controls
            other = controls.batches._replace(
                gradients=np.roll(controls.batches.gradients, 1, axis=0)
            )
            tuning = plan.tuning._replace(controls=controls._replace(batches=other))
            plan = dataclasses.replace(plan, tuning=tuning)
        save_plan(plan, tmp_path / "other")
        again = SGWORLD(counts, plan=tmp_path / "other", **FAST)
        again.run(KEY, index, y)
        taus.append(np.asarray(again.get_samples()["tau"]))
    np.testing.assert_array_equal(taus[0], first.get_samples()["tau"])
    np.testing.assert_allclose(taus[1], taus[0], rtol=1e-3)
