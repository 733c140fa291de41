"""One epoch in BlackJAX's form, which SGWORLD and SGD share."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Feed, Integrator, Order, PRNGKey
from sgworld_mcmc.sampling.sweep import sweep

__all__ = ["EpochInfo", "EpochState", "Schedule", "make_feed", "run_epoch", "start", "value_at"]

Schedule = float | jax.Array | Callable[[jax.Array], jax.Array]


class EpochState(NamedTuple):
    """State of a chain between epochs.

    Attributes
    ----------
    motion
        The integrator's state: the position, and whatever else a step hands to the next one.
    order
        (M,) int32: the order in which the next epoch visits the batches.
    step
        Number of minibatch steps made, int32: the argument of schedules.
    """

    motion: ArrayTree
    order: jax.Array
    step: jax.Array

    @property
    def position(self) -> ArrayTree:
        """Pytree of floating-point arrays."""
        return self.motion.position

    @property
    def noise(self) -> ArrayTree:
        """The last step's standard normal numbers with averaged noise, ``()`` otherwise."""
        return getattr(self.motion, "noise", ())

    @property
    def velocity(self) -> ArrayTree:
        """Pytree like the position, for integrators that have a velocity."""
        return self.motion.velocity


class EpochInfo(NamedTuple):
    """What happened in an epoch.

    Attributes
    ----------
    step_size
        The step size (or learning rate) of this epoch's steps.
    finite_steps
        Number of steps made, M unless the chain diverged, int32.
    diverging
        Whether a step led to NaN or infinity; the state is then that after the last finite step.
    """

    step_size: jax.Array
    finite_steps: jax.Array
    diverging: jax.Array

    @property
    def learning_rate(self) -> jax.Array:
        """The step size, under the name that it has where no noise is injected."""
        return self.step_size


def value_at(schedule: Schedule, step: jax.Array) -> jax.Array | float:
    """Return a schedule's value: the number itself, or the function's value at a step."""
    return schedule(step) if callable(schedule) else schedule


def make_feed(
    partition_key: PRNGKey | None, data: ArrayLikeTree, batch_size: int, kind: type[Feed]
) -> Feed:
    """Deal the data into batches.

    A partition belongs to the algorithm rather than to a chain. Without a key it is the partition
    of ``jax.random.key(0)``, so that all chains share one.
    """
    key = jax.random.key(0) if partition_key is None else partition_key
    return kind.deal(key, data, batch_size)


def start(motion: ArrayTree, rng_key: PRNGKey, order: Order, num_batches: int) -> EpochState:
    """Return the state before the first epoch, with a random order for that epoch."""
    return EpochState(motion, order.init(rng_key, num_batches), jnp.zeros((), jnp.int32))


def run_epoch(
    keys: Any,
    state: EpochState,
    estimator: Callable,
    feed: Feed,
    *,
    order: Order,
    integrator: Integrator,
    step_size: Schedule,
    temperature: Schedule,
) -> tuple[EpochState, EpochInfo]:
    """Visit every batch in the state's order, and draw the order of the next epoch.

    Parameters
    ----------
    keys
        Three keys: for the dealing of the rows, the injected noise, and the next order.
    estimator
        ``estimator(position, minibatch)``, which estimates the gradient of the log density by a
        mean over rows.
    """
    rows_key, noise_key, order_key = keys
    count = feed.num_batches
    dealing = feed.renew(rows_key, ())
    h = value_at(step_size, state.step)

    def gradient(position, index):
        return batch_estimate(estimator, position, feed.fetch(dealing, index), feed)

    result = sweep(
        noise_key,
        state.motion,
        state.order,
        integrator=integrator,
        gradient=gradient,
        step_size=h,
        temperature=value_at(temperature, state.step),
    )
    step = state.step + count
    following = order.next(order_key, state.order, step // count)
    info = EpochInfo(jnp.asarray(h), result.finite_steps, result.finite_steps < count)
    return EpochState(result.state, following, step), info
