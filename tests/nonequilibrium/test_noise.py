"""Batch covariances and diffusion matrices against enumeration of all batches and all orders."""

from itertools import combinations, pairwise, permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc import nonequilibrium as ne


def regression_loss(w, example):
    return (jnp.tanh(w @ example["x"]) - example["y"]) ** 2 + 0.05 * jnp.sum(w**4)


def quadratic_loss(w, example):
    return 0.5 * w @ (jnp.diag(jnp.array([1.0, 4.0])) @ w) - w @ example["y"]


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((6, 2)), "y": rng.standard_normal(6)}


POSITION = np.array([0.3, -0.4])


def derivatives(loss, data):
    """(N, D) gradients and (N, D, D) Hessians of the examples, float64."""
    with jax.enable_x64(True):
        functions = jax.jit(
            jax.vmap(lambda w, e: (jax.grad(loss)(w, e), jax.hessian(loss)(w, e)), (None, 0))
        )
        gradient, hessian = functions(POSITION, data)
    return np.asarray(gradient), np.asarray(hessian)


def enumerated_order_sums(gradients, hessians, sizes):
    """T_p of every permutation of the rows, (orders, D), batches of these sizes in place."""
    size, count = len(gradients), len(sizes)
    edges = np.cumsum([0, *sizes])
    sums = []
    for rows in permutations(range(size)):
        batches = [list(rows[a:b]) for a, b in pairwise(edges)]
        g = [count / size * gradients[b].sum(axis=0) for b in batches]
        h = [count / size * hessians[b].sum(axis=0) for b in batches]
        sums.append(sum(h[j] @ g[i] for j in range(count) for i in range(j)))
    return np.array(sums)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 6])
def test_minibatch_covariance_is_that_of_all_batches(data, batch_size):
    gradients, _ = derivatives(regression_loss, data)
    batches = [gradients[list(b)].mean(axis=0) for b in combinations(range(6), batch_size)]
    expected = np.cov(np.array(batches).T, ddof=0) if len(batches) > 1 else np.zeros((2, 2))
    result = ne.minibatch_covariance(regression_loss, POSITION, data, batch_size)
    assert result.dtype == np.float64
    np.testing.assert_allclose(result, expected, rtol=1e-10, atol=1e-14)
    step = ne.diffusion_matrix(regression_loss, POSITION, data, batch_size, 0.1, True)
    np.testing.assert_allclose(step, 0.005 * expected, rtol=1e-10, atol=1e-14)


@pytest.mark.slow
def test_chunks_change_nothing(monkeypatch, data):
    whole = ne.minibatch_covariance(regression_loss, POSITION, data, 2)
    loss = ne.effective_loss(regression_loss, data, 2, 0.1, False)(POSITION)
    hessian = ne.loss_hessian(regression_loss, POSITION, data)
    jax.clear_caches()
    monkeypatch.setattr("sgworld_mcmc.nonequilibrium.losses._CHUNK_ENTRIES", 8)  # 4 rows, then 2
    parts = ne.minibatch_covariance(regression_loss, POSITION, data, 2)
    np.testing.assert_allclose(parts, whole, rtol=1e-12)
    in_parts = ne.effective_loss(regression_loss, data, 2, 0.1, False)
    np.testing.assert_allclose(in_parts(POSITION), loss, rtol=1e-13)
    np.testing.assert_allclose(
        ne.loss_hessian(regression_loss, POSITION, data), hessian, rtol=1e-12
    )
    jax.clear_caches()


def all_order_sums(gradients, hessians):
    """T_p of five rows in batches of two, two and one: the short batch has no fixed place."""
    places = ([2, 2, 1], [2, 1, 2], [1, 2, 2])
    return np.concatenate([enumerated_order_sums(gradients, hessians, s) for s in places])


def scattered_loss(w, example):
    """Curvatures that differ more between examples than their mean."""
    return 0.5 * jnp.sum((0.2 + example["x"]) * w**2) - jnp.sum(w) * example["y"]


def test_sampled_orders_agree_with_all_orders(data):
    rows = {name: array[:5] for name, array in data.items()}
    exact = np.cov(all_order_sums(*derivatives(scattered_loss, rows)).T, ddof=0) / 2
    scale = np.sqrt(np.outer(np.diag(exact), np.diag(exact)))
    sampled = ne.diffusion_matrix(scattered_loss, POSITION, rows, 2, 0.1, False) / 1e-4
    # A standard error is at most sqrt(2 / 4096) = 2.2 %.
    assert np.abs((sampled - exact) / scale).max() < 4.5 * np.sqrt(2 / 4096)
    closed = ne.diffusion_matrix(scattered_loss, POSITION, rows, 2, 0.1, False, "closed") / 1e-4
    assert np.abs((closed - exact) / scale).max() > 0.15  # what the batch Hessians add


def test_closed_form_is_exact_for_equal_hessians():
    data = {"y": np.random.default_rng(1).standard_normal((6, 2))}
    sums = enumerated_order_sums(*derivatives(quadratic_loss, data), [2, 2, 2])
    exact = np.cov(sums.T, ddof=0) / 2
    result = ne.diffusion_matrix(quadratic_loss, POSITION, data, 2, 0.1, False, "closed")
    np.testing.assert_allclose(result, 1e-4 * exact, rtol=1e-8)


def test_fixed_partition_uses_its_own_covariance():
    rng = np.random.default_rng(2)
    data = {"y": rng.standard_normal((6, 2))}
    gradients, hessians = derivatives(quadratic_loss, data)
    g = gradients.reshape(3, 2, 2).mean(axis=1)
    sums = [hessians[0] @ (g[p[0]] * 2 + g[p[1]]) for p in permutations(range(3))]
    result = ne.diffusion_matrix(quadratic_loss, POSITION, data, 2, 0.1, False, order="batches")
    np.testing.assert_allclose(result, 0.5e-4 * np.cov(np.array(sums).T, ddof=0), rtol=1e-8)


def test_bad_input_is_named(data):
    with pytest.raises(ValueError, match="stability limit"):
        ne.diffusion_matrix(regression_loss, POSITION, data, 2, 50.0, False)
    with pytest.raises(ValueError, match="flat array"):
        ne.minibatch_covariance(regression_loss, POSITION[None], data, 2)
    with pytest.raises(ValueError, match=r"must return a scalar"):
        ne.minibatch_covariance(lambda w, e: w, POSITION, data, 2)
    with pytest.raises(ValueError, match=r"batch_size.*between 1 and 6"):
        ne.minibatch_covariance(regression_loss, POSITION, data, 7)
    broken = {**data, "y": np.where(np.arange(6) == 3, np.nan, data["y"])}
    with pytest.raises(ValueError, match=r"'y'.*NaN.*row 3"):
        ne.minibatch_covariance(regression_loss, POSITION, broken, 2)
    with pytest.raises(ValueError, match="Did you mean"):
        ne.diffusion_matrix(regression_loss, POSITION, data, 2, 0.1, False, "sample")
