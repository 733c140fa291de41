"""Partitions, orders, and the identity that without-replacement sampling rests on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.gradients import control_variates, grad_estimator, logdensity_estimator

import sgworld_mcmc as sg
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition, partition
from sgworld_mcmc.gradients.weighting import batch_estimate, epoch_mean
from sgworld_mcmc.members import ORDERS, WITHOUT_REPLACEMENT

# Compiling takes most of the time: nothing here runs long.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})

_RNG = np.random.default_rng(2024)
_RANDOM = [(int(n), int(_RNG.integers(1, n + 1))) for n in _RNG.integers(2, 120, 2)]
# One row; batches of one; one batch of all; dividing; more than half; prime N; and random ones.
SIZES = [(1, 1), (7, 1), (7, 7), (12, 4), (10, 6), (101, 13), *_RANDOM]


def regression(size, dim=3):
    """Logistic regression with a strong prior, as (log prior, log likelihood, data)."""
    rng = np.random.default_rng(size)
    data = {"x": rng.normal(size=(size, dim)), "y": rng.integers(0, 2, size).astype(float)}

    def log_prior(position):
        return -50 * jnp.sum((position["w"] - 2) ** 2) - jnp.cosh(position["b"])

    def log_likelihood(position, row):
        logit = jnp.dot(row["x"], position["w"]) + position["b"]
        return row["y"] * logit - jax.nn.softplus(logit)

    return log_prior, log_likelihood, data


def rows_of(batches, dealing=()):
    """The row numbers of each batch, from a partition of arange(N)."""
    every = jax.vmap(lambda index: batches.fetch(dealing, index))(jnp.arange(batches.num_batches))
    return every.main, every.extra, every.has_extra


@pytest.mark.parametrize(("size", "batch_size"), SIZES)
def test_partition_deals_every_row_once_into_nearly_equal_batches(size, batch_size):
    @jit
    def both(key):
        contiguous = partition(key, jnp.arange(size), batch_size)
        numbered = DealtRows(jnp.arange(size), -(-size // batch_size))
        assert contiguous.size == numbered.size == size
        assert contiguous.num_batches == numbered.num_batches == -(-size // batch_size)
        return rows_of(contiguous), rows_of(numbered, numbered.renew(key, ()))

    contiguous, numbered = jax.tree.map(np.asarray, both(jax.random.key(size)))
    jax.tree.map(np.testing.assert_array_equal, contiguous, numbered)
    main, extra, has_extra = contiguous
    rows = list(main.ravel()) + ([] if extra is None else list(extra[has_extra].ravel()))
    assert sorted(rows) == list(range(size))
    assert main.shape[1] + has_extra.any() <= batch_size


def test_partition_is_random_and_keeps_rows_of_all_arrays_together():
    data = {"x": jnp.arange(20.0)[:, None] * jnp.ones(3), "y": jnp.arange(20)}
    deals = jit(jax.vmap(lambda key: partition(key, data, 7)))(
        jax.random.split(jax.random.key(0), 400)
    )
    assert deals.main["x"].shape == (400, 3, 6, 3) and deals.extra["y"].shape == (400, 2, 1)
    for part in (deals.main, deals.extra):
        np.testing.assert_array_equal(part["x"][..., 1], part["y"].astype(float))
    # Every row is as likely to be an extra one: 40 times in 400 deals, within 4.5 standard errors.
    counts = np.bincount(np.asarray(deals.extra["y"]).ravel(), minlength=20)
    assert np.abs(counts - 40).max() < 4.5 * np.sqrt(40 * 0.9)


@pytest.mark.parametrize(
    ("error", "message", "data", "batch_size"),
    [
        (ValueError, "batch_size", np.zeros(5), 6),
        (ValueError, "batch_size", np.zeros(5), 0),
        (TypeError, "batch_size", np.zeros(5), 2.0),
        (ValueError, "leading axis", {"x": np.zeros(5), "y": np.zeros(4)}, 2),
        (ValueError, "no rows", np.zeros((0, 2)), 1),
        (ValueError, "no array", {}, 1),
        (ValueError, "scalar", {"x": np.zeros(5), "y": 1.0}, 1),
    ],
)
def test_partition_names_the_offending_argument(error, message, data, batch_size):
    with pytest.raises(error, match=message):
        partition(jax.random.key(0), data, batch_size)


@pytest.mark.parametrize(
    ("size", "batch_size", "layout"),
    [(*sizes, "contiguous") for sizes in SIZES] + [(12, 4, "numbered"), (101, 13, "numbered")],
)
def test_mean_over_the_batches_is_the_full_gradient(size, batch_size, layout):
    """To rounding error in float64, with a strong prior: the prior's weight must be right too."""
    log_prior, log_likelihood, data = regression(size)
    key = jax.random.key(3)
    with jax.enable_x64(True):
        data = jax.tree.map(jnp.asarray, data)
        position = {"w": np.array([0.3, -1.0, 2.0]), "b": np.array(0.7)}
        center = {"w": np.array([0.2, -1.1, 1.0]), "b": np.array(0.1)}
        if layout == "contiguous":
            batches = partition(key, data, batch_size)
        else:
            batches = DealtRows(data, -(-size // batch_size))
        count, dealing = batches.num_batches, batches.init(key)

        def full(position):  # the sum over all rows, written out
            rows = jax.vmap(log_likelihood, (None, 0))(position, data)
            return log_prior(position) + jnp.sum(rows)

        plain = grad_estimator(log_prior, log_likelihood, size)
        value = logdensity_estimator(log_prior, log_likelihood, size)

        @jit
        def everything(position, data, batches):
            variates = control_variates(plain, center, data)

            def all_three(position, rows):
                return tuple(f(position, rows) for f in (plain, variates, value))

            def batch(b):
                return batch_estimate(all_three, position, batches.fetch(dealing, b), batches)

            each = jax.vmap(batch)(jnp.arange(count))
            mean = jax.tree.map(lambda x: x.mean(axis=0), each)
            exact = jax.grad(full)(position), full(position)
            return mean, epoch_mean(all_three, position, batches, dealing=dealing), each, exact

        mean, scanned, each, (gradient, density) = everything(position, data, batches)
        for wanted, *found in (
            (gradient, mean[0], scanned[0]),
            (gradient, mean[1], scanned[1]),
            (density, mean[2], scanned[2]),
        ):
            for tree in found:
                jax.tree.map(
                    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), tree, wanted
                )
                assert all(x.dtype == jnp.float64 for x in jax.tree.leaves(tree))
        if count > 1:
            # The identity is not trivial: the batches differ.
            assert np.ptp(np.asarray(each[0]["w"]), axis=0).min() > 1e-3


def test_one_batch_is_the_same_memory_for_all_chains():
    """Else every chain of a vectorised run would copy all the data at each step."""
    batches = partition(jax.random.key(0), jnp.arange(12.0), 12)
    index = jnp.zeros(3, int)
    # out_axes=None is refused for whatever depends on the mapped index.
    found = jax.vmap(lambda i: batches.fetch((), i).main, out_axes=None)(index)
    np.testing.assert_array_equal(np.sort(found), np.arange(12.0))


@pytest.mark.slow
def test_a_plain_mean_over_ragged_batches_would_be_biased():
    """What the weights are for: without them the same comparison fails by far."""
    log_prior, log_likelihood, data = regression(10)
    estimator = grad_estimator(log_prior, log_likelihood, 10)
    position = {"w": jnp.array([0.3, -1.0, 2.0]), "b": jnp.array(0.7)}
    batches = FixedPartition(jax.tree.map(lambda x: x[None, :6], data))
    short = FixedPartition(jax.tree.map(lambda x: x[None, 6:], data))
    parts = [estimator(position, b.fetch((), jnp.array(0)).main) for b in (batches, short)]
    naive = np.mean([np.asarray(p["w"]) for p in parts], axis=0)
    full = np.asarray(estimator(position, data)["w"])
    assert np.abs(naive / full - 1).max() > 1e-3


@pytest.mark.parametrize("kind", ORDERS)
def test_orders(kind):
    count, epochs = 11, 7
    keys = jax.random.split(jax.random.key(5), epochs)
    order = ORDERS[kind]()
    orders = [order.init(keys[0], count)]
    for epoch in range(1, epochs):
        orders.append(order.next(keys[epoch], orders[-1], jnp.array(epoch)))
    assert all(o.dtype == jnp.int32 and o.shape == (count,) for o in orders)
    orders = np.array(orders)
    if kind == "replacement":
        assert orders.min() >= 0 and orders.max() < count
        assert any(len(set(o)) < count for o in orders)
        return
    assert all(sorted(o) == list(range(count)) for o in orders)
    distinct = {tuple(o) for o in orders}
    if kind == "once":
        assert len(distinct) == 1
    else:
        assert len(distinct) == epochs
    if kind == "symmetric":
        np.testing.assert_array_equal(orders[1::2], orders[:-1:2, ::-1])


@pytest.mark.parametrize("kind", WITHOUT_REPLACEMENT)
def test_every_epoch_of_the_kernel_uses_every_row_exactly_once(kind):
    """The estimator counts its rows; the position adds the counts up, whatever the order."""
    size, batch_size = 17, 5

    def estimator(position, rows):
        return jnp.mean(jax.nn.one_hot(rows, size, dtype=position.dtype), axis=0)

    with jax.enable_x64(True):
        alg = sg.sgworld(estimator, jnp.arange(size), batch_size, 1.0, order=kind, temperature=0.0)
        state = alg.init(jnp.zeros(size), jax.random.key(0))
        step = jit(alg.step)
        for epoch in range(1, 4):
            state, info = step(jax.random.key(epoch), state)
            # Weight M for the sum over a batch's rows, and estimates are per N rows.
            np.testing.assert_allclose(state.position, epoch * 4 / size, rtol=1e-12)
            assert int(state.step) == 4 * epoch and int(info.finite_steps) == 4


def _epoch(order, key, step_size, position, size=23, batch_size=7, state_order=None):
    log_prior, log_likelihood, data = regression(size)
    estimator = grad_estimator(log_prior, log_likelihood, size)
    kernel = sg.sgworld.build_kernel(order)
    data = jax.tree.map(jnp.asarray, data)
    batches = partition(jax.random.key(0), data, batch_size)
    if order == "examples":
        batches = DealtRows(data, -(-size // batch_size))
    state = sg.sgworld.init(position, jax.random.key(1), batches.num_batches, order=order)
    if state_order is not None:
        state = state._replace(order=state_order)
    run = jit(lambda k, s, b, h: kernel(k, s, estimator, b, h, 0.0)[0])
    return estimator, batches, state, lambda k, h: run(k, state, batches, h).position


@pytest.mark.slow
def test_displacement_of_an_epoch_without_noise():
    """h M grad log p + h^2 T_p + O(h^3), T_p = sum_{i<j} H_{p(j)} g_{p(i)} (arXiv:2306.03521).

    For a ragged partition (6, 6, 6, 5 rows), in float64: the first order for every order of the
    batches, the second by Richardson extrapolation.
    """
    with jax.enable_x64(True):
        position = {"w": jnp.array([0.3, -1.0, 2.0]), "b": jnp.array(0.7)}
        estimator, batches, state, run = _epoch("batches", None, None, position)
        count = batches.num_batches
        full = epoch_mean(estimator, position, batches)
        flat, unravel = jax.flatten_util.ravel_pytree(position)
        ravel = lambda tree: np.asarray(jax.flatten_util.ravel_pytree(tree)[0])  # noqa: E731

        def gradient(x, index):
            tree = batch_estimate(estimator, unravel(x), batches.fetch((), index), batches)
            return jax.flatten_util.ravel_pytree(tree)[0]

        order = state.order
        g = np.asarray(jit(jax.vmap(gradient, (None, 0)))(flat, order))
        hessian = np.asarray(jit(jax.vmap(jax.jacfwd(gradient), (None, 0)))(flat, order))
        second = sum(hessian[j] @ g[i] for j in range(count) for i in range(j))

        def rest(h):
            moved = ravel(run(jax.random.key(2), h)) - np.asarray(flat)
            return (moved - h * count * ravel(full)) / h**2

        coarse, fine, finest = rest(2e-5), rest(1e-5), rest(5e-6)
        # The remainder over h^2 has a limit, and its own error halves with h.
        ratio = np.linalg.norm(coarse - fine) / np.linalg.norm(fine - finest)
        np.testing.assert_allclose(ratio, 2, atol=0.05)
        np.testing.assert_allclose(2 * finest - fine, second, rtol=1e-4)
        assert np.abs(second).min() > 1


@pytest.mark.slow
def test_only_examples_deals_the_rows_anew():
    """Without noise, and from one order of the batches, the key matters only to ``examples``."""
    position = {"w": jnp.array([0.3, -1.0, 2.0]), "b": jnp.array(0.7)}
    for order, same in (("batches", True), ("symmetric", True), ("examples", False)):
        run = _epoch(order, None, None, position)[-1]
        one, other = run(jax.random.key(1), 0.003), run(jax.random.key(2), 0.003)
        assert np.array_equal(one["w"], other["w"]) == same
