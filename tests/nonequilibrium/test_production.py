"""Entropy production of trajectories: theory step by step, plug-in and variational estimates."""

import jax
import numpy as np
import pytest
from linear_chains import linearised_sgd, reversible, simulate

from sgworld_mcmc import nonequilibrium as ne


def chain(step, steps, chains, seed):
    hessian, diffusion = linearised_sgd(step)
    transition = np.eye(3) - step * hessian
    x = simulate(transition, 2 * diffusion, steps, chains, seed)
    exact = ne.linear_chain_entropy_production_rate(transition, 2 * diffusion)
    return x, exact


def production(x, step, **settings):
    hessian, diffusion = linearised_sgd(step)
    covariance = ne.stationary_covariance(hessian, diffusion, step)
    circulation = ne.circulation_matrix(hessian, covariance, step)
    return ne.entropy_production(x, circulation, covariance, diffusion, np.zeros(3), **settings)


def test_production_follows_its_definition_across_chunks():
    step = 0.1
    x, _ = chain(step, 40_000, 2, seed=0)
    hessian, diffusion = linearised_sgd(step)
    covariance = ne.stationary_covariance(hessian, diffusion, step)
    circulation = ne.circulation_matrix(hessian, covariance, step)
    velocity = -x @ (circulation @ np.linalg.inv(covariance)).T
    force = velocity @ np.linalg.inv(diffusion)
    expected = np.sum(force[:, :-1] * np.diff(x, axis=1), axis=2)
    sigma = production(x, step)
    assert sigma.shape == (2, 39_999)
    np.testing.assert_allclose(sigma, expected, atol=1e-12)
    np.testing.assert_allclose(production(x[0], step), expected[0], atol=1e-12)
    middle = np.sum((force[:, :-1] + force[:, 1:]) / 2 * np.diff(x, axis=1), axis=2)
    np.testing.assert_allclose(production(x, step, midpoint=True), middle, atol=1e-12)


def test_mean_production_is_the_theoretical_rate():
    step = 0.05
    x, exact = chain(step, 2000, 500, seed=1)
    hessian, diffusion = linearised_sgd(step)
    covariance = ne.stationary_covariance(hessian, diffusion, step)
    circulation = ne.circulation_matrix(hessian, covariance, step)
    theory = ne.entropy_production_rate(circulation, covariance, diffusion)
    means = production(x, step).mean(axis=1)
    error = means.std() / np.sqrt(500)
    assert abs(means.mean() - theory) < 0.1 * theory + 3 * error and error < 0.1 * theory
    assert abs(theory / exact - 1) < 0.06


def test_integral_theorem_is_exact_at_a_large_step_and_every_length():
    step = 0.3  # far from continuous: the exact rate is 15 % off the continuous one
    x, exact = chain(step, 2000, 500, seed=2)
    sigma = production(x, step)
    for length in (1, 2, 3, 10):
        result = ne.integral_fluctuation_theorem(sigma, length)
        assert abs(result.z_score) < 3.5, str(result)
        assert result.standard_error < 0.05
        assert result.num_stretches == 500 * (1999 // length)
    # Sharp enough to see the discrete chain's own covariance instead.
    hessian, diffusion = linearised_sgd(step)
    wrong = np.einsum("csi,csj->ij", x, x) / (500 * 2000)
    circulation = ne.circulation_matrix(hessian, wrong, step)
    sigma = ne.entropy_production(x, circulation, wrong, diffusion, np.zeros(3))
    assert abs(ne.integral_fluctuation_theorem(sigma, 3).z_score) > 5
    assert exact > 0.05


def test_detailed_theorem_per_step_and_for_stretches():
    step = 0.05
    x, _ = chain(step, 2000, 500, seed=3)
    for length in (1, 3):
        result = ne.detailed_fluctuation_theorem(production(x, step, midpoint=length > 1), length)
        assert abs(result.slope - 1) < 3 * result.slope_error + 0.02
        assert result.slope_error < 0.04
        z = (result.log_ratio - result.centers) / result.log_ratio_error
        assert np.nanmean(z**2) < 2.5
        assert np.all(np.diff(result.centers[np.isfinite(result.centers)]) > 0)
        outside = result.num_stretches - result.counts.sum()
        assert 0 <= outside < 0.05 * result.num_stretches
    doubled = ne.detailed_fluctuation_theorem(2 * production(x, step))
    assert abs(doubled.slope - 0.5) < 0.05


@pytest.mark.slow
def test_production_of_few_values_is_counted_whole():
    """A driven ring: sigma is +-ln(p / q), the ends of the range of |sigma|."""
    steps = np.random.default_rng(0).choice([1, -1], size=20_000, p=[0.6, 0.4])
    sigma = steps * np.log(1.5)
    for bins in (20, [0, np.log(1.5)]):
        result = ne.detailed_fluctuation_theorem(sigma, bins=bins)
        assert result.counts.sum() == 20_000
        seen = np.isfinite(result.log_ratio)
        np.testing.assert_allclose(result.centers[seen], np.log(1.5))
        error = result.log_ratio[seen] - np.log(1.5)
        assert np.all(np.abs(error) < 3 * result.log_ratio_error[seen])
    assert ne.detailed_fluctuation_theorem(sigma, 3).counts.sum() == 6666


def test_an_exponential_that_overflows_is_no_agreement():
    with pytest.raises(ValueError, match=r"overflows: the lowest production .* -90[0-9] nats"):
        ne.integral_fluctuation_theorem(np.random.default_rng(0).normal(-900, 1, 100))


def test_plug_in_near_equilibrium_has_an_error_of_its_own():
    """The currents are small, and their squares scatter though no block matters."""
    rotation = np.array([[np.cos(0.01), np.sin(0.01)], [-np.sin(0.01), np.cos(0.01)]])
    exact = ne.linear_chain_entropy_production_rate(0.95 * rotation, np.eye(2))
    x = simulate(0.95 * rotation, np.eye(2), 2000, 200, seed=5)
    results = [ne.plug_in_entropy_production(each) for each in x]
    z = np.array([(result.rate - exact) / result.standard_error for result in results])
    # Squares are skew, so that some runs are a few standard errors too low; none is far.
    assert np.mean(np.abs(z) < 2) > 0.8 and np.abs(z).max() < 6


def test_plug_in_is_unbiased_with_and_without_detailed_balance():
    x, exact = chain(0.3, 2000, 400, seed=4)
    result = ne.plug_in_entropy_production(x)
    assert abs(result.rate - exact) < 3 * result.standard_error
    assert abs(result.rate / exact - 1) < 0.05 and result.standard_error < 0.02 * exact
    assert result.per_stretch(10) == 10 * result.rate
    null = simulate(*reversible([1.0, 2.0, 4.0, 8.0], 0.1), 500, 250, seed=5)
    results = [ne.plug_in_entropy_production(one, num_blocks=10) for one in null]
    plug_in = np.array([r.plug_in for r in results])
    assert results[0].null_level == 12 / 499
    # d (d - 1) / n is of leading order; the next order is some per cent here.
    assert abs(plug_in.mean() / (12 / 499) - 1) < 0.15
    errors = np.array([r.standard_error for r in results])
    assert 0.7 < errors.mean() / plug_in.std() < 1.7


def test_plug_in_at_a_lag_is_the_rate_of_the_thinned_chain():
    step = 0.3
    x, _ = chain(step, 2000, 100, seed=6)
    hessian, diffusion = linearised_sgd(step)
    a, v = np.eye(3) - step * hessian, 2 * diffusion
    exact = ne.linear_chain_entropy_production_rate(a @ a, v + a @ v @ a.T)
    result = ne.plug_in_entropy_production(x, lag=2)
    assert abs(result.rate - exact) < 3 * result.standard_error


@pytest.mark.slow
def test_variational_estimate_is_tight_and_never_above():
    excess = []
    for seed in range(8):
        x, exact = chain(0.3, 2000, 25, seed=10 + seed)
        result = ne.variational_entropy_production(x)
        excess.append((result.rate - exact) / result.standard_error)
        assert result.train_rate > result.rate
        assert excess[-1] < 3
    assert abs(np.mean(excess)) < 1.5  # tight: unbiased against its own error bar
    x, exact = chain(0.3, 2000, 400, seed=30)
    result = ne.variational_entropy_production(x)
    assert abs(result.rate / exact - 1) < 0.05 and result.standard_error < 0.02 * exact
    # A reversible chain produces nothing, and no more is found with significance.
    null = simulate(*reversible([1.0, 2.0], 0.2), 2000, 10, seed=31)
    result = ne.variational_entropy_production(null)
    assert result.rate < 3 * result.standard_error and result.rate < result.train_rate


@pytest.mark.slow
def test_network_sees_a_flow_without_net_rotation():
    # A driven walk along a figure of eight: the two loops turn in opposite senses.
    rng = np.random.default_rng(0)
    angle = np.cumsum(0.5 + 0.5 * rng.standard_normal((8, 3000)), axis=1)
    x = np.stack([np.sin(angle), np.sin(2 * angle)], axis=2)
    quadratic = ne.variational_entropy_production(x)
    network = ne.variational_entropy_production(
        x, features="network", hidden=16, num_steps=400, rng_key=jax.random.key(1)
    )
    exact = 2 * 0.5**2 / 0.5**2  # drift and variance of the angle: 2 v^2 / s^2
    assert quadratic.rate < 0.2 * exact
    assert network.rate > 0.4 * exact
    assert network.rate < exact + 3 * network.standard_error


def test_bad_arguments_are_named():
    x, _ = chain(0.3, 100, 2, seed=7)
    with pytest.raises(ValueError, match="Did you mean 'network'"):
        ne.variational_entropy_production(x, features="net")
    with pytest.raises(ValueError, match="too few to fit 12 features"):
        ne.variational_entropy_production(x[:, :60])
    sigma = production(x, 0.3)
    with pytest.raises(ValueError, match="fewer than 2 x `length`"):
        ne.integral_fluctuation_theorem(sigma, 60)
    with pytest.raises(ValueError, match="no stretch of negative production"):
        ne.detailed_fluctuation_theorem(np.abs(sigma) + 1e-9)
    with pytest.raises(ValueError, match=r"NaN.*chain 1, step 7"):
        broken = sigma.copy()
        broken[1, 7] = np.nan
        ne.integral_fluctuation_theorem(broken)
    flat = np.diag([1.0, 0.0, 1.0])
    q = np.zeros((3, 3))
    with pytest.raises(ValueError, match="`diffusion` is singular: coordinate 1"):
        ne.entropy_production(x, q, np.eye(3), flat, np.zeros(3))
    assert np.all(ne.entropy_production(x, q, np.eye(3), flat, np.zeros(3), project=True) == 0)


def test_results_plot():
    x, _ = chain(0.3, 500, 4, seed=8)
    sigma = production(x, 0.3)
    for result in (
        ne.integral_fluctuation_theorem(sigma),
        ne.detailed_fluctuation_theorem(sigma),
        ne.plug_in_entropy_production(x),
        ne.variational_entropy_production(x),
        ne.entropy_production_bound(x),
        ne.detailed_balance_violation(x),
    ):
        ax = result.plot()
        assert result.plot(ax) is ax and len(ax.get_children()) > 10
        assert len(str(result).splitlines()) >= 3
