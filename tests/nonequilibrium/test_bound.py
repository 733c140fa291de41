"""The uncertainty bound against exact entropy production of random Markov chains."""

import numpy as np
import pytest
from linear_chains import (
    joint_and_rate,
    linearised_sgd,
    random_markov_chains,
    simulate,
    simulate_states,
)

from sgworld_mcmc import nonequilibrium as ne
from sgworld_mcmc.nonequilibrium import currents


def test_exact_bound_is_never_above_the_exact_rate():
    rng = np.random.default_rng(0)
    plain_fails = 0
    for matrix in random_markov_chains(200, seed=0):
        joint, rate = joint_and_rate(matrix)
        weights = rng.standard_normal((50, 5, 5))
        flows = np.where(joint > 0, joint, 1)
        weights[0] = np.log(flows)  # the production itself, once made antisymmetric
        weights = weights - weights.swapaxes(1, 2)
        mean = np.sum(joint * weights, axis=(1, 2))
        variance = np.sum(joint * weights**2, axis=(1, 2)) - mean**2
        assert np.all(ne.uncertainty_bound(mean, variance) <= rate * (1 + 1e-9) + 1e-12)
        plain_fails += np.any(2 * mean**2 / variance > rate * (1 + 1e-9))
    assert plain_fails > 50  # the continuous-time form is no bound here


def test_estimated_bound_is_never_above_the_exact_rate():
    matrices = random_markov_chains(200, seed=1)
    states = simulate_states(matrices, 4000, seed=2)
    shares = []
    for matrix, state in zip(matrices, states, strict=True):
        rate = joint_and_rate(matrix)[1]
        result = ne.entropy_production_bound(np.eye(5)[state])
        assert result.bound <= rate
        assert result.estimate <= rate + 3.5 * result.standard_error + 1e-12
        if rate > 0.05:
            shares.append(result.estimate / rate)
    assert np.median(shares) > 0.5  # and of some use


def test_linear_chain_is_bounded_in_memory_and_value(monkeypatch):
    step = 0.1
    hessian, diffusion = linearised_sgd(step)
    transition = np.eye(3) - step * hessian
    x = simulate(transition, 2 * diffusion, 5000, 40, seed=0)
    rate = ne.linear_chain_entropy_production_rate(transition, 2 * diffusion)
    whole = ne.entropy_production_bound(x)
    assert 0.3 * rate < whole.bound < whole.estimate < rate
    monkeypatch.setattr(currents, "_ENTRIES", 2**15)
    parts = ne.entropy_production_bound(x)
    assert 0.3 * rate < parts.estimate < rate + 3 * parts.standard_error
    # Stretches of 64 steps come from the summed currents, and are the same ones.
    summed = ne.entropy_production_bound(x, 64)
    monkeypatch.undo()
    stepwise = ne.entropy_production_bound(x, 64)
    np.testing.assert_allclose(summed.estimate, stepwise.estimate, rtol=1e-9)


def test_given_current_and_bad_ones():
    state = np.cumsum(np.random.default_rng(0).choice([1, -1], size=20_000, p=[0.8, 0.2])) % 3
    rate = 0.6 * np.log(4)

    def hops(x, y):
        return (y[:, 0] - x[:, 0] + 1) % 3 - 1

    result = ne.entropy_production_bound(state, current=hops, length=1)
    exact = np.log1p(2 * 0.6**2 / (1 - 0.6**2))
    assert abs(result.estimate - exact) < 3 * result.standard_error
    assert result.estimate < rate
    with pytest.raises(ValueError, match="antisymmetric"):
        ne.entropy_production_bound(state, current=lambda x, y: y[:, 0] + x[:, 0])
    with pytest.raises(ValueError, match="`length` 9000 leaves fewer"):
        ne.entropy_production_bound(np.eye(3)[state], length=9000)
    with pytest.raises(ValueError, match="does not move"):
        ne.entropy_production_bound(np.ones((200, 2)))


def test_skewed_single_coordinate_has_a_bound():
    rng = np.random.default_rng(1)
    x = np.zeros((50, 2000))
    kicks = rng.standard_exponential(x.shape) - 1
    for k in range(1, 2000):
        x[:, k] = 0.7 * x[:, k - 1] + kicks[:, k]
    result = ne.entropy_production_bound(x[..., None])
    assert result.bound > 0
