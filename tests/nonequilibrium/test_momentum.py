"""SGD with momentum on a quadratic loss: theory against recursions, limits and simulation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import multivariate_normal

import sgworld_mcmc as sg
from sgworld_mcmc.nonequilibrium.momentum import LinearRegressionDynamics

D, ETA, BETA, BATCH, DECAY = 3, 0.05, 0.8, 4, 0.1


def random_matrices(seed=0):
    """A Hessian and a noise covariance that do not commute."""
    rng = np.random.default_rng(seed)
    one, two = rng.normal(size=(2, D, D))
    return one @ one.T / D + 0.1 * np.eye(D), two @ two.T


def dynamics(**settings):
    hessian, noise = random_matrices()
    arguments = {
        "hessian": hessian,
        "noise_covariance": noise,
        "learning_rate": ETA,
        "momentum": BETA,
        "batch_size": BATCH,
        "weight_decay": DECAY,
    }
    return LinearRegressionDynamics(**{**arguments, **settings})


def pair_recursion(d):
    """F and the noise of (x_k, x_{k-1}) as docs/theory.md writes them, and the way to (x, u)."""
    identity, zero = np.eye(D), np.zeros((D, D))
    curvature = d.hessian + d.weight_decay * identity
    first = (1 + d.momentum) * identity - d.learning_rate * curvature
    transition = np.block([[first, -d.momentum * identity], [identity, zero]])
    noise = np.zeros((2 * D, 2 * D))
    noise[:D, :D] = d.learning_rate**2 * d.noise_covariance / d.batch_size
    to_phase_space = np.block(
        [[identity, zero], [identity / d.learning_rate, -identity / d.learning_rate]]
    )
    return transition, noise, to_phase_space


def test_moments_follow_the_recursion():
    d = dynamics()
    transition, noise, convert = pair_recursion(d)
    start = np.array([1.0, -2.0, 0.5])
    pair, covariance = np.concatenate([start, start]), np.zeros((2 * D, 2 * D))
    for k in range(1, 38):
        pair = transition @ pair
        covariance = transition @ covariance @ transition.T + noise
        if k in (1, 2, 7, 37):
            np.testing.assert_allclose(d.mean(k, start), convert @ pair, rtol=1e-10, atol=1e-12)
            expected = convert @ covariance @ convert.T
            np.testing.assert_allclose(d.covariance(k), expected, rtol=1e-9, atol=1e-11)
    both = d.covariance([[0, 37]])
    assert both.shape == (1, 2, 2 * D, 2 * D) and not both[0, 0].any()
    np.testing.assert_array_equal(both[0, 1], d.covariance(37))


def test_mean_continues_from_a_phase_space_point_and_moves_with_the_minimum():
    minimum = np.array([3.0, 4.0, -5.0])
    d, moved = dynamics(), dynamics(minimum=minimum)
    for continuous in (False, True):
        half = d.mean(10, np.ones(D), continuous)
        whole = d.mean(25, np.ones(D), continuous)
        np.testing.assert_allclose(d.mean(15, half, continuous), whole, atol=1e-12)
        shifted = moved.mean(25, minimum + 1, continuous)
        np.testing.assert_allclose(shifted, whole + np.r_[minimum, np.zeros(D)], atol=1e-12)


def test_stationary_covariance_solves_its_equations():
    d = dynamics()
    transition, noise, convert = pair_recursion(d)
    back = np.linalg.inv(convert)
    pair = back @ d.stationary_covariance() @ back.T
    np.testing.assert_allclose(transition @ pair @ transition.T + noise, pair, rtol=1e-10)
    for continuous in (False, True):
        stationary = d.stationary_covariance(continuous)
        np.testing.assert_allclose(d.covariance(5000, continuous), stationary, 1e-8, 1e-12)
        later = d.covariance(77, continuous, initial_covariance=stationary)
        np.testing.assert_allclose(later, stationary, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("beta", [0.0, 0.9])
def test_closed_forms_of_one_mode(beta):
    a, c, eta = 2.0, 0.3, 0.2
    d = LinearRegressionDynamics([[a]], [[5 * c]], eta, beta, 5)
    scale = (1 - beta) * (2 * (1 + beta) - eta * a)
    expected = [eta * c * (1 + beta) / (a * scale), 2 * c / scale]
    np.testing.assert_allclose(np.diag(d.stationary_covariance()), expected, rtol=1e-12)
    expected = [eta * c / (2 * a * (1 - beta)), c / (1 - beta**2)]
    np.testing.assert_allclose(np.diag(d.stationary_covariance(True)), expected, rtol=1e-10)


def test_continuous_covariance_solves_the_moment_equation():
    d = dynamics(learning_rate=0.2)
    mass, friction = 0.2 * (1 + BETA) / 2, 1 - BETA
    curvature = d.hessian + DECAY * np.eye(D)
    drift = np.block(
        [[np.zeros((D, D)), np.eye(D)], [-curvature / mass, -friction / mass * np.eye(D)]]
    )
    noise = np.zeros((2 * D, 2 * D))
    noise[D:, D:] = 0.2 / mass**2 * d.noise_covariance / BATCH

    def derivative(_, flat):
        p = flat.reshape(2 * D, 2 * D)
        return (drift @ p + p @ drift.T + noise).ravel()

    time = 0.2 * 12.5  # half a step: times between the steps are defined here
    solution = solve_ivp(derivative, (0, time), np.zeros(4 * D * D), rtol=1e-10, atol=1e-12)
    found = d.covariance(12.5, continuous=True)
    np.testing.assert_allclose(found.ravel(), solution.y[:, -1], rtol=1e-6, atol=1e-8)


def test_continuous_limit_is_reached_at_first_order():
    """At a fixed momentum positions agree to relative order eta."""
    error = []
    for eta in (0.02, 0.01, 0.005):
        d = dynamics(learning_rate=eta)
        exact, model = d.stationary_covariance(), d.stationary_covariance(True)
        error.append(np.linalg.norm((exact - model)[:D, :D]) / np.linalg.norm(exact[:D, :D]))
    np.testing.assert_allclose([error[0] / error[1], error[1] / error[2]], 2, rtol=0.1)
    assert error[0] < 0.01


@pytest.mark.parametrize("continuous", [False, True])
def test_mean_squared_displacement(continuous):
    d = dynamics()
    covariance = d.stationary_covariance(continuous)
    lags = np.array([1, 2, 5, 40, 4000])
    powers = [np.linalg.matrix_power(d.transition(continuous), n) for n in lags]
    lagged = [np.trace((f @ covariance)[:D, :D]) for f in powers]
    expected = 2 * np.trace(covariance[:D, :D]) - 2 * np.array(lagged)
    found = d.mean_squared_displacement(lags, continuous)
    np.testing.assert_allclose(found, expected, rtol=1e-8)
    # One step is eta times the velocity; in continuous time only short stretches are ballistic.
    short = 1e-4 if continuous else 1
    speed = np.trace(covariance[D:, D:])
    np.testing.assert_allclose(
        d.mean_squared_displacement(short, continuous), (ETA * short) ** 2 * speed, rtol=1e-3
    )


def test_oscillation_frequencies_are_phases_of_the_recursion():
    d = dynamics(hessian=np.diag([0.01, 1.0, 30.0]), weight_decay=0.0, momentum=0.5)
    frequencies = d.oscillation_frequencies() * ETA
    for a, frequency in zip([0.01, 1.0, 30.0], frequencies, strict=True):
        phases = np.angle(np.roots([1, -(1 + 0.5 - ETA * a), 0.5]))
        assert frequency == pytest.approx(np.abs(phases).max(), abs=1e-12)
    assert frequencies[0] == 0  # overdamped
    d = dynamics(learning_rate=1e-4, momentum=0.999)
    np.testing.assert_allclose(
        d.oscillation_frequencies(), d.oscillation_frequencies(True), rtol=1e-3
    )
    mass, friction = 1e-4 * 1.999 / 2, 0.001
    a = np.linalg.eigvalsh(d.hessian) + DECAY
    expected = np.sqrt(a / mass - (friction / (2 * mass)) ** 2)
    np.testing.assert_allclose(d.oscillation_frequencies(True), expected, rtol=1e-10)


def test_modified_loss_is_the_stationary_density():
    d = dynamics(minimum=np.ones(D))
    points = np.random.default_rng(1).normal(size=(2, 5, 2 * D))
    for length in (D, 2 * D):
        density = multivariate_normal(
            np.r_[np.ones(D), np.zeros(D)][:length], d.stationary_covariance()[:length, :length]
        )
        x = points[..., :length]
        difference = d.modified_loss(x) + density.logpdf(x)
        np.testing.assert_allclose(difference, difference[0, 0], rtol=1e-9)
    assert d.modified_loss(np.ones(D)) == 0


def test_modified_loss_is_isotropic_for_a_well_specified_regression():
    hessian = np.diag([0.1, 1.0, 10.0])
    d = dynamics(
        hessian=hessian, noise_covariance=0.7 * hessian, learning_rate=1e-3, weight_decay=0.0
    )
    x = np.random.default_rng(2).normal(size=(4, D))
    expected = BATCH * (1 - BETA) * np.sum(x**2, axis=1) / (1e-3 * 0.7)
    np.testing.assert_allclose(d.modified_loss(x), expected, rtol=0.005)
    np.testing.assert_allclose(d.modified_loss(x, continuous=True), expected, rtol=1e-8)
    velocity = d.stationary_covariance(True)[D:, D:]
    np.testing.assert_allclose(velocity, 0.7 * hessian / (BATCH * (1 - BETA**2)), atol=1e-10)


def test_circulation_in_phase_space_is_no_sign_of_irreversibility():
    """Where noise and curvature commute, positions run backward as they run forward, although
    position and velocity circulate; where they do not, correlations of positions are asymmetric."""
    for commuting in (True, False):
        hessian, noise = random_matrices()
        d = dynamics(noise_covariance=hessian @ hessian if commuting else noise)
        lagged = np.linalg.matrix_power(d.transition(), 9) @ d.stationary_covariance()
        circulation = lagged[:D, D:] - lagged[D:, :D]
        assert np.linalg.norm(circulation) > 0.1 * np.linalg.norm(lagged)
        positions = lagged[:D, :D]
        asymmetry = np.linalg.norm(positions - positions.T) / np.linalg.norm(positions)
        assert (asymmetry < 1e-10) if commuting else (asymmetry > 1e-3)


@pytest.mark.slow
def test_simulation_from_initialisation_to_stationarity():
    """The sgd kernel on a loss with exactly these gradients; k standard errors at all times."""
    hessian, noise = random_matrices(3)
    rng = np.random.default_rng(4)
    z = rng.normal(size=(16, D)) @ np.linalg.cholesky(noise).T
    z -= z.mean(axis=0)
    theta0 = np.array([0.3, -0.2, 0.1])

    def loss(x, rows):
        return (x - theta0) @ hessian @ (x - theta0) / 2 - jnp.mean(rows @ x)

    minimum = np.linalg.solve(hessian + DECAY * np.eye(D), hessian @ theta0)
    # Batches of 16 rows out of 16, drawn independently: every epoch is one step.
    d = LinearRegressionDynamics(hessian, z.T @ z / 16, ETA, BETA, 16, DECAY, minimum)
    algorithm = sg.sgd(jax.grad(loss), z, 16, ETA, BETA, DECAY, order="replacement")
    start = np.array([2.0, 0.0, -1.0])
    times, lags, chains = [1, 2, 8, 30, 200, 400], [1, 4, 50], 4000

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": "1"})
    def run(keys):
        def step(carry, _):
            states, keys = carry
            keys = jax.vmap(jax.random.split)(keys)
            states, _ = jax.vmap(algorithm.step)(keys[:, 0], states)
            return (states, keys[:, 1]), (states.position, -states.velocity)

        states = jax.vmap(lambda k: algorithm.init(jnp.asarray(start), k))(keys)
        return jax.lax.scan(step, (states, keys), length=times[-1])[1]

    positions, velocities = run(jax.random.split(jax.random.key(0), chains))
    path = np.concatenate([positions, velocities], axis=-1).astype(float)[np.array(times) - 1]
    mean, covariance = d.mean(times, start), d.covariance(times)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    assert np.abs((path.mean(axis=1) - mean) / sd).max() < 4.5 / chains**0.5
    centered = path - path.mean(axis=1, keepdims=True)
    found = np.einsum("kci,kcj->kij", centered, centered) / chains
    error = np.sqrt((sd[:, :, None] ** 2 * sd[:, None, :] ** 2 + covariance**2) / chains)
    assert np.abs((found - covariance) / error).max() < 4.5
    for lag in lags:
        moved = np.sum(np.asarray(positions[-1] - positions[-1 - lag], float) ** 2, axis=1)
        error = moved.std() / chains**0.5
        assert abs(moved.mean() - d.mean_squared_displacement(lag)) < 4.5 * error


HESSIAN, NOISE = random_matrices()


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"learning_rate": 10.0}, r"`learning_rate`=10 is not below the limit of stability"),
        ({"learning_rate": 0.0}, "`learning_rate` must be positive"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\)"),
        ({"momentum": -0.5}, "`momentum` must be zero or positive"),
        ({"batch_size": 0}, "`batch_size` must be at least 1"),
        ({"weight_decay": -0.1}, "`weight_decay`"),
        ({"hessian": np.diag([1.0, -0.5, 2.0])}, "`hessian` is not positive semidefinite"),
        ({"noise_covariance": -NOISE}, "`noise_covariance` is not positive semidefinite"),
        ({"hessian": np.triu(HESSIAN)}, "`hessian` is not symmetric"),
        ({"hessian": np.ones((2, 3))}, "`hessian` must be a square matrix"),
        ({"noise_covariance": np.eye(2)}, r"`noise_covariance` has shape \(2, 2\)"),
        ({"noise_covariance": np.full((3, 3), np.nan)}, "`noise_covariance` has NaN"),
        ({"minimum": np.zeros(2)}, r"`minimum` must have shape \(3,\)"),
    ],
)
def test_bad_settings(settings, match):
    with pytest.raises(ValueError, match=match):
        dynamics(**settings)


def test_limit_of_stability_is_that_of_the_recursion():
    d = dynamics()
    limit = 2 * (1 + BETA) / (np.linalg.eigvalsh(d.hessian)[-1] + DECAY)
    radius = lambda eta: np.abs(  # noqa: E731
        np.linalg.eigvals(dynamics(learning_rate=eta).transition())
    ).max()
    assert radius(0.9999 * limit) < 1
    with pytest.raises(ValueError, match="limit of stability"):
        dynamics(learning_rate=1.0001 * limit)


def test_bad_calls():
    d = dynamics()
    with pytest.raises(ValueError, match=r"integers >= 0, not 1\.5"):
        d.covariance(1.5)
    with pytest.raises(ValueError, match=">= 0, not -1"):
        d.mean_squared_displacement([1, -1])
    with pytest.raises(ValueError, match=r"`initial` must have shape \(6,\) or \(3,\)"):
        d.mean(1, np.zeros(4))
    with pytest.raises(ValueError, match="its last axis"):
        d.modified_loss(np.zeros((3, 4)))
    with pytest.raises(ValueError, match="no stationary state"):
        dynamics(hessian=np.diag([0.0, 1.0, 2.0]), weight_decay=0.0).stationary_covariance()
    with pytest.raises(ValueError, match="modified loss is infinite"):
        dynamics(hessian=np.eye(3), noise_covariance=np.diag([0.0, 1.0, 2.0])).modified_loss(
            np.ones(3)
        )
