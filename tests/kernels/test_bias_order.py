"""How the bias of the variance grows with the step size, on a Gaussian posterior.

Every chain runs beside a twin with the same keys, hence the same injected noise and orders,
whose stationary variance is exactly 1: full gradients and averaged noise. The excess of the squares
over the twin's squares estimates the bias with a small part of the Monte Carlo error. Standard
errors are taken from the scatter between chains.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.gradients import grad_estimator
from tolerances import SIGMAS, log_slope

import sgworld_mcmc as sg
from sgworld_mcmc import exact
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.theory.variance_bias import relative_variance_error

pytestmark = pytest.mark.slow

# Compiling takes most of the time: half the time to compile, as fast to run.
jit = partial(jax.jit, compiler_options={"xla_backend_optimization_level": "1"})

CHAINS, DIM, ROWS, COUNT = 3000, 8, 32, 8


@pytest.fixture(scope="module")
def problem():
    """Estimator in whitened coordinates, batches, and the realised batch noise C0."""
    posterior = exact.GaussianMean(jax.random.key(1), num_data=ROWS, dim=DIM, prior_scale=1.0)
    center, sd = posterior.mean["mu"].astype(np.float32), posterior.sd.astype(np.float32)
    estimator = grad_estimator(
        lambda z: -jnp.sum((center + sd * z) ** 2) / 2,
        lambda z, y: -jnp.sum((y - center - sd * z) ** 2) / 2,
        ROWS,
    )
    data = posterior.data[0].astype(np.float32)
    batches = partition(jax.random.key(0), data, ROWS // COUNT)
    assert batches.num_batches == COUNT
    at_mode = jit(
        jax.vmap(lambda b: batch_estimate(estimator, jnp.zeros(DIM), batches.fetch((), b), batches))
    )(jnp.arange(COUNT))
    np.testing.assert_allclose(at_mode.mean(axis=0), 0, atol=1e-4)
    return estimator, batches, float(jnp.mean(at_mode**2))


def full_gradient(z, minibatch):
    return -z


def excess(estimator, batches, step_sizes, order, noise, burn, thin=1, draws=16):
    """Variance minus that of the twin, for every step size: estimates and standard errors."""
    count = batches.num_batches

    def kernel(estimator, noise):
        build = sg.sgworld.build_kernel(order, noise)
        return lambda key, state, h: build(key, state, estimator, batches, h)[0]

    step, exact_step = kernel(estimator, noise), kernel(full_gradient, "averaged")

    def chain(key, h):
        init_key, start_key, run_key = jax.random.split(key, 3)
        start = jax.random.normal(start_key, (DIM,))
        state, twin = (
            sg.sgworld.init(start, init_key, count, order=order, noise=n)
            for n in (noise, "averaged")
        )

        def both(states, key):
            state, twin = step(key, states[0], h), exact_step(key, states[1], h)
            return (state, twin), jnp.mean(state.position**2 - twin.position**2)

        keys = jax.random.split(run_key, burn + thin * draws)
        _, difference = jax.lax.scan(both, (state, twin), keys)
        return jnp.mean(difference[burn + thin - 1 :: thin])

    run = jit(jax.vmap(chain, (0, None)))
    estimates = []
    for number, h in enumerate(step_sizes):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(11), number), CHAINS)
        differences = np.asarray(run(keys, h), np.float64)
        estimates.append((differences.mean(), differences.std() / np.sqrt(CHAINS)))
    return np.array(estimates).T


def assert_order(step_sizes, error, standard_error, predicted, order):
    """Slope within 0.3 of ``order``, and every value on its exact prediction.

    The slope's own standard error must be below 0.1, so that 0.3 is three of them; a step size
    doubled by mistake would have to be seen at every point.
    """
    slope, slope_error = log_slope(step_sizes, error, standard_error)
    assert slope_error < 0.1
    assert abs(slope - order) < 0.3, f"slope {slope:.2f} +- {slope_error:.2f}, expected {order}"
    assert np.all(np.abs(error - predicted) < SIGMAS * standard_error), (
        f"errors {error} +- {standard_error}, predicted {predicted}"
    )
    assert np.all(predicted * (2**order - 1) > 2 * SIGMAS * standard_error)


def test_sgworld_errs_in_third_order_at_fixed_epoch_length(problem):
    """(h C0/2) f(hM), f(T) = T^2/12 for short epochs: h^3 at fixed M. Slope 2.9 at these T."""
    estimator, batches, noise = problem
    h = np.array([0.5, 0.7, 1.0]) / COUNT
    error, standard_error = excess(estimator, batches, h, "batches", "averaged", burn=20)
    predicted = relative_variance_error(h, COUNT, noise, scheme="batches", noise="averaged")
    assert_order(h, error, standard_error, predicted, 3)


@pytest.mark.parametrize("noise", ["independent", "averaged"])
def test_sgld_errs_in_first_order(problem, noise):
    """h C0/2 with averaged noise, h (C0 + 1)/2 with independent noise."""
    estimator, batches, batch_noise = problem
    h = np.array([0.03, 0.06, 0.12])
    error, standard_error = excess(estimator, batches, h, "replacement", noise, 26)
    predicted = relative_variance_error(h, COUNT, batch_noise, scheme="replacement", noise=noise)
    assert_order(h, error, standard_error, predicted, 1)


def test_euler_error_is_of_first_order_and_averaged_noise_has_none(problem):
    """Full gradients: exactly h/(2 - h) with independent noise. Slope 1.12 at these h.

    The averaged noise errs by nothing against its twin, which proves only that the two agree; that
    its variance is 1 is the subject of test_kernels.test_temperature_is_the_variance.
    """
    _, batches, _ = problem
    h = np.array([0.1, 0.2, 0.4])
    error, standard_error = excess(full_gradient, batches, h, "batches", "independent", burn=8)
    assert_order(h, error, standard_error, h / (2 - h), 1)


def test_symmetric_order_errs_less_and_as_predicted(problem):
    """At T = 1 by 2 T^4/45 / (T^2/12) = a third of what ``batches`` errs by."""
    estimator, batches, batch_noise = problem
    h = np.array([1.0 / COUNT])
    error, standard_error = excess(estimator, batches, h, "symmetric", "averaged", 10, 2, 16)
    predicted = relative_variance_error(h, COUNT, batch_noise, scheme="symmetric", noise="averaged")
    plain = relative_variance_error(h, COUNT, batch_noise, scheme="batches", noise="averaged")
    assert np.all(np.abs(error - predicted) < SIGMAS * standard_error)
    assert np.all(error + SIGMAS * standard_error < plain / 2)
    assert np.all(predicted > 2 * SIGMAS * standard_error)
