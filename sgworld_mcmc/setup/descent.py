"""Search for the posterior mode: Adam on minibatches, then Newton steps or L-BFGS.

Each function is compiled once for data of one shape, and is told at run time how many of the
batches to use: far from the mode a few random batches are as good as all rows.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.gradients.weighting import batch_estimate, epoch_mean
from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["Search", "adam", "descend"]

# A search ends where a step promises less gain of log density, g H^-1 g / 2, than this: 1e-6 nats
# are a thousandth of a posterior standard deviation.
GAIN = 1e-6
# A search ends where its trial step has been shortened to this fraction.
SHORTEST = 1e-9


def adam(
    start: jax.Array,
    order: jax.Array,
    log_density: Callable,
    feed: FixedPartition,
    *,
    learning_rate: float = 0.1,
) -> jax.Array:
    """Make minibatch steps of Adam from ``start`` (D,) towards the mode; return where they end.

    Parameters
    ----------
    order
        (steps,) int32 batch numbers.
    log_density
        ``log_density(position, minibatch)``, an estimate from the mean over a minibatch's rows.
    learning_rate
        The learning rate at the start; it falls to zero along a cosine. A coordinate can travel
        about half the number of steps times this far, in unconstrained units.
    """
    import optax  # when it is used

    size = feed.size
    optimiser = optax.adam(optax.cosine_decay_schedule(learning_rate, order.shape[0]))

    def step(carry, index):
        x, state = carry
        gradient = batch_estimate(jax.grad(log_density), x, feed.fetch((), index), feed)
        updates, state = optimiser.update(-gradient / size, state)
        new = optax.apply_updates(x, updates)
        return (jnp.where(jnp.all(jnp.isfinite(new)), new, x), state), None

    return jax.lax.scan(step, (start, optimiser.init(start)), order)[0][0]


class Search(NamedTuple):
    """The state of a search, and at the end its result.

    Attributes
    ----------
    position
        (D,) the best point so far.
    loss
        Minus the log density there, up to a constant.
    gradient
        (D,) gradient of the loss.
    direction, length
        Direction (D,) and length of the next trial step.
    memory
        What L-BFGS remembers of its last steps.
    gain
        The log density that the next full step promises, in nats; small at a mode.
    evaluations
        Number of gradients used.
    """

    position: jax.Array
    loss: jax.Array
    gradient: jax.Array
    direction: jax.Array
    length: jax.Array
    memory: ArrayTree
    gain: jax.Array
    evaluations: jax.Array


def descend(
    start: jax.Array,
    coordinates: Coordinates,
    newton: bool,
    log_density: Callable,
    feed: FixedPartition,
    used: jax.Array | int,
    limit: jax.Array | int,
) -> Search:
    """Maximise the log density of the first ``used`` batches from ``start`` (D,).

    Each turn evaluates one trial point, and either accepts it or shortens the step. So the model
    is compiled once; optax's own line searches evaluate it in several places.

    Parameters
    ----------
    coordinates
        K with K K^T the inverse Hessian, for Newton steps.
    newton
        Whether to step along - K K^T gradient; else by L-BFGS, which needs no Hessian. Static.
    used
        Number of batches whose mean is the log density.
    limit
        Largest number of gradients to evaluate.
    """
    import optax  # when it is used

    size, lbfgs = feed.size, optax.scale_by_lbfgs()
    # The loss is a sum over all rows: its rounding hides any smaller difference.
    slack = 10 * jnp.finfo(start.dtype).eps
    tiny = jnp.finfo(start.dtype).tiny
    fresh = () if newton else lbfgs.init(start)

    def evaluate(x):
        value, gradient = epoch_mean(jax.value_and_grad(log_density), x, feed, used)
        return -value / size, -gradient / size

    def next_direction(gradient, memory, x):
        if newton:
            return size * coordinates.apply(coordinates.pull_back(gradient)), memory
        quasi, memory = lbfgs.update(gradient, memory, x)
        # Negative curvature on the way spoils the memory: the search then begins again from the
        # gradient.
        descends = jnp.vdot(gradient, quasi) > 0
        memory = jax.tree.map(lambda a, b: jnp.where(descends, a, b), memory, fresh)
        steepest = gradient / jnp.maximum(jnp.linalg.norm(gradient), tiny)
        return jnp.where(descends, quasi, steepest), memory

    def turn(search: Search) -> Search:
        trial = search.position + search.length * search.direction
        loss, gradient = evaluate(trial)
        slope = jnp.vdot(search.gradient, search.direction)
        # The first evaluation is at the start itself: its direction is zero.
        wanted = search.loss + 1e-4 * search.length * slope + slack * jnp.abs(search.loss)
        accept = jnp.isfinite(loss) & jnp.all(jnp.isfinite(gradient)) & (loss <= wanted)
        direction, memory = next_direction(gradient, search.memory, trial)
        accepted = Search(
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

    def go_on(search: Search) -> jax.Array:
        unfinished = (search.gain > GAIN) & (search.length > SHORTEST)
        return unfinished & (search.evaluations < limit)

    zero, infinity = jnp.zeros_like(start), jnp.array(jnp.inf, start.dtype)
    one = jnp.ones((), start.dtype)
    search = Search(start, infinity, zero, zero, one, fresh, infinity, jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(go_on, turn, search)
