"""Lyapunov covariance, circulation and entropy production of linear chains."""

import numpy as np
import pytest
from linear_chains import linearised_sgd, reversible
from scipy.linalg import solve_discrete_lyapunov

from sgworld_mcmc import nonequilibrium as ne


def theory(step):
    hessian, diffusion = linearised_sgd(step)
    covariance = ne.stationary_covariance(hessian, diffusion, step)
    return hessian, diffusion, covariance, ne.circulation_matrix(hessian, covariance, step)


def test_lyapunov_equation_and_small_step_limit():
    hessian, diffusion, covariance, _ = theory(0.05)
    left = hessian @ covariance + covariance @ hessian
    np.testing.assert_allclose(left, 2 * diffusion / 0.05, rtol=1e-12)
    hessian, diffusion, covariance, _ = theory(1e-5)
    exact = solve_discrete_lyapunov(np.eye(3) - 1e-5 * hessian, 2 * diffusion)
    np.testing.assert_allclose(covariance, exact, atol=1e-4 * np.abs(exact).max())


def test_circulation_is_the_areal_velocity_of_the_chain():
    # < x_i(k) x_j(k+1) - x_j(k) x_i(k+1) > / 2 with < x(k) x(k+1)^T > = S A^T.
    hessian, _, covariance, circulation = theory(0.1)
    lagged = covariance @ (np.eye(3) - 0.1 * hessian).T
    np.testing.assert_allclose(circulation, (lagged - lagged.T) / 2, atol=1e-16)
    assert np.abs(circulation).max() > 1e-4


def test_velocity_and_gradient_force_make_up_the_drift():
    # -h H = -(D + Q) S^-1: what the Ito fluctuation theorem rests on.
    hessian, diffusion, covariance, circulation = theory(0.1)
    drift = (diffusion + circulation) @ np.linalg.inv(covariance)
    np.testing.assert_allclose(drift, 0.1 * hessian, atol=1e-13)


def test_exact_rate_is_the_divergence_of_two_gaussians():
    step = 0.3
    hessian, diffusion = linearised_sgd(step)
    transition = np.eye(3) - step * hessian
    covariance = solve_discrete_lyapunov(transition, 2 * diffusion)
    lagged = transition @ covariance
    forward = np.block([[covariance, lagged.T], [lagged, covariance]])
    backward = np.block([[covariance, lagged], [lagged.T, covariance]])
    divergence = (np.trace(np.linalg.solve(backward, forward)) - 6) / 2
    rate = ne.linear_chain_entropy_production_rate(transition, 2 * diffusion)
    np.testing.assert_allclose(rate, divergence, rtol=1e-10)


def test_rate_tends_to_that_of_the_continuous_theory_and_vanishes_in_balance():
    errors = []
    for step in (0.02, 0.01):
        hessian, diffusion, covariance, circulation = theory(step)
        rate = ne.entropy_production_rate(circulation, covariance, diffusion)
        exact = ne.linear_chain_entropy_production_rate(np.eye(3) - step * hessian, 2 * diffusion)
        errors.append(rate / exact - 1)
    assert abs(errors[0]) < 0.03 and 1.7 < errors[0] / errors[1] < 2.3  # of first order in h
    assert abs(ne.linear_chain_entropy_production_rate(*reversible([1.0, 4.0, 9.0], 0.1))) < 1e-12


def test_units_spanning_decades_do_no_harm():
    _, diffusion, covariance, circulation = theory(0.1)
    units = np.diag([1e-8, 1.0, 1e8])
    scaled = [units @ m @ units for m in (circulation, covariance, diffusion)]
    rate = ne.entropy_production_rate(circulation, covariance, diffusion)
    np.testing.assert_allclose(ne.entropy_production_rate(*scaled), rate, rtol=1e-9)


def test_bad_matrices_are_named():
    hessian, diffusion, covariance, circulation = theory(0.1)
    with pytest.raises(ValueError, match=r"`time_step` 0.5 .*stability limit"):
        ne.stationary_covariance(hessian, diffusion, 0.5)
    indefinite = np.diag([1.0, -1.0, 2.0])
    with pytest.raises(ValueError, match=r"`hessian` is not positive definite.*\[1\].*project"):
        ne.stationary_covariance(indefinite, diffusion, 0.1)
    projected = ne.stationary_covariance(indefinite, diffusion, 0.1, project=True)
    assert np.all(projected[1] == 0) and projected[0, 0] > 0
    with pytest.raises(ValueError, match=r"`diffusion` is \(2, 2\).*D = 3"):
        ne.stationary_covariance(hessian, np.eye(2), 0.1)
    with pytest.raises(ValueError, match="`circulation` must be antisymmetric"):
        ne.entropy_production_rate(np.eye(3), covariance, diffusion)
    with pytest.raises(ValueError, match="spectral radius"):
        ne.linear_chain_entropy_production_rate(np.eye(2) * 1.1, np.eye(2))
    flat = diffusion.copy()
    flat[1], flat[:, 1] = 0, 0
    with pytest.raises(ValueError, match=r"`diffusion` is singular: coordinate 1 is constant"):
        ne.entropy_production_rate(circulation, covariance, flat)


def test_a_silent_direction_that_follows_others_makes_the_rate_infinite():
    """Its reverse never occurs; as its noise goes to zero the rate grows without bound."""
    coupled = np.array([[0.9, 0.1], [-0.1, 0.9]])
    rates = [
        ne.linear_chain_entropy_production_rate(coupled, np.diag([1.0, q])) for q in (1e-2, 1e-4)
    ]
    assert rates[1] > 50 * rates[0]
    silent = np.diag([1.0, 0.0])
    assert ne.linear_chain_entropy_production_rate(coupled, silent, project=True) == np.inf
    apart = np.diag([0.9, 0.5])
    assert ne.linear_chain_entropy_production_rate(apart, silent, project=True) == 0


def test_projected_chain_rate_is_that_of_the_moving_coordinates():
    hessian, diffusion = linearised_sgd(0.2)
    transition = np.eye(3) - 0.2 * hessian
    exact = ne.linear_chain_entropy_production_rate(transition, 2 * diffusion)
    bigger = np.zeros((4, 4))
    bigger[:3, :3] = transition
    noise = np.zeros((4, 4))
    noise[:3, :3] = 2 * diffusion
    with pytest.raises(ValueError, match="coordinate 3 is constant"):
        ne.linear_chain_entropy_production_rate(bigger, noise)
    rate = ne.linear_chain_entropy_production_rate(bigger, noise, project=True)
    np.testing.assert_allclose(rate, exact, rtol=1e-10)
