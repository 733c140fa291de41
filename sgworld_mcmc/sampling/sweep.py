"""Make steps with a sequence of batches: the inner loop of every sampler in the package."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.integrators.normals import DRAWS
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Integrator, PRNGKey

__all__ = ["Sweep", "is_finite", "sweep"]

# Noise is drawn for all steps at once up to this many numbers (16 MB in float32) if a step needs
# few of them: this is a sixth faster than drawing it step by step. Where a step needs many, it is
# slower (by half at 60 000 numbers, by more above), since the numbers go through memory.
_NOISE_BLOCK, _NOISE_STEP = 2**22, 2**14


class Sweep(NamedTuple):
    """Result of a sweep.

    Attributes
    ----------
    state
        The integrator's state; if a step led to NaN or infinity, the last finite one.
    finite_steps
        Number of steps made, int32: the length of the sweep unless a step was not finite.
    observed
        The last value that the observer returned.
    """

    state: ArrayTree
    finite_steps: jax.Array
    observed: ArrayTree = ()


def is_finite(position: ArrayLikeTree, limit: float | None = None) -> jax.Array:
    """Return whether all numbers of a pytree are finite (or at most ``limit``) as a bool scalar."""
    within = lambda x: jnp.isfinite(x) if limit is None else jnp.abs(x) <= limit  # noqa: E731
    return jnp.all(jnp.stack([jnp.all(within(x)) for x in jax.tree.leaves(position)]))


def sweep(
    rng_key: PRNGKey,
    state: ArrayTree,
    order: jax.Array,
    *,
    integrator: Integrator,
    gradient: Callable,
    step_size: jax.Array | float,
    temperature: jax.Array | float = 1.0,
    active: jax.Array | bool = True,
    limit: float | None = None,
    observer: Callable | None = None,
    observed: ArrayTree = (),
    random: bool = False,
) -> Sweep:
    """Make steps with the batches ``order[0]``, ``order[1]``, ... in turn.

    Parameters
    ----------
    rng_key
        Random key for the injected noise.
    state
        The integrator's state.
    order
        (S,) int32 batch numbers; S need not be M.
    integrator
        The integrator that makes the steps.
    gradient
        Function of (position, batch number) that returns the gradient of the log density,
        estimated from that batch.
    step_size, temperature
        Step size and temperature, constant over the sweep: the noise of the batches cancels over
        an epoch only at a constant step size.
    active
        Whether to move the chain at all; False for a chain that has diverged before.
    limit
        Largest absolute coordinate that counts as finite.
    observer, observed
        After every step ``observed = observer(observed, position)``; no observer by default.
    random
        Whether the gradient draws random numbers: it is then given a key of its own in every step,
        as a third argument.
    """
    position, length = integrator.position(state), order.shape[0]
    joined = integrator.joined_normals is not None
    if random:
        rng_key, parts_key = jax.random.split(rng_key)
    if joined:
        rng_key, close_key = jax.random.split(rng_key)
    number = integrator.joined_normals if joined else integrator.normals
    draw = DRAWS[integrator.numbers]
    block, normals_of = _normals(rng_key, position, length, number, draw)
    first = jnp.arange(length) == 0 if joined else ()
    keys = jax.random.split(parts_key, length) if random else ()

    def step(carry, inputs):
        state, finite_steps, active, observed = carry
        index, drawn, first, key = inputs
        own = (key,) if random else ()
        given = (lambda x: gradient(x, index, *own), normals_of(drawn), step_size, temperature)
        if joined:
            proposal = integrator.joined_step(state, *given, first)
        else:
            proposal = integrator.step(state, *given)
        active = active & is_finite(_tested(integrator, proposal), limit)
        state = jax.tree.map(lambda new, old: jnp.where(active, new, old), proposal, state)
        if observer is not None:
            observed = observer(observed, integrator.position(state))
        return (state, finite_steps + active, active, observed), None

    carry = (state, jnp.zeros((), jnp.int32), jnp.asarray(active), observed)
    carry, _ = jax.lax.scan(step, carry, (order, block, first, keys))
    state, finite_steps, active, observed = carry
    if joined:
        normals = draw(close_key, (position,) * number)
        closed = integrator.close(state, normals, step_size, temperature)
        finite = is_finite(_tested(integrator, closed), limit)
        state = jax.tree.map(lambda new, old: jnp.where(active & finite, new, old), closed, state)
        finite_steps = finite_steps - (active & ~finite)  # the last step was not completed
    return Sweep(state, finite_steps, observed)


def _tested(integrator: Integrator, state: ArrayTree) -> ArrayTree:
    """Return what has to stay finite: the whole state without injected noise, else the position."""
    return integrator.position(state) if integrator.normals else state


def _normals(
    rng_key, position, length: int, number: int, draw: Callable
) -> tuple[ArrayTree, Callable]:
    """Return the inputs of the scan, and the function from an input to a step's normal numbers."""
    if number == 0:
        return (), lambda drawn: drawn
    like = position if number == 1 else (position,) * number
    numbers = sum(jnp.size(x) for x in jax.tree.leaves(like))
    if numbers <= _NOISE_STEP and numbers * length <= _NOISE_BLOCK:
        return draw(rng_key, like, length), lambda drawn: drawn
    return jax.random.split(rng_key, length), lambda key: draw(key, like)
