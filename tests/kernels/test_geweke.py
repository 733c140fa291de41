"""Geweke's joint test (JASA 99, 2004): kernels between parameters and data that they leave alone.

Parameters are drawn from the prior and data given them; then a kernel moves the parameters given
the data, and the data are drawn anew given the parameters, many times. If the kernel leaves every
posterior alone, the pair keeps its joint law. Many chains begin in that law, so that means over
chains have simple errors. Steps are so short that the bias of the minibatches is below the errors.
"""

from functools import partial
from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from blackjax.sgmcmc.gradients import grad_estimator
from tolerances import SIGMAS

import sgworld_mcmc as sg
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.members import WITHOUT_REPLACEMENT

SIZE, BATCH_SIZE, CHAINS, ROUNDS = 10, 3, 4000, 40
COUNT = -(-SIZE // BATCH_SIZE)
# The posterior's curvature is SIZE + 1; a round lasts about one and a half of its relaxation times.
STEP, STEPS = 0.01 / (SIZE + 1), 152
# To look a batch up takes far less time than to shuffle the rows.
SUBSETS = np.array(list(combinations(range(SIZE), BATCH_SIZE)))
ESTIMATOR = grad_estimator(lambda x: -(x**2) / 2, lambda x, y: -((y - x) ** 2) / 2, SIZE)


def draw_data(key, theta):
    return theta + jax.random.normal(key, (SIZE,))


def epochs_of(order, noise, estimator):
    """Return functions that begin a chain and move it, given data."""
    kernel = sg.sgworld.build_kernel(order, noise)

    def begin(key, theta):
        return sg.sgworld.init(theta, key, COUNT, order=order, noise=noise)

    def move(key, state, y):
        if order == "examples":
            feed = DealtRows(y, COUNT)
        else:  # the rows are alike: any partition is as good as a random one
            feed = partition(jax.random.key(0), y, BATCH_SIZE)
        one = lambda state, key: (kernel(key, state, estimator, feed, STEP)[0], None)  # noqa: E731
        return jax.lax.scan(one, state, jax.random.split(key, STEPS // COUNT))[0]

    return begin, move


def ubu_epochs(estimator):
    def begin(key, theta):
        return sg.ubu.init(theta, key, COUNT)

    kernel = sg.ubu.build_kernel(friction=6.0)

    def move(key, state, y):
        feed = partition(jax.random.key(0), y, BATCH_SIZE)
        one = lambda state, key: (kernel(key, state, estimator, feed, 0.02)[0], None)  # noqa: E731
        return jax.lax.scan(one, state, jax.random.split(key, 40))[0]

    return begin, move


def sgld_steps(noise, estimator):
    kernel = sg.sgld.build_kernel(noise)

    def move(key, state, y):
        def one(state, key):
            rows_key, noise_key = jax.random.split(key)
            rows = y[jnp.asarray(SUBSETS)[jax.random.randint(rows_key, (), 0, len(SUBSETS))]]
            return kernel(noise_key, state, estimator, rows, STEP / 2)[0], None

        return jax.lax.scan(one, state, jax.random.split(key, 2 * STEPS))[0]

    return lambda key, theta: sg.sgld.init(theta, key, noise=noise), move


def distances(begin, move, seed=0):
    """Return how far moments of the pair are from their own, in standard errors.

    The moments: theta, theta^2, theta times the mean of the data, the square of their distance.
    Each chain's mean over the rounds is one number; the chains are independent.
    """

    def chain(key):
        theta_key, y_key, begin_key, rest = jax.random.split(key, 4)
        theta = jax.random.normal(theta_key)
        state = begin(begin_key, theta)

        def round_(carry, key):
            state, y = carry
            move_key, y_key = jax.random.split(key)
            state = move(move_key, state, y)
            theta, mean = state.position, y.mean()
            moments = jnp.stack([theta, theta**2, theta * mean, (theta - mean) ** 2])
            return (state, draw_data(y_key, state.position)), moments

        keys = jax.random.split(rest, ROUNDS)
        return jax.lax.scan(round_, (state, draw_data(y_key, theta)), keys)[1].mean(0)

    found = jax.jit(jax.vmap(chain))(jax.random.split(jax.random.key(seed), CHAINS))
    found = np.asarray(found, float)
    expected = np.array([0.0, 1.0, 1.0, 1 / SIZE])
    error = found.std(0, ddof=1) / np.sqrt(CHAINS)
    assert (error[1:] < 0.03 * expected[1:]).all()  # else the test has no power
    return (found.mean(0) - expected) / error


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["independent", "averaged"])
@pytest.mark.parametrize("order", WITHOUT_REPLACEMENT)
def test_epochs_leave_the_joint_law_alone(order, noise):
    assert np.abs(distances(*epochs_of(order, noise, ESTIMATOR))).max() < SIGMAS


@pytest.mark.slow
@pytest.mark.parametrize("noise", ["independent", "averaged"])
def test_sgld_leaves_the_joint_law_alone(noise):
    assert np.abs(distances(*sgld_steps(noise, ESTIMATOR))).max() < SIGMAS


@pytest.mark.slow
def test_kinetic_epochs_leave_the_joint_law_alone():
    assert np.abs(distances(*ubu_epochs(ESTIMATOR))).max() < SIGMAS


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.9, 1.1])
def test_a_likelihood_of_the_wrong_weight_is_noticed(factor):
    wrong = grad_estimator(lambda x: -(x**2) / 2, lambda x, y: -((y - x) ** 2) / 2, factor * SIZE)
    for functions in (partial(epochs_of, "batches", "averaged"), ubu_epochs):
        assert np.abs(distances(*functions(wrong))).max() > SIGMAS
