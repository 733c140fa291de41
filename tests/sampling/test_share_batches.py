"""Chains that use the same batch at a time: one order for all, each chain with its own law."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc import SGWORLD, exact

GIVEN = dict(
    num_warmup=0,
    batch_size=50,
    step_size=0.05,
    steps_per_draw=20,
    gradient="plain",
    progress_bar=False,
)


@pytest.fixture(scope="module")
def target():
    return exact.LinearRegression(num_data=1000, dim=3)


def _run(target, share, sampler=SGWORLD, seed=1, **settings):
    mcmc = sampler(target.model, share_batches=share, **{"num_chains": 3, **GIVEN, **settings})
    mcmc.run(jax.random.key(seed), *target.data)
    return mcmc


SLOW = [pytest.param(order, marks=pytest.mark.slow) for order in ("symmetric", "once", "examples")]


@pytest.mark.parametrize("order", ["batches", *SLOW])
@pytest.mark.filterwarnings("ignore")
def test_all_chains_have_one_order_which_is_new_each_epoch(target, order):
    orders, dealings = [], []
    for draws in (1, 2, 5):
        state = _run(target, True, order=order, num_samples=draws).last_state
        assert sorted(state.order[0].tolist()) == list(range(20))
        for kept, found in ((orders, state.order), (dealings, state.dealing)):
            for leaf in jax.tree.leaves(found):
                assert (leaf == leaf[:1]).all()
            kept.append(np.concatenate([np.ravel(x[0]) for x in jax.tree.leaves(found)] or [[]]))
        assert len(np.unique(state.position[:, 0])) == 3  # noise of their own
    own = _run(target, False, order=order, num_samples=5).last_state
    fresh = dealings if order == "examples" else orders
    if order != "once":
        assert (fresh[0] != fresh[1]).any() and (fresh[1] != fresh[2]).any()
        apart = own.dealing if order == "examples" else own.order
        assert any((leaf != leaf[:1]).any() for leaf in jax.tree.leaves(apart))


@pytest.mark.filterwarnings("ignore")
def test_rows_are_read_once_for_all_chains(target):
    """No array of the compiled step has the rows of a batch once for each chain."""
    rows, columns = GIVEN["batch_size"], target.data[0].shape[1]
    for share in (True, False):
        mcmc = _run(target, share, num_samples=1)
        sample = lambda state, mcmc=mcmc: mcmc.sampler.sample(state, (mcmc.data,), {})  # noqa: E731
        text = str(jax.make_jaxpr(sample)(mcmc.last_state))
        assert (f"f32[3,{rows},{columns}]" in text) != share


@pytest.mark.filterwarnings("ignore")
def test_each_chain_has_the_posterior(target):
    """The noise of shared batches cancels within an epoch, as that of own batches does."""
    mcmc = _run(target, True, num_chains=40, num_samples=150, num_warmup=30)
    draws = mcmc.get_samples(group_by_chain=True)["beta"]
    mean, sd = target.mean["beta"], target.sd
    assert np.abs((draws.mean((0, 1)) - mean) / sd).max() < 0.1
    assert np.abs(draws.std((0, 1)) / sd - 1).max() < 0.08


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_run_goes_on_in_the_same_stream(target, tmp_path):
    whole = _run(target, True, num_samples=8)
    mcmc = SGWORLD(target.model, share_batches=True, num_chains=3, num_samples=8, **GIVEN)
    mcmc.run(jax.random.key(1), *target.data, checkpoint=tmp_path / "kept", every=1)
    again = SGWORLD(target.model, share_batches=True, num_chains=3, num_samples=8, **GIVEN)
    again.run(jax.random.key(1), *target.data, checkpoint=tmp_path / "kept", resume=True)
    for other in (mcmc, again):
        np.testing.assert_array_equal(other.get_samples()["beta"], whole.get_samples()["beta"])


@pytest.mark.parametrize(
    "settings, error, match",
    [
        ({"share_batches": 1}, TypeError, "`share_batches` must be True or False"),
        ({"chain_method": "sequential"}, ValueError, "chains that run together"),
        ({"devices": 1}, ValueError, "one device"),
    ],
)
def test_wrong_settings(target, settings, error, match):
    with pytest.raises(error, match=match):
        sampler = SGWORLD(target.model, **{"share_batches": True, **settings})
        sampler.run(jax.random.key(0), *target.data)


def _streamed(target, folder):
    """Return the target with its rows in files."""
    for number, rows in enumerate(target.data):
        np.save(folder / f"{number}.npy", np.asarray(rows))
    maps = [np.load(folder / f"{number}.npy", mmap_mode="r") for number in range(2)]
    return SimpleNamespace(model=target.model, data=maps, mean=target.mean, sd=target.sd)


@pytest.mark.parametrize("order", ["batches", pytest.param("examples", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")
def test_streamed_rows(target, tmp_path, order):
    """One order for all chains, rows that are read once for them, and the posterior."""
    rows, columns = GIVEN["batch_size"], target.data[0].shape[1]
    given = dict(stream=True, order=order, num_chains=40, num_samples=150, num_warmup=30)
    streamed = _streamed(target, tmp_path)
    mcmc = _run(streamed, True, **given)
    state = mcmc.last_state
    assert (state.order == state.order[:1]).all() and (state.dealing == state.dealing[:1]).all()
    assert sorted(state.order[0].tolist()) == list(range(state.order.shape[1]))
    text = str(jax.make_jaxpr(lambda state: mcmc.sampler.sample(state, (mcmc.data,), {}))(state))
    assert f"f32[40,{rows},{columns}]" not in text
    draws = mcmc.get_samples(group_by_chain=True)["beta"]
    assert np.abs((draws.mean((0, 1)) - target.mean["beta"]) / target.sd).max() < 0.1
    assert np.abs(draws.std((0, 1)) / target.sd - 1).max() < 0.08
    # Chains are apart by the noise of their own: their means differ as those of any chains do.
    single = np.abs(np.corrcoef(draws[:, :, 0]))[~np.eye(40, dtype=bool)]
    assert single.mean() < 0.2


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_streamed_run_goes_on_in_the_same_stream(target, tmp_path):
    streamed = _streamed(target, tmp_path)
    whole = _run(streamed, True, stream=True, num_samples=8)
    again = _run(streamed, True, stream=True, num_samples=3)
    again.num_samples = 5
    again.post_warmup_state = again.last_state
    again.run(again.last_state.rng_key, *streamed.data)
    np.testing.assert_array_equal(
        again.get_samples(group_by_chain=True)["beta"],
        whole.get_samples(group_by_chain=True)["beta"][:, 3:],
    )


@pytest.mark.slow
def test_one_chain_may_share_with_nobody(target):
    mcmc = _run(target, True, num_chains=1, num_samples=200)
    assert jnp.isfinite(mcmc.get_samples()["beta"]).all()
