"""The state of a chain, and how one draw is made of minibatch steps."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.types import ArrayTree, PRNGKey

from sgworld_mcmc.data.batches import Batches, RowBatches, num_batches, num_examples, split_rows
from sgworld_mcmc.data.orders import initial_order, next_order
from sgworld_mcmc.integrators.langevin import draw_noise
from sgworld_mcmc.sampling import lagged_moments as moments
from sgworld_mcmc.sampling.sweep import sweep

__all__ = ["Dynamics", "SGMCMCState", "draw", "initial_state"]


class Dynamics(NamedTuple):
    """The static choices of a run.

    Attributes
    ----------
    order, noise
        See :mod:`sgworld_mcmc.data.orders` and :mod:`sgworld_mcmc.integrators.langevin`.
    temperature
        tau: the draws are of exp(-U / tau).
    gradient
        See :mod:`sgworld_mcmc.gradients.estimators`.
    num_batches
        M.
    steps_per_draw
        Minibatch steps from one draw to the next.
    steps_per_warmup
        Minibatch steps of a warm-up call: an epoch, or what a draw takes if that is less.
    limit
        A chain with a larger coordinate has diverged; None where coordinates have no scale.
    cached
        Whether control variates have the offset of every batch at hand.
    recorded
        Of so many leading coordinates moments are recorded; 0 for none.
    """

    order: str
    noise: str
    temperature: float
    gradient: str
    num_batches: int
    steps_per_draw: int
    steps_per_warmup: int
    limit: float | None
    cached: bool
    recorded: int = 0


class SGMCMCState(NamedTuple):
    """State of a chain; with several vectorized chains every field has a leading chain axis.

    Attributes
    ----------
    i
        Number of calls made so far, warm-up epochs and draws, int32.
    z
        Dict of unconstrained values by latent site.
    position
        (D,) the same point in preconditioned coordinates: z = center + scale position.
    noise
        (D,) noise carried by averaged noise, ``()`` else.
    order
        (M,) int32 order of the batches in the current epoch.
    rows
        Row numbers of each batch for order ``"examples"``, ``()`` else.
    step
        Number of minibatch steps made, int32.
    num_warmup
        Number of warm-up calls, int32.
    step_size
        h, in preconditioned coordinates.
    diverging
        Whether the chain has become infinite and is no longer advanced.
    diverged_at
        The minibatch step at which it did, -1 if it did not.
    rng_key
        Key of the draws to come.
    moments
        The :class:`~sgworld_mcmc.sampling.lagged_moments.BlockMoments` of the positions after the
        warm-up if they are recorded, ``()`` else.
    """

    i: jax.Array
    z: dict[str, jax.Array]
    position: jax.Array
    noise: ArrayTree
    order: jax.Array
    rows: ArrayTree
    step: jax.Array
    num_warmup: jax.Array
    step_size: jax.Array
    diverging: jax.Array
    diverged_at: jax.Array
    rng_key: jax.Array
    moments: ArrayTree = ()


def initial_state(
    rng_key: PRNGKey,
    z: dict[str, jax.Array],
    position: jax.Array,
    step_size: jax.Array,
    rows: ArrayTree,
    num_warmup: int,
    count: int,
    dynamics: Dynamics,
) -> SGMCMCState:
    """The state of one chain before its first step; ``count`` is the number of batches M."""
    noise_key, order_key, chain_key = jax.random.split(rng_key, 3)
    # The partition is random already: the first epoch may take the batches as they come.
    order = jnp.arange(count, dtype=jnp.int32)
    if dynamics.order == "replacement":
        order = initial_order(order_key, dynamics.order, count)
    zero = jnp.zeros((), jnp.int32)
    center = jnp.zeros_like(position[: dynamics.recorded])
    return SGMCMCState(
        i=zero,
        z=z,
        position=position,
        noise=draw_noise(noise_key, position) if dynamics.noise == "averaged" else (),
        order=order,
        rows=rows,
        step=zero,
        num_warmup=jnp.asarray(num_warmup, jnp.int32),
        step_size=jnp.asarray(step_size, position.dtype),
        diverging=jnp.array(False),
        diverged_at=zero - 1,
        rng_key=chain_key,
        moments=moments.empty(center) if dynamics.recorded else (),
    )


class Clock(NamedTuple):
    """Counters that all chains share: unbatched, so that branches on them stay branches."""

    i: jax.Array
    step: jax.Array
    num_warmup: jax.Array


def clock(state: SGMCMCState) -> Clock:
    """The counters of the first chain."""
    first = lambda x: x if jnp.ndim(x) == 0 else x[0]  # noqa: E731
    return Clock(first(state.i), first(state.step), first(state.num_warmup))


def draw(
    state: SGMCMCState,
    clock: Clock,
    data: Batches | tuple,
    estimator: Callable,
    correction: Callable | None,
    to_sites: Callable,
    dynamics: Dynamics,
) -> SGMCMCState:
    """Advance one chain by one draw, or by one warm-up call.

    A draw is a number of segments of g = gcd(M, steps_per_draw) steps: each lies within one
    epoch, so that a new order is drawn between segments only, whatever the steps per draw.

    Parameters
    ----------
    state, clock
        The chain, and :func:`clock` of the chains.
    data
        Contiguous batches, or the data themselves where ``state.rows`` tells the batches.
    estimator, correction
        Of the gradient, in preconditioned coordinates:
        :func:`sgworld_mcmc.gradients.estimators.gradient_parts`.
    to_sites
        Function of the position that returns the dict of unconstrained sites.
    dynamics
        The static choices.
    """
    batches_of = lambda rows: data if isinstance(data, Batches) else RowBatches(data, rows)  # noqa: E731
    count = num_batches(batches_of(state.rows))
    size = num_examples(batches_of(state.rows))
    length = math.gcd(count, dynamics.steps_per_draw, dynamics.steps_per_warmup)

    def record(sums, position):
        return moments.add(sums, position[: dynamics.recorded], state.moments.center)

    # The time step of the theory: a minibatch step, or without replacement the epoch(s) in which
    # the batches' noise cancels.
    every_step = dynamics.recorded and dynamics.order == "replacement"
    every_epoch = dynamics.recorded and not every_step
    # Counted from the first draw on: a symmetric pair of epochs begins there.
    warmup = clock.num_warmup * dynamics.steps_per_warmup // count

    def renew(order_key, rows_key, carry, epoch):
        order, rows, _ = carry
        if dynamics.order == "examples":
            rows = split_rows(jax.random.permutation(rows_key, size), count)
        return next_order(order_key, dynamics.order, order, epoch), rows

    def segment(number, carry):
        rng_key, position, noise, order, rows, step, diverged_at, sums = carry
        rng_key, noise_key, order_key, rows_key = jax.random.split(rng_key, 4)
        now = clock.step + number * length
        # A new epoch's order is made when it begins. A loop of one turn or none, and before the
        # order is read: else every step would copy it, M numbers.
        begins = (now % count == 0) & (now > 0)
        order, rows, _ = jax.lax.while_loop(
            lambda carry: carry[2],
            lambda carry: (*renew(order_key, rows_key, carry, now // count - warmup), False),
            (order, rows, begins),
        )
        result = sweep(
            noise_key,
            position,
            noise,
            estimator,
            batches_of(rows),
            jax.lax.dynamic_slice(order, (now % count,), (length,)),
            state.step_size,
            dynamics.temperature,
            dynamics.noise,
            active=diverged_at < 0,
            correction=correction,
            limit=dynamics.limit,
            observer=record if every_step else None,
            observed=sums,
        )
        fails = (diverged_at < 0) & (result.finite_steps < length)
        diverged_at = jnp.where(fails, step + result.finite_steps, diverged_at)

        sums = result.observed
        if every_epoch:
            whole = (now + length) % count == 0
            if dynamics.order == "symmetric":
                whole = whole & (((now + length) // count - warmup) % 2 == 0)
            sums = jax.lax.cond(whole, record, lambda sums, _: sums, sums, result.position)
        step = step + length
        return rng_key, result.position, result.noise, order, rows, step, diverged_at, sums

    warming = clock.i < clock.num_warmup
    steps = jnp.where(warming, dynamics.steps_per_warmup, dynamics.steps_per_draw)
    carry = (
        state.rng_key,
        state.position,
        state.noise,
        state.order,
        state.rows,
        state.step,
        state.diverged_at,
        moments.begin(state.moments) if dynamics.recorded else (),
    )
    rng_key, position, noise, order, rows, step, diverged_at, sums = jax.lax.fori_loop(
        0, steps // length, segment, carry
    )
    recorded = state.moments
    if dynamics.recorded:
        number = clock.i - clock.num_warmup
        recorded = jax.lax.cond(
            warming, lambda: recorded, lambda: moments.absorb(recorded, sums, number)
        )
    # The way to infinity is no sample: a chain that diverges stays where the last draw was.
    position = jnp.where(diverged_at >= 0, state.position, position)
    return state._replace(
        i=state.i + 1,
        z=to_sites(position),
        position=position,
        noise=noise,
        order=order,
        rows=rows,
        step=step,
        diverging=diverged_at >= 0,
        diverged_at=diverged_at,
        rng_key=rng_key,
        moments=recorded,
    )
