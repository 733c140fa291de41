"""Properties of orders and feeds, for numbers of rows and batches that nobody has thought of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.members import FEEDS, ORDERS

# Every new shape is compiled.
few = settings(max_examples=20, deadline=None, derandomize=True)
seeds = st.integers(0, 2**32 - 1)


@pytest.mark.parametrize("name", ORDERS)
@few
@given(count=st.integers(1, 40), seed=seeds, epoch=st.integers(1, 1000))
def test_orders(name, count, seed, epoch):
    order, key = ORDERS[name](), jax.random.key(seed)
    first_key, next_key = jax.random.split(key)
    first = order.init(first_key, count)
    following = order.next(next_key, first, epoch)
    for one in (first, following):
        assert one.shape == (count,) and one.dtype == jnp.int32
        assert one.min() >= 0 and one.max() < count
        if order.period:
            assert sorted(one.tolist()) == list(range(count))
    if name == "once":
        assert following.tolist() == first.tolist()
    if name == "symmetric" and epoch % 2:
        assert following.tolist() == first.tolist()[::-1]
    # Any key is as good as another, and the same one gives the same order.
    assert order.next(next_key, first, epoch).tolist() == following.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("name", FEEDS)
@few
@given(data=st.data(), size=st.integers(1, 60), seed=seeds)
def test_feeds(name, data, size, seed):
    batch_size = data.draw(st.integers(1, size))
    deal_key, init_key, renew_key = jax.random.split(jax.random.key(seed), 3)
    with jax.enable_x64(True):
        rows = {"number": np.arange(size), "y": np.random.default_rng(seed).normal(size=size)}
        feed = FEEDS[name].deal(deal_key, rows, batch_size)
        assert feed.size == size and feed.num_batches == -(-size // batch_size)
        dealing = feed.init(init_key)
        for _ in range(2):
            seen, estimates, lengths = [], [], []
            for index in range(feed.num_batches):
                batch = feed.fetch(dealing, index)
                own = batch.main["number"].tolist()
                if batch.extra is not None and bool(batch.has_extra):
                    own += batch.extra["number"].tolist()
                # Arrays of one row stay together.
                np.testing.assert_array_equal(rows["y"][batch.main["number"]], batch.main["y"])
                seen, lengths = seen + own, [*lengths, len(own)]
                mean = lambda _, rows: jnp.mean(rows["y"])  # noqa: E731
                estimates.append(float(batch_estimate(mean, None, batch, feed)))
            assert max(lengths) - min(lengths) <= 1 and max(lengths) <= batch_size
            assert len(seen) == size and set(seen) <= set(range(size))
            if feed.partitions:
                assert sorted(seen) == list(range(size))
                # The identity that all cancellations rest on, to rounding error.
                assert abs(np.mean(estimates) - rows["y"].mean()) < 1e-12
            dealing = feed.renew(renew_key, dealing)


@pytest.mark.parametrize("name", [name for name in FEEDS if name != "fixed partition"])
def test_rows_are_dealt_anew(name):
    """Equal batches in two epochs of 40 rows would be a chance of less than 1 in 10^30."""
    feed = FEEDS[name].deal(jax.random.key(0), np.arange(40), 7)
    first = feed.init(jax.random.key(1))
    second = feed.renew(jax.random.key(2), first)
    again = feed.renew(jax.random.key(2), first)
    assert (np.asarray(first.main) != np.asarray(second.main)).any()
    np.testing.assert_array_equal(second.main, again.main)
