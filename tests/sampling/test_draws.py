"""A chain's draws: each epoch has an order of its own, and each number its key."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.integrators.averaged import Averaged
from sgworld_mcmc.members import GRADIENTS, ORDERS
from sgworld_mcmc.sampling.chain import clock_of, draw, initial_state
from sgworld_mcmc.sampling.dynamics import Dynamics

COUNT, EPOCHS = 11, 6


def dynamics_of(order, limit=None):
    return Dynamics(
        order=ORDERS[order](),
        gradient=GRADIENTS["plain"].make(cache=False),
        integrator=Averaged(),
        temperature=1.0,
        num_batches=COUNT,
        steps_per_draw=COUNT,
        steps_per_warmup=COUNT,
        limit=limit,
    )


def begin(key, dynamics):
    settings = {"z": {}, "step_size": jnp.float32(0.1), "dealing": (), "num_warmup": 0}
    return initial_state(key, jnp.zeros(1), dynamics=dynamics, **settings)


@pytest.mark.parametrize("order", ORDERS)
def test_every_epoch_of_a_chain_has_its_own_order(order):
    """A draw is an epoch here, after which the state holds the order that was visited."""
    dynamics = dynamics_of(order)
    feed = FixedPartition(jnp.zeros((COUNT, 1)), None)
    target = lambda z, rows: -z @ z / 2  # noqa: E731
    parts = {"feed": feed, "target": target, "controls": (), "dynamics": dynamics}

    @partial(jax.jit, compiler_options={"xla_backend_optimization_level": "0"})
    def step(state):
        return draw(state, clock_of(state), to_sites=lambda z: {}, **parts)

    state, orders = begin(jax.random.key(0), dynamics), []
    for _ in range(EPOCHS):
        state = step(state)
        orders.append(tuple(np.asarray(state.order).tolist()))
    if order == "once":
        assert len(set(orders)) == 1
    else:
        assert len(set(orders)) == EPOCHS
    if order == "symmetric":
        assert all(orders[k + 1] == orders[k][::-1] for k in range(0, EPOCHS, 2))


def test_a_chain_that_diverges_stays_at_its_last_draw():
    """Each step doubles the distance: positions on the way to infinity are no draws."""
    dynamics = dynamics_of("batches", limit=1e5)
    feed = FixedPartition(jnp.zeros((COUNT, 1)), None)
    target = lambda z, rows: -z @ z / 2  # noqa: E731
    parts = {"feed": feed, "target": target, "controls": (), "dynamics": dynamics}
    step = jax.jit(lambda state: draw(state, clock_of(state), to_sites=lambda z: {}, **parts))
    state = begin(jax.random.key(2), dynamics)._replace(step_size=jnp.float32(3.0))
    states = [state := step(state) for _ in range(4)]
    diverging = [bool(state.diverging) for state in states]
    first = diverging.index(True)
    assert 0 < first < 3 and all(diverging[first:])
    last = states[first - 1].position
    assert np.abs(last).max() < 1e5
    for state in states[first:]:
        np.testing.assert_array_equal(state.position, last)
    assert COUNT * first <= int(states[-1].diverged_at) < COUNT * (first + 1)


def test_the_keys_of_a_new_state_are_all_different():
    """The numbers that the integrator begins with have used their key, the chain's is unused."""
    with jax.debug_key_reuse(True):
        state = begin(jax.random.key(0), dynamics_of("batches"))
        other = begin(jax.random.key(1), dynamics_of("batches"))
        for one in (state, other):
            jax.random.bits(one.rng_key)
    assert float(state.motion.noise[0]) != float(other.motion.noise[0])
