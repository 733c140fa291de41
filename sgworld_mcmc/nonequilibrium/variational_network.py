"""The network of the variational estimate of entropy production ("NEEP").

It adds net(x, x') - net(x', x) to a fitted d, after Kim, Bae, Lee & Jeong, Phys. Rev. Lett. 125,
140604 (2020).
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax

__all__ = ["fit_network"]

_BATCH = 512
# Number of steps between two evaluations on the validation pairs.
_PERIOD = 100


def fit_network(x, y, _shape, offset, rng_key, hidden, num_steps, fold) -> Callable:
    """Train on pairs (n, k) with the given d as offset; return a callable ``(x, y) -> (n,)``.

    The network with the best value on the last quarter of the pairs is kept. The untrained network,
    which adds nothing, is among the candidates, so that a useless network does no harm.
    """
    key = jax.random.key(0) if rng_key is None else rng_key
    start_key, batch_key = jax.random.split(jax.random.fold_in(key, fold))
    x, y, offset = (np.asarray(a, dtype=np.float32) for a in (x, y, offset))
    cut = len(x) * 3 // 4
    parameters = _initial(start_key, x.shape[1], hidden)
    train = tuple(a[:cut] for a in (x, y, offset))
    validation = tuple(a[cut:] for a in (x, y, offset))
    best = _train(parameters, train, validation, batch_key, max(1, num_steps // _PERIOD))

    def network(x, y, _shape=None):
        slices = range(0, len(x), 2**16)
        parts = [(np.float32(x[s : s + 2**16]), np.float32(y[s : s + 2**16])) for s in slices]
        return np.concatenate([np.asarray(_difference(best, *p), np.float64) for p in parts])

    return network


def _initial(key, dim, hidden):
    keys = jax.random.split(key, 2)
    return {
        "in": jax.random.normal(keys[0], (2 * dim, hidden)) / np.sqrt(2 * dim),
        "bias": jnp.zeros(hidden),
        "middle": jax.random.normal(keys[1], (hidden, hidden)) / np.sqrt(hidden),
        "middle_bias": jnp.zeros(hidden),
        # With zeros training starts from the given d.
        "out": jnp.zeros(hidden),
    }


def _net(parameters, x, y):
    # The step is an input of its own, because it is small beside the position in slow chains.
    inputs = jnp.concatenate([(x + y) / 2, y - x], axis=1)
    layer = jnp.tanh(inputs @ parameters["in"] + parameters["bias"])
    layer = jnp.tanh(layer @ parameters["middle"] + parameters["middle_bias"])
    return layer @ parameters["out"]


@jax.jit
def _difference(parameters, x, y):
    return _net(parameters, x, y) - _net(parameters, y, x)


def _loss(parameters, x, y, offset):
    d = offset + _net(parameters, x, y) - _net(parameters, y, x)
    return -jnp.mean(d - jnp.exp(jnp.minimum(-d, 60.0)))


@partial(jax.jit, static_argnames="periods")
def _train(parameters, train, validation, key, periods):
    schedule = optax.cosine_decay_schedule(3e-3, periods * _PERIOD)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(schedule))
    size = train[0].shape[0]

    def step(carry, key):
        parameters, state = carry
        rows = jax.random.randint(key, (_BATCH,), 0, size)
        gradient = jax.grad(_loss)(parameters, *(a[rows] for a in train))
        updates, state = optimizer.update(gradient, state)
        return (optax.apply_updates(parameters, updates), state), None

    def period(carry, key):
        parameters, state, best, best_loss = carry
        (parameters, state), _ = jax.lax.scan(
            step, (parameters, state), jax.random.split(key, _PERIOD)
        )
        loss = _loss(parameters, *validation)
        better = loss < best_loss
        best = jax.tree.map(lambda new, old: jnp.where(better, new, old), parameters, best)
        return (parameters, state, best, jnp.where(better, loss, best_loss)), None

    start = (parameters, optimizer.init(parameters), parameters, _loss(parameters, *validation))
    return jax.lax.scan(period, start, jax.random.split(key, periods))[0][2]
