"""A sweep over a sequence of batches: the inner loop of every sampler in the package."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.types import ArrayLikeTree, ArrayTree, PRNGKey

from sgworld_mcmc.data.batches import Batches, RowBatches, fetch, num_batches, num_examples
from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.integrators.langevin import draw_noise, langevin_step

__all__ = ["Sweep", "is_finite", "sweep"]

# Noise is drawn for all steps at once up to this many numbers (16 MB in float32), which is a
# sixth faster than drawing it step by step; above, memory matters more.
_NOISE_BLOCK = 2**22


class Sweep(NamedTuple):
    """Result of a sweep: position, carried noise, and the number of finite steps made.

    ``finite_steps`` is the length of the sweep unless a step led to NaN or infinity: then the
    position is the last finite one and the count says after how many steps that was.
    ``observed`` is what the observer made of the positions.
    """

    position: ArrayTree
    noise: ArrayTree
    finite_steps: jax.Array  # int32
    observed: ArrayTree = ()


def is_finite(position: ArrayLikeTree, limit: float | None = None) -> jax.Array:
    """Whether all numbers of a pytree are finite (or at most ``limit``): a bool scalar."""
    within = lambda x: jnp.isfinite(x) if limit is None else jnp.abs(x) <= limit  # noqa: E731
    return jnp.all(jnp.stack([jnp.all(within(x)) for x in jax.tree.leaves(position)]))


def sweep(
    rng_key: PRNGKey,
    position: ArrayLikeTree,
    carried: ArrayTree,
    grad_estimator: Callable,
    batches: Batches | RowBatches,
    order: jax.Array,
    step_size: jax.Array | float,
    temperature: jax.Array | float,
    noise: str,
    active: jax.Array | bool = True,
    correction: Callable | None = None,
    limit: float | None = None,
    observer: Callable | None = None,
    observed: ArrayTree = (),
) -> Sweep:
    """Langevin steps with the batches ``order[0]``, ``order[1]``, ... in turn.

    Parameters
    ----------
    rng_key
        For the injected noise.
    position, carried
        Pytree of arrays, and the noise carried from the last step.
    grad_estimator
        Function of (position, minibatch): see :mod:`sgworld_mcmc.gradients.weighting`.
    batches
        The data, dealt into M batches.
    order
        (S,) int32 batch numbers; S need not be M.
    step_size, temperature
        Constant over the sweep: noise cancels over an epoch only at a constant step size.
    noise
        ``"independent"`` or ``"averaged"``.
    active
        False leaves the position as it is: for chains that have diverged before.
    correction
        Function of (position, batch number), added to the gradient of that batch: control variates.
    limit
        Largest absolute coordinate that counts as finite.
    observer, observed
        After every step ``observed = observer(observed, position)``.
    """
    size, count, length = num_examples(batches), num_batches(batches), order.shape[0]
    numbers = sum(jnp.size(x) for x in jax.tree.leaves(position))
    if numbers * length <= _NOISE_BLOCK:
        block = draw_noise(rng_key, position, length)
        noise_of = lambda x: x  # noqa: E731
    else:
        block = jax.random.split(rng_key, length)
        noise_of = lambda key: draw_noise(key, position)  # noqa: E731

    def step(state, inputs):
        position, carried, finite_steps, active, observed = state
        index, drawn = inputs
        gradient = batch_estimate(grad_estimator, position, fetch(batches, index), size, count)
        if correction is not None:
            gradient = jax.tree.map(jnp.add, gradient, correction(position, index))
        proposal, carried = langevin_step(
            position, gradient, carried, noise_of(drawn), step_size, temperature, noise
        )
        active = active & is_finite(proposal, limit)
        position = jax.tree.map(lambda new, old: jnp.where(active, new, old), proposal, position)
        if observer is not None:
            observed = observer(observed, position)
        return (position, carried, finite_steps + active, active, observed), None

    position = jax.tree.map(jnp.asarray, position)
    state = (position, carried, jnp.zeros((), jnp.int32), jnp.asarray(active), observed)
    final, _ = jax.lax.scan(step, state, (order, block))
    position, carried, finite_steps, _, observed = final
    return Sweep(position, carried, finite_steps, observed)
