"""Search for the posterior mode: Adam on minibatches, then L-BFGS on the full log density."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from blackjax.types import PRNGKey

from sgworld_mcmc.gradients import batch_estimate, epoch_mean
from sgworld_mcmc.minibatch import Batches, RowBatches, fetch, num_batches, num_examples

__all__ = ["Mode", "find_mode"]

ADAM_STEPS = 1000
LBFGS_STEPS = 150
# A quasi-Newton step promises to gain g H^-1 g / 2 of log density, so a gain of 1e-4 nats is a
# distance of 0.014 posterior standard deviations from the mode.
GAIN = 1e-4


class Mode(NamedTuple):
    """Where the search ended.

    Attributes
    ----------
    position
        (D,) the mode, or the best point found.
    log_density
        The log density there, up to a constant.
    gain
        The log density that a further quasi-Newton step promised, in nats; small at a mode.
    evaluations
        Number of full gradients used.
    """

    position: jax.Array
    log_density: jax.Array
    gain: jax.Array
    evaluations: jax.Array


def find_mode(
    rng_key: PRNGKey,
    position: jax.Array,
    log_density: Callable,
    batches: Batches | RowBatches,
    *,
    adam_steps: int | None = None,
    learning_rate: float = 0.1,
) -> Mode:
    """Maximise the log density from any initial point.

    Parameters
    ----------
    rng_key
        For the order of the batches.
    position
        (D,) initial point.
    log_density
        ``log_density(position, minibatch)``: estimate from a minibatch, a mean over its rows.
    batches
        The data.
    adam_steps
        Minibatch steps of Adam before L-BFGS; by default four epochs, but at least 250 and at
        most 1000 steps: far from the mode a minibatch's gradient is as good as the full one, near
        it L-BFGS is much faster.
    learning_rate
        Adam's first learning rate; it falls to zero along a cosine. A coordinate can travel
        about half ``adam_steps`` times this far, in unconstrained units.
    """
    count = num_batches(batches)
    adam_steps = max(250, min(ADAM_STEPS, 4 * count)) if adam_steps is None else adam_steps
    start = _adam(rng_key, position, log_density, batches, adam_steps, learning_rate)
    return _lbfgs(start, log_density, batches)


def _adam(rng_key, position, log_density, batches, steps, learning_rate) -> jax.Array:
    size, count = num_examples(batches), num_batches(batches)
    adam = optax.adam(optax.cosine_decay_schedule(learning_rate, steps))

    def step(carry, index):
        x, state = carry
        gradient = batch_estimate(jax.grad(log_density), x, fetch(batches, index), size, count)
        updates, state = adam.update(-gradient / size, state)
        new = optax.apply_updates(x, updates)
        return (jnp.where(jnp.all(jnp.isfinite(new)), new, x), state), None

    keys = jax.random.split(rng_key, -(-steps // count))
    order = jax.vmap(lambda key: jax.random.permutation(key, count))(keys).ravel()[:steps]
    return jax.lax.scan(step, (position, adam.init(position)), order)[0][0]


class _Search(NamedTuple):
    position: jax.Array
    loss: jax.Array
    gradient: jax.Array
    direction: jax.Array
    length: jax.Array
    memory: optax.OptState
    gain: jax.Array
    evaluations: jax.Array


def _lbfgs(start: jax.Array, log_density: Callable, batches: Batches | RowBatches) -> Mode:
    """L-BFGS with backtracking, written so that the model is compiled once.

    optax's own line searches evaluate the loss in several places of the loop; here each turn
    evaluates one trial point, and either accepts it or shortens the step.
    """
    size, lbfgs = num_examples(batches), optax.scale_by_lbfgs()
    slack = 10 * jnp.finfo(start.dtype).eps  # the loss cannot be told apart more finely

    tiny = jnp.finfo(start.dtype).tiny
    fresh = lbfgs.init(start)

    def evaluate(x):
        value, gradient = epoch_mean(jax.value_and_grad(log_density), x, batches)
        return -value / size, -gradient / size

    def turn(search: _Search) -> _Search:
        trial = search.position + search.length * search.direction
        loss, gradient = evaluate(trial)
        slope = jnp.vdot(search.gradient, search.direction)
        # The first evaluation is at the start itself: its direction is zero.
        wanted = search.loss + 1e-4 * search.length * slope + slack * jnp.abs(search.loss)
        accept = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & (loss <= wanted)
        direction, memory = lbfgs.update(gradient, search.memory, trial)
        # Negative curvature on the way spoils the memory: begin again from the gradient.
        descends = jnp.vdot(gradient, direction) > 0
        memory = jax.tree.map(lambda a, b: jnp.where(descends, a, b), memory, fresh)
        steepest = gradient / jnp.maximum(jnp.linalg.norm(gradient), tiny)
        direction = jnp.where(descends, direction, steepest)
        accepted = _Search(
            trial,
            loss,
            gradient,
            -direction,
            jnp.ones_like(loss),
            memory,
            size * jnp.vdot(gradient, direction) / 2,
            search.evaluations,
        )
        rejected = search._replace(length=search.length * 0.3)
        result = jax.tree.map(lambda a, b: jnp.where(accept, a, b), accepted, rejected)
        return result._replace(evaluations=search.evaluations + 1)

    def go_on(search: _Search) -> jax.Array:
        unfinished = (search.gain > GAIN) & (search.length > 1e-6)
        return unfinished & (search.evaluations < LBFGS_STEPS)

    zero, infinity = jnp.zeros_like(start), jnp.array(jnp.inf, start.dtype)
    one = jnp.ones((), start.dtype)
    search = _Search(start, infinity, zero, zero, one, fresh, infinity, jnp.zeros((), jnp.int32))
    found = jax.lax.while_loop(go_on, turn, search)
    return Mode(found.position, -size * found.loss, found.gain, found.evaluations)
