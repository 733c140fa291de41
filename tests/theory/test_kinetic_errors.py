"""The formulas of docs/theory.md, section 5, against the integrator's exact recursion."""

import numpy as np
import pytest

from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time, relative_variance_error

LAMBDA, GAMMA = 0.7, 1.3
M = 20


@pytest.mark.parametrize("time", [0.001, 0.3, 5.0])
def test_free_motion_is_exact(time):
    """The affine map without a gradient has the exact propagator and covariance (K1)."""
    step = UBU(GAMMA).affine(time, np.zeros((1, 1)))
    y, e = GAMMA * time, np.exp(-GAMMA * time)
    np.testing.assert_allclose(step.advance, [[1, (1 - e) / GAMMA], [0, e]], rtol=1e-12)
    both = (1 - e) ** 2 / GAMMA
    position = (2 * y - 3 + 4 * e - e**2) / GAMMA**2
    expected = [[position, both], [both, 1 - e**2]]
    # The expected variance of the position is a small difference of large numbers.
    np.testing.assert_allclose(step.kick @ step.kick.T, expected, rtol=1e-9, atol=3e-15)


@pytest.mark.parametrize("law", ["batches", "symmetric"])
def test_errors_without_replacement_are_of_second_order(law):
    """The terms of K5 one by one, at time per epoch 0.01 and below."""
    for h in (5e-4, 2.5e-4):

        def error(c0, k, h=h):
            return relative_variance_error(UBU(GAMMA), h, M, c0, k, law=law, curvature=LAMBDA)

        alone = error(0, 0)
        assert alone == pytest.approx(-LAMBDA * h**2 / 6, rel=1e-3)
        hessians = -0.01 * h**2 * (M + 1) / (6 * LAMBDA)
        assert error(0, 0.01) - alone == pytest.approx(hessians, rel=0.01)
        heat = 50 * h**3 * M * (M + 1) * LAMBDA / (24 * GAMMA)
        if law == "batches":
            assert error(50, 0) - alone == pytest.approx(heat, rel=0.01)
        else:
            assert abs(error(50, 0) - alone) < 1e-3 * heat


def test_errors_with_replacement_are_of_first_order():
    h = 1e-4
    found = relative_variance_error(UBU(GAMMA), h, M, 3, 0.2, law="replacement", curvature=LAMBDA)
    assert found == pytest.approx(h / (2 * GAMMA) * (3 + 0.2 / LAMBDA), rel=0.01)


@pytest.mark.parametrize("u", [0.1, 0.6, 1.2, 2.0])
def test_heating_of_an_oscillating_mode(u):
    """K6, where the friction is much lower than the frequency."""
    friction, batches = 0.003, 1000
    h = u / np.sqrt(LAMBDA) / batches
    sinc = np.sinc(u / np.pi)
    half = np.sinc(u / 2 / np.pi)
    for law, expected in (
        ("batches", 1 - half**2),
        ("symmetric", 1 + np.sinc(2 * u / np.pi) - 2 * sinc**2),
    ):
        with_noise, without = (
            relative_variance_error(UBU(friction), h, batches, c0, law=law, curvature=LAMBDA)
            for c0 in (1.0, 0.0)
        )
        found = (with_noise - without) / (h / (2 * friction))
        assert found == pytest.approx(expected, rel=0.03), law


@pytest.mark.parametrize("friction", [0.1, 0.5, 3.0])
def test_autocorrelation_times(friction):
    """K7 in units of time: 2 gamma / lambda of x, gamma / lambda + 1 / gamma of x^2."""
    h = 0.01
    expected = max(2 * friction / LAMBDA, friction / LAMBDA + 1 / friction)
    found = h * autocorrelation_time(UBU(friction), h, 1, curvature=LAMBDA)
    assert found == pytest.approx(expected, rel=1e-3)
