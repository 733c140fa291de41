"""Chains that are far from the center come back, whatever the batches do there."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.gradients.taylor import Taylor, TaylorControls
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.sampling.sweep import sweep

SIZE, DIMENSION, BATCH = 2000, 11, 10
RADIUS, CHAINS, STEPS = 60.0, 200, 100


@pytest.fixture(scope="module")
def logistic():
    """Logistic regression in whitened coordinates: log density, batches and controls."""
    generator = np.random.default_rng(0)
    X = generator.normal(size=(SIZE, DIMENSION)).astype(np.float32)
    # The truth is the mode, since the responses are their expectations.
    eta = X @ generator.normal(size=DIMENSION).astype(np.float32)
    y = 1 / (1 + np.exp(-eta))
    hessian = (X * (y * (1 - y))[:, None]).T @ X
    X = X @ np.linalg.inv(np.linalg.cholesky(hessian)).T

    def target(z, rows):
        x, y, eta = rows
        logits = eta + x @ z
        return SIZE * jnp.mean(y * logits - jax.nn.softplus(logits))

    rows = tuple(jnp.asarray(a, jnp.float32) for a in (X, y, eta))
    feed = partition(jax.random.key(1), rows, BATCH)
    return target, feed, TaylorControls(jnp.zeros(DIMENSION), -jnp.eye(DIMENSION))


def distances(logistic, reach, radius=RADIUS, step_size=1.0):
    """Return (chains, steps) distances of chains that start at a radius, in any direction."""
    target, feed, controls = logistic
    gradient, integrator = Taylor(), Averaged()
    if reach is not None:
        controls = gradient.bounded(controls, reach)

    def chain(key):
        start_key, noise_key, order_key, sweep_key = jax.random.split(key, 4)
        start = jax.random.normal(start_key, (DIMENSION,))
        state = integrator.init(noise_key, radius * start / jnp.linalg.norm(start))
        return sweep(
            sweep_key,
            state,
            jax.random.randint(order_key, (STEPS,), 0, feed.num_batches),
            integrator=integrator,
            gradient=lambda z, i: gradient(target, controls, feed, z, feed.fetch((), i), i),
            step_size=step_size,
            observer=lambda past, z: (past[0].at[past[1]].set(jnp.linalg.norm(z)), past[1] + 1),
            observed=(jnp.zeros(STEPS), 0),
        ).observed[0]

    keys = jax.random.split(jax.random.key(0), CHAINS)
    return np.asarray(jax.jit(jax.vmap(chain))(keys))


@pytest.mark.slow
def test_no_batch_leads_a_chain_farther_away_than_it_is(logistic):
    """Without the bound a step multiplies positions by random matrices, and some chains explode."""
    free, bounded = distances(logistic, None), distances(logistic, 10.0)
    assert (free.max(1) > 1e3).mean() > 0.05
    # What a chain may gain in a step is the injected noise, of length 4 or so.
    before = np.concatenate([np.full((CHAINS, 1), RADIUS), bounded[:, :-1]], axis=1)
    assert np.all(bounded < np.maximum(before, 10.0) + 9)
    assert bounded.max() < RADIUS + 9
    assert np.median(bounded[:, -1]) < 6 and bounded[:, -1].max() < RADIUS / 2


@pytest.mark.slow
def test_draws_near_the_center_do_not_feel_the_bound(logistic):
    """Chains that start where draws are make the same steps."""
    free, bounded = (distances(logistic, reach, radius=3.0, step_size=0.3) for reach in (None, 10))
    np.testing.assert_allclose(free, bounded, rtol=1e-3)


@pytest.mark.parametrize(("length", "wanted"), [(5.0, 5.0), (50.0, 12.0), (np.inf, None)])
def test_the_estimate_is_shortened_and_keeps_its_direction(length, wanted):
    """Up to the larger one of the reach, 8, and the known part of the gradient, 12."""
    controls = TaylorControls(jnp.zeros(2), -jnp.eye(2))
    controls = Taylor().bounded(controls, 8.0)
    position = jnp.array([12.0, 0.0])

    def target(z, rows):
        # Beyond second order about zero, with a gradient of the wanted length at the position.
        return jnp.mean(rows) * length * z[1] * z[0] ** 2 / 144

    feed = partition(jax.random.key(0), jnp.ones(4), 2)
    value = Taylor()(target, controls, feed, position, feed.fetch((), 0), 0)
    correction = np.asarray(value) - [-12.0, 0.0]
    if wanted is None:
        assert not np.isfinite(correction).all()  # no bound hides an infinite gradient
    else:
        np.testing.assert_allclose(correction, [0.0, wanted], atol=1e-4)
