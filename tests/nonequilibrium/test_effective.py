"""The effective loss against the mean displacement of an epoch over all orders."""

from itertools import permutations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc import nonequilibrium as ne


def loss(w, example):
    return (jnp.tanh(w @ example["x"]) - example["y"]) ** 2 + 0.1 * jnp.sum(w**2)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    return {"x": rng.standard_normal((6, 2)), "y": rng.standard_normal(6)}


def test_mean_epoch_descends_the_effective_loss(data):
    # At the minimum of L the mean displacement of an epoch, over all orders of the rows, is
    # -eta M grad(effective loss) + O(eta^3).
    eta, batch_size, count = 1e-3, 2, 3
    minimum = ne.effective_minimum(loss, data, batch_size, eta, True, np.array([0.1, 0.1]))
    with jax.enable_x64(True):
        arrays = jax.tree.map(jnp.asarray, data)

        def epoch(rows):
            w = jnp.asarray(minimum)
            for batch in jnp.split(rows, count):
                part = jax.tree.map(lambda x, b=batch: x[b], arrays)
                w = w - eta * jax.grad(lambda v, p=part: jnp.mean(jax.vmap(loss, (None, 0))(v, p)))(
                    w
                )
            return w - minimum

        orders = jnp.asarray(list(permutations(range(6))))
        mean = np.asarray(jax.jit(jax.vmap(epoch))(orders)).mean(axis=0)
        effective = ne.effective_loss(loss, data, batch_size, eta, False)
        expected = -eta * count * np.asarray(jax.jit(jax.grad(effective))(minimum))
    np.testing.assert_allclose(mean, expected, rtol=0.02)
    assert np.linalg.norm(expected) > 1e-8


def test_effective_minimum_is_stationary(data):
    eta = 0.1
    minimum = ne.effective_minimum(loss, data, 2, eta, False, np.array([0.1, 0.1]))
    with jax.enable_x64(True):
        effective = ne.effective_loss(loss, data, 2, eta, False)
        assert np.abs(jax.jit(jax.grad(effective))(minimum)).max() < 1e-13
    nearby = minimum + 1e-3 * np.random.default_rng(0).standard_normal((20, 2))
    assert all(effective(x) > effective(minimum) for x in nearby)


def test_effective_loss_is_traced_in_the_precision_around_it(data):
    effective = ne.effective_loss(loss, data, 2, 0.1, False)
    assert effective(np.zeros(2)).dtype == np.float64
    w = jnp.array([0.2, 0.1])
    value, gradient = jax.jit(jax.value_and_grad(effective))(w)
    assert value.dtype == gradient.dtype == w.dtype == jnp.result_type(float)
    np.testing.assert_allclose(value, effective(w), rtol=1e-6)


def network_loss(w, example):
    """The seven-weight regression network of arXiv:2306.03521, N / (2 sigma^2) times the error."""
    x, y = example
    output = w[4] * jnp.tanh(w[0] * x + w[2]) + w[5] * jnp.tanh(w[1] * x + w[3]) + w[6]
    return 200 / (2 * 0.1**2) * ((output - y) ** 2 + 0.001 * jnp.sum(w**2))


@pytest.mark.slow
def test_shift_of_the_papers_regression_network():
    x = np.linspace(-3, 2.97, 200)
    data = (x, np.exp(-(x**2)) + 0.1 * np.random.default_rng(0).standard_normal(200))
    start = np.array([1.5, 1.5, 1.0, -1.0, 1.0, -1.0, 0.0])
    plain = ne.effective_minimum(network_loss, data, 10, 1e-7, True, start)
    shifted = ne.effective_minimum(network_loss, data, 10, 1e-7, False, plain)
    relative = np.linalg.norm(shifted - plain) / np.linalg.norm(plain)
    assert 3e-5 < relative < 6e-5  # about 4e-5, by the noise of the data
    # To first order the shift is -(eta / 4) H^-1 grad tr C.
    hessian = ne.loss_hessian(network_loss, plain, data)

    def noise(w):
        return np.trace(ne.minibatch_covariance(network_loss, w, data, 10))

    slope = np.array([noise(plain + e) - noise(plain - e) for e in 1e-5 * np.eye(7)]) / 2e-5
    expected = -1e-7 / 4 * np.linalg.solve(hessian, slope)
    np.testing.assert_allclose(shifted - plain, expected, atol=2e-3 * np.abs(expected).max())


def test_degenerate_minima_and_learning_rates_are_refused(data):
    def flat(w, example):
        return (w[0] + w[1] - example["y"]) ** 2

    with pytest.raises(ValueError, match=r"not positive definite.*coordinates \[0, 1\]"):
        ne.effective_minimum(flat, data, 2, 0.1, True, np.zeros(2))
    # The flat direction, w_0 - w_1, stays as it was.
    found = ne.effective_minimum(flat, data, 2, 0.1, True, np.array([0.5, 0.1]), project=True)
    np.testing.assert_allclose(found, data["y"].mean() / 2 + np.array([0.2, -0.2]), atol=1e-12)
    with pytest.raises(ValueError, match="stability limit"):
        ne.effective_minimum(loss, data, 2, 50.0, True, np.zeros(2))
    with pytest.raises(ValueError, match="`initial_position` has NaN"):
        ne.effective_minimum(loss, data, 2, 0.1, True, np.array([0.0, np.nan]))
