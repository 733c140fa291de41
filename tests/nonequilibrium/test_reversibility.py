"""The test of detailed balance: its level, its power, its nonlinear form."""

import numpy as np
import pytest
from linear_chains import reversible, simulate
from scipy.stats import kstest

from sgworld_mcmc import nonequilibrium as ne


def p_values(trajectories, **settings):
    return np.array([ne.detailed_balance_violation(x, **settings).p_value for x in trajectories])


@pytest.mark.slow
def test_p_values_are_uniform_under_detailed_balance():
    # Anisotropic (curvatures 1 to 10), correlated over 1 / 0.05 = 20 steps; 500 seeds.
    x = simulate(*reversible([1.0, 3.0, 10.0], 0.05), 3000, 500, seed=0)
    p = p_values(x)
    assert kstest(p, "uniform").pvalue > 0.01
    assert np.sum(p[:100] > 0.01) >= 97
    assert np.sum(p <= 0.01) <= 13  # 5 expected; 13 has probability 0.2 % in excess


def test_p_values_are_uniform_with_several_chains_and_lags():
    x = simulate(*reversible([1.0, 4.0], 0.1), 500, 2000, seed=1).reshape(500, 4, 500, 2)
    assert kstest(p_values(x, lags=(1, 5)), "uniform").pvalue > 0.01


def test_few_blocks_and_many_contrasts_keep_the_level():
    x = simulate(*reversible(np.linspace(1, 3, 8), 0.2), 500, 400, seed=2)
    result = ne.detailed_balance_violation(x[0])
    assert result.degrees_of_freedom[0] == 1  # 28 contrasts: a direction, learned and tested
    assert kstest(p_values(x), "uniform").pvalue > 0.01


@pytest.mark.parametrize("size", [4, 5])
def test_walks_that_alternate_keep_the_level(size):
    """A symmetric walk on a ring: products of its modes alternate, on an even ring for ever."""
    rng = np.random.default_rng(3)
    places = np.cumsum(rng.choice([1, -1], size=(300, 3000)), axis=1) % size
    p = p_values(np.eye(size)[places][..., :-1])
    # 15 and 3 expected; a binomial number is larger with probability 0.1 %.
    assert np.sum(p < 0.05) <= 28 and np.sum(p < 0.01) <= 9
    # A walk that goes one way more often than the other is seen.
    driven = np.cumsum(rng.choice([1, -1], size=(20, 3000), p=[0.6, 0.4]), axis=1) % size
    p = p_values(np.eye(size)[driven][..., :-1])
    assert np.all(p < 0.02) and np.median(p) < 1e-3


def sgld(step, steps, chains, seed):
    """SGLD with replacement on an anisotropic Gaussian: the batch noise is not its curvature's."""
    curvature = np.diag([1.0, 10.0])
    batch_noise = np.array([[100.0, 150.0], [150.0, 400.0]])
    noise = 2 * step * np.eye(2) + step**2 * batch_noise
    return simulate(np.eye(2) - step * curvature, noise, steps, chains, seed)


def test_sgld_with_replacement_violates_detailed_balance():
    x = sgld(0.02, 20_000, 4, seed=0)
    result = ne.detailed_balance_violation(x)
    assert result.p_value < 1e-6
    lag, i, j, contrast, z = result.largest(1)[0]
    assert (lag, {i, j}) == (1, {"0", "1"})
    assert abs(z) > 5 and abs(contrast) > 0
    assert result.z_scores.shape == (1, 2, 2)
    np.testing.assert_allclose(result.z_scores[0], -result.z_scores[0].T)
    # The sign is that of the areal velocity.
    assert np.sign(result.contrasts[0, 0, 1]) == np.sign(ne.areal_velocity(x)[0, 1])
    assert "violated" in str(result)


def test_power_is_what_the_entropy_production_allows():
    # z^2 of any current is at most n times half the rate for small rates; areas at lag 1 reach it.
    step, steps = 0.02, 50_000
    curvature = np.diag([1.0, 10.0])
    noise = 2 * step * np.eye(2) + step**2 * np.array([[100.0, 150.0], [150.0, 400.0]])
    rate = ne.linear_chain_entropy_production_rate(np.eye(2) - step * curvature, noise)
    statistics = [ne.detailed_balance_violation(x).statistic for x in sgld(step, steps, 20, 1)]
    assert 0.8 < np.mean(statistics) / (steps * rate / 2) < 1.2


def test_single_coordinate_uses_nonlinear_contrasts():
    rng = np.random.default_rng(0)
    x = np.zeros((300, 2000))
    kicks = rng.standard_normal((300, 2000))
    skewed = rng.standard_exponential((300, 2000)) - 1
    y = np.zeros_like(x)
    for k in range(1, 2000):
        x[:, k] = 0.7 * x[:, k - 1] + kicks[:, k]
        y[:, k] = 0.7 * y[:, k - 1] + skewed[:, k]
    assert kstest(p_values(x), "uniform").pvalue > 0.01
    # Shot noise rises at once and decays slowly.
    assert np.mean(p_values(y[:20]) < 1e-4) > 0.9
    assert ne.detailed_balance_violation(x[0]).order == 3
    with pytest.raises(ValueError, match="order=3"):
        ne.detailed_balance_violation(x[0], order=2)


def test_short_runs_say_so():
    x = simulate(*reversible([1.0, 2.0], 0.005), 1000, 1, seed=0)[0]
    assert "rough" in str(ne.detailed_balance_violation(x))
    with pytest.raises(ValueError, match="too short for an error bar at lag 50"):
        ne.detailed_balance_violation(x[:200], lags=50)


def test_symmetry_test_of_accumulated_contrasts():
    rng = np.random.default_rng(0)
    null = [ne.symmetry_test(rng.standard_normal((4, 10, 3)))[1] for _ in range(400)]
    assert kstest(null, "uniform").pvalue > 0.01
    assert ne.symmetry_test(rng.normal([0, 2, 0], 1.0, (4, 10, 3)))[1] < 1e-6
