"""Fit a Gaussian to a posterior without a usable mode, by stochastic variational Bayes.

The density of a centred hierarchy grows without bound as its scale goes to zero; its mass is
elsewhere. The Gaussian that maximises the evidence lower bound sits in the mass (Kucukelbir et al.
2017, "Automatic differentiation variational inference"). It serves as coordinates only: pilot
chains take over from there.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.fixed_partition import FixedPartition

__all__ = ["fit_gaussian"]

# Draws of the Gaussian in each step.
DRAWS = 16
# Standard deviation of the Gaussian at the start, in unconstrained units.
INITIAL_SCALE = 0.1


def fit_gaussian(
    seed: jax.Array,
    start: jax.Array,
    order: jax.Array,
    log_density: Callable,
    feed: FixedPartition,
    *,
    learning_rate: float = 0.03,
    dense: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Return the mean (D,) and the lower Cholesky factor (D, D) of the fitted Gaussian.

    If the fit is not ``dense``, the coordinates are independent, and their standard deviations (D,)
    stand for the factor.

    Parameters
    ----------
    seed
        A uint32 number.
    start
        (D,) initial mean.
    order
        (steps,) int32 number of the minibatch of each step of Adam, whose learning rate falls
        along a cosine.
    log_density
        ``log_density(position, minibatch)``, an estimate from a minibatch.
    """
    import optax  # when it is used

    dimension = start.shape[0]
    optimiser = optax.chain(
        optax.clip_by_global_norm(100.0),
        optax.adam(optax.cosine_decay_schedule(learning_rate, order.shape[0], 0.01)),
    )

    def factor(parameters):
        _, lower, log_diagonal = parameters
        if not dense:
            return jnp.exp(log_diagonal)
        return jnp.tril(lower, -1) + jnp.diag(jnp.exp(log_diagonal))

    def loss(parameters, noise, rows):
        scale = factor(parameters)
        points = parameters[0] + (noise @ scale.T if dense else noise * scale)
        values = jax.vmap(lambda x: log_density(x, rows))(points)
        finite = jnp.isfinite(values)
        mean = jnp.sum(jnp.where(finite, values, 0.0)) / jnp.maximum(jnp.sum(finite), 1)
        return -mean - jnp.sum(parameters[2])

    def step(carry, inputs):
        parameters, state = carry
        number, index = inputs
        key = jax.random.fold_in(jax.random.key(seed), number)
        noise = jax.random.normal(key, (DRAWS, dimension), start.dtype)
        rows = jax.tree.map(lambda x: x[index], feed.main)
        gradient = jax.grad(loss)(parameters, noise, rows)
        updates, new_state = optimiser.update(gradient, state)
        new = optax.apply_updates(parameters, updates)
        sound = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(new)]))
        keep = lambda a, b: jnp.where(sound, a, b)  # noqa: E731
        return (
            jax.tree.map(keep, new, parameters),
            jax.tree.map(keep, new_state, state),
        ), None

    log_scale = jnp.full(dimension, jnp.log(INITIAL_SCALE), start.dtype)
    lower = jnp.zeros((dimension, dimension) if dense else (0,), start.dtype)
    parameters = (start, lower, log_scale)
    numbers = jnp.arange(order.shape[0])
    (parameters, _), _ = jax.lax.scan(
        step, (parameters, optimiser.init(parameters)), (numbers, order)
    )
    return parameters[0], factor(parameters)
