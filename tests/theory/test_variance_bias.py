"""The closed forms of the bias: limits, precision, inverses and independent enumeration."""

from decimal import Decimal, localcontext
from itertools import combinations, permutations

import numpy as np
import pytest

from sgworld_mcmc.theory import variance_bias as bias
from sgworld_mcmc.theory.time_functions import (
    all_phases_factor,
    bridge_factor,
    langevin_factor,
    symmetric_factor,
)


def _tanh(x):
    e = (2 * x).exp()
    return (e - 1) / (e + 1)


DIRECT = {
    bridge_factor: lambda t: 1 - 2 / t * _tanh(t / 2),
    langevin_factor: lambda t: 1 / _tanh(t) - 1 / t,
    all_phases_factor: lambda t: 1 - 2 / t + 2 * (1 - (-t).exp()) / t**2,
    symmetric_factor: lambda t: 1 + 4 * t / ((2 * t).exp() - (-2 * t).exp()) - 2 / t * _tanh(t),
}


@pytest.mark.parametrize("function", DIRECT, ids=lambda f: f.__name__)
def test_factor_agrees_with_its_definition_in_high_precision(function):
    times = [1e-7, 1e-3, 0.1, 0.5, 0.9999, 1.0001, 1.9999, 2.0001, 7.0, 300.0]
    with localcontext() as context:
        context.prec = 70
        exact = [float(DIRECT[function](Decimal(t))) for t in times]
    np.testing.assert_allclose(function(np.array(times)), exact, rtol=3e-15)
    np.testing.assert_allclose([function(t) for t in times], exact, rtol=3e-15)


@pytest.mark.parametrize("function", DIRECT, ids=lambda f: f.__name__)
def test_factor_rises_from_zero_to_one(function):
    values = function(np.geomspace(1e-6, 1e6, 2000))
    assert function(0.0) == 0
    assert np.all(np.diff(values) >= -1e-15)
    assert values[-1] == pytest.approx(1, abs=3e-6)


@pytest.mark.parametrize(
    ("function", "series"),
    [
        (bridge_factor, lambda t: t**2 / 12),
        (langevin_factor, lambda t: t / 3),
        (all_phases_factor, lambda t: t / 3),
        (symmetric_factor, lambda t: 2 * t**4 / 45),
    ],
)
def test_leading_order_for_short_epochs(function, series):
    assert function(1e-5) == pytest.approx(series(1e-5), rel=1e-5)


def _enumerated_variance(step_size, offsets, scheme):
    """Stationary variance of x <- (1-h) x + h r over all orders, without injected noise."""
    m, a = len(offsets), 1 - step_size
    gains, kicks, phases = [], [], []
    for order in permutations(range(m)):
        sequence = order + order[::-1] if scheme == "symmetric" else order
        gain, kick, path = 1.0, 0.0, []
        for b in sequence:
            gain, kick = gain * a, a * kick + step_size * offsets[b]
            path.append((gain, kick))
        gains.append(gain)
        kicks.append(kick)
        phases.append(path)
    # Every order has the same gain and E[kick] = 0, hence S = gain^2 S + E[kick^2].
    variance = np.mean(np.square(kicks)) / (1 - gains[0] ** 2)
    if scheme != "all_phases":
        return variance
    x = np.array(phases)
    return np.mean(x[..., 0] ** 2) * variance + np.mean(x[..., 1] ** 2)


@pytest.mark.parametrize("scheme", ["batches", "symmetric", "all_phases"])
@pytest.mark.parametrize("num_batches", [2, 4, 5])
@pytest.mark.parametrize("step_size", [1e-3, 0.1, 0.49, 0.51, 1.0, 1.5])
def test_batch_term_is_exact_for_enumerated_orders(scheme, num_batches, step_size):
    offsets = np.random.default_rng(num_batches).normal(size=num_batches)
    offsets -= offsets.mean()
    expected = _enumerated_variance(step_size, offsets, scheme) / np.mean(offsets**2)
    found = bias.finite_batch_factor(step_size, num_batches, scheme=scheme)
    # Enumeration loses digits where the short bridge closes on itself: |kick| << sum |terms|.
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("scheme", "factor"),
    [
        ("batches", bridge_factor),
        ("symmetric", symmetric_factor),
        ("all_phases", all_phases_factor),
    ],
)
def test_batch_term_tends_to_its_factor_as_steps_shrink(scheme, factor):
    time, gaps = 1.3, []
    for m in (1000, 4000):
        h = time / m
        gaps.append(bias.finite_batch_factor(h, m, scheme=scheme) / (h / 2 * factor(time)) - 1)
    assert abs(gaps[1]) < 1e-3
    assert gaps[0] / gaps[1] == pytest.approx(4, rel=0.05)  # first order in h


def _variance_with_hessian_noise(step_size, deltas, scheme, noise):
    """Stationary variance of x <- (1 - h (1 + delta_b)) x + noise over all orders."""
    h, m = step_size, len(deltas)
    averaged = noise == "averaged"
    paths = []
    for order in permutations(range(m)):
        square, injected, path = 1.0, 0.0, []
        for b in order:
            a = 1 - h * (1 + deltas[b])
            square, injected = (
                square * a**2,
                injected * a**2 + (h / 2 * (1 + a) ** 2 if averaged else 2 * h),
            )
            path.append((square, injected))
        paths.append(path)
    square, injected = np.mean(paths, axis=0).T
    end = injected[-1] / (1 - square[-1])
    variance = end if scheme == "batches" else np.mean(square * end + injected)
    return variance + (h / 2 if averaged else 0)


@pytest.mark.parametrize("noise", ["averaged", "independent"])
@pytest.mark.parametrize("scheme", ["batches", "all_phases"])
@pytest.mark.parametrize("num_batches", [2, 3, 6])
@pytest.mark.parametrize("step_size", [0.009, 0.011, 0.1, 0.5, 1.0, 1.4])
def test_hessian_term_is_exact_for_enumerated_orders(scheme, noise, num_batches, step_size):
    deltas = np.random.default_rng(num_batches).normal(size=num_batches)
    deltas -= deltas.mean()
    for k, close in ((1e-5, 0.01), (0.05, 0.12)):
        deltas *= np.sqrt(k / np.mean(deltas**2))
        expected, base = (
            _variance_with_hessian_noise(step_size, x, scheme, noise) for x in (deltas, 0 * deltas)
        )
        settings = {"scheme": scheme, "noise": noise}
        with_noise, without = (
            bias.relative_variance_error(step_size, num_batches, 0.0, x, **settings)
            for x in (k, 0.0)
        )
        assert without == pytest.approx(base - 1, abs=1e-12)
        # Where the term changes sign it is small against K itself.
        found, wanted = (with_noise - without) / k, (expected - base) / k
        assert found == pytest.approx(wanted, rel=close, abs=close * step_size / 2)


def test_one_batch_has_no_batch_noise():
    assert bias.finite_batch_factor(0.3, 1) == 0
    error = bias.relative_variance_error(0.3, 1, 5.0, scheme="batches", noise="averaged")
    assert error == 0


def test_sgld_variance_solves_its_own_recursion():
    h, c0, k = 0.07, 30.0, 1.7
    # E over batches of (1 - h H)^2, with E H = 1 and Var H = K.
    square = (1 - h) ** 2 + h**2 * k
    independent = (2 * h + h**2 * c0) / (1 - square)
    # Averaged noise: x = w + sqrt(h/2) xi with w driven by sqrt(h/2) (2 - h H) xi.
    averaged = (h / 2 * ((2 - h) ** 2 + h**2 * k) + h**2 * c0) / (1 - square) + h / 2
    for noise, expected in (("independent", independent), ("averaged", averaged)):
        found = bias.relative_variance_error(h, 10, c0, k, scheme="replacement", noise=noise)
        assert 1 + found == pytest.approx(expected, rel=1e-12)


def test_independent_noise_costs_the_euler_term():
    h = 0.02
    for scheme in ("batches", "symmetric", "all_phases", "once"):
        plain, averaged = (
            bias.relative_variance_error(h, 50, 40.0, 0.0, scheme=scheme, noise=noise)
            for noise in ("independent", "averaged")
        )
        assert plain - averaged == pytest.approx(1 / (1 - h / 2) - 1)


@pytest.mark.parametrize("scheme", bias.SCHEMES)
@pytest.mark.parametrize("noise", bias.NOISES)
@pytest.mark.parametrize("tolerance", [1e-4, 1e-2, 0.3])
@pytest.mark.parametrize("hessian_noise", [0.0, 0.1])
def test_time_per_epoch_inverts_the_error(scheme, noise, tolerance, hessian_noise):
    m = 200
    time = bias.time_per_epoch(tolerance, m, 150.0, hessian_noise, scheme=scheme, noise=noise)

    def error(t):
        value = bias.relative_variance_error(
            t / m, m, 150.0, hessian_noise, scheme=scheme, noise=noise
        )
        return abs(value + bias.once_mean_shift(t / m, m, 150.0) * (scheme == "once"))

    assert error(time) == pytest.approx(tolerance, rel=1e-9)
    assert all(error(t) <= tolerance * (1 + 1e-9) for t in np.linspace(1e-3, 1, 60) * time)
    assert error(1.01 * time) > tolerance


def test_time_per_epoch_of_plain_gradients_follows_the_cube_root():
    m = 10**6  # so that the Euler term does not matter
    for tolerance in (1e-3, 1e-4):
        leading = (24 * tolerance) ** (1 / 3)
        assert bias.time_per_epoch(tolerance, m) == pytest.approx(leading, rel=0.03)
        sgld = bias.time_per_epoch(tolerance, m, scheme="replacement")
        assert sgld == pytest.approx(2 * tolerance, rel=2 * tolerance)


def test_time_per_epoch_uses_cancellation_only_on_demand():
    settings = {"batch_noise": 100.0, "hessian_noise": 3.0, "noise": "averaged"}
    strict = bias.time_per_epoch(0.002, 100, **settings)
    loose = bias.time_per_epoch(0.002, 100, allow_cancellation=True, **settings)
    assert strict < 0.2 < loose
    between = np.linspace(strict, loose, 50)[1:-1] / 100
    errors = bias.relative_variance_error(
        between, 100, 100.0, 3.0, scheme="batches", noise="averaged"
    )
    assert np.max(np.abs(errors)) > 0.002


def test_time_per_epoch_stops_at_a_whole_relaxation_per_step():
    # No bias at all: full gradient of a Gaussian with averaged noise.
    assert bias.time_per_epoch(1e-3, 1, 0.0, noise="averaged") == 1.0


def test_autocorrelation_is_that_of_the_epoch_chain():
    rho = np.exp(-0.7)
    assert bias.autocorrelation_epochs(0.7) == pytest.approx(1 + 2 * rho / (1 - rho))


def test_control_variate_step_size_inverts_the_replacement_formula():
    for tolerance, k in ((0.01, 0.4), (0.1, 0.02)):
        h = bias.control_variate_step_size(tolerance, k)
        error = bias.relative_variance_error(h, 7, 0.0, k, scheme="replacement", noise="averaged")
        assert error == pytest.approx(tolerance, rel=1e-12)


@pytest.mark.parametrize("split", [False, True])
def test_epoch_noise_error_solves_the_epoch_recursion(split):
    time = 0.8
    q = np.exp(-time)
    if split:  # half of the noise before the decay, half after: S = q^2 (S + T) + T
        variance = time * (1 + q**2) / (1 - q**2)
    else:
        variance = 2 * time / (1 - q**2)
    assert 1 + bias.epoch_noise_error(time, split=split) == pytest.approx(variance)


def test_leverages_give_the_hessian_noise_of_enumerated_batches():
    rng = np.random.default_rng(5)
    features = rng.normal(size=(9, 2))
    white = features @ np.linalg.inv(np.linalg.cholesky(features.T @ features)).T
    spread = []
    for rows in combinations(range(9), 3):
        part = white[list(rows)]
        spread.append(np.sum((3 * part.T @ part - np.eye(2)) ** 2) / 2)
    leverages = np.sum(white**2, axis=1)
    assert bias.leverage_hessian_noise(leverages, 3) == pytest.approx(np.mean(spread))


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: bias.relative_variance_error(0.1, 10, 1.0, scheme="sorted"), "scheme"),
        (lambda: bias.variance_error_terms(0.1, 10, scheme="once", noise="white"), "noise"),
        (lambda: bias.variance_error_terms(0.1, 2.5, scheme="once"), "num_batches"),
        (lambda: bias.relative_variance_error(1.2, 10, 1.0, 1.0, scheme="once"), "step_size"),
        (lambda: bias.relative_variance_error(0.1, 10, -1.0, scheme="once"), "batch_noise"),
        (lambda: bias.time_per_epoch(0.0, 10), "tolerance"),
        (lambda: bridge_factor(-1.0), "time"),
    ],
)
def test_errors_name_the_argument(call, word):
    with pytest.raises(ValueError, match=word):
        call()
