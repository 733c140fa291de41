"""The state of a chain, and how one draw is made of minibatch steps."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.protocols import ArrayTree, Feed, PRNGKey
from sgworld_mcmc.sampling.by_site import cut, joined
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.sampling.recording import Recorder
from sgworld_mcmc.sampling.sweep import sweep

__all__ = ["Clock", "SGMCMCState", "clock_of", "draw", "initial_state"]


class SGMCMCState(NamedTuple):
    """State of a chain; with several vectorized chains every field has a leading chain axis.

    Attributes
    ----------
    i
        Number of calls made so far, for warm-up and draws together, int32.
    z
        Dict of unconstrained values by latent site.
    position
        (D,) the same point in the sampler's coordinates: the flat z = center + K position.
    motion
        The integrator's state.
    order
        (M,) int32 order of the batches in the current epoch.
    dealing
        The feed's own dealing of the rows for this chain, ``()`` if all chains share one.
    step
        Number of minibatch steps made, int32.
    num_warmup
        Number of warm-up calls, int32.
    step_size
        Step size h in the sampler's coordinates; with a schedule, that of the last steps.
    diverging
        Whether the chain has diverged and is no longer advanced.
    diverged_at
        The minibatch step at which the chain diverged, -1 if it did not.
    rng_key
        Random key for the draws to come.
    moments
        The :class:`~sgworld_mcmc.sampling.lagged_moments.BlockMoments` of the positions after the
        warm-up if they are recorded, else ``()``.
    shared
        (2,) uint32 seed of the orders and dealings, the same for all chains, if they share their
        batches; () if each chain has its own.
    """

    i: jax.Array
    z: dict[str, jax.Array]
    position: jax.Array
    motion: ArrayTree
    order: jax.Array
    dealing: ArrayTree
    step: jax.Array
    num_warmup: jax.Array
    step_size: jax.Array
    diverging: jax.Array
    diverged_at: jax.Array
    rng_key: jax.Array
    moments: ArrayTree = ()
    shared: ArrayTree = ()


def initial_state(
    rng_key: PRNGKey,
    position: jax.Array,
    *,
    z: dict[str, jax.Array],
    step_size: jax.Array,
    dealing: ArrayTree,
    num_warmup: int,
    dynamics: Dynamics,
    shared: ArrayTree = (),
) -> SGMCMCState:
    """Return the state of one chain before its first step."""
    noise_key, order_key, chain_key = jax.random.split(rng_key, 3)
    if len(shared):
        order_key, _ = _shared_keys(shared, np.uint32(2**32 - 1))  # no step has this number
    # A partition is random already: the first epoch may take the batches as they come.
    order = jnp.arange(dynamics.num_batches, dtype=jnp.int32)
    if dynamics.order.period == 0:
        order = dynamics.order.init(order_key, dynamics.num_batches)
    zero = jnp.zeros((), jnp.int32)
    return SGMCMCState(
        i=zero,
        z=z,
        position=position,
        motion=dynamics.integrator.init(noise_key, position),
        order=order,
        dealing=dealing,
        step=zero,
        num_warmup=jnp.asarray(num_warmup, jnp.int32),
        step_size=jnp.asarray(step_size, position.dtype),
        diverging=jnp.array(False),
        diverged_at=zero - 1,
        rng_key=chain_key,
        moments=dynamics.recorder.empty(position),
        shared=shared,
    )


def _shared_keys(seed: jax.Array, step: jax.Array | int) -> PRNGKey:
    """Return the keys of an order and of a dealing that all chains share from a step on."""
    key = jax.random.wrap_key_data(seed, impl="threefry2x32")
    return jax.random.split(jax.random.fold_in(key, step))


class Clock(NamedTuple):
    """What all chains have in common.

    It is not batched: branches on the counters stay branches, and rows that all chains use at a
    time are read once, in products of matrices.
    """

    i: jax.Array
    step: jax.Array
    num_warmup: jax.Array
    shared: ArrayTree = ()
    order: ArrayTree = ()
    dealing: ArrayTree = ()


def clock_of(state: SGMCMCState) -> Clock:
    """Return the counters of the first chain, and its batches if all chains share them."""
    first = (lambda x: x) if jnp.ndim(state.i) == 0 else (lambda x: x[0])
    counters = first(state.i), first(state.step), first(state.num_warmup)
    if not len(state.shared):
        return Clock(*counters)
    batches = (state.shared, state.order, state.dealing)
    return Clock(*counters, *(jax.tree.map(first, x) for x in batches))


def draw(
    state: SGMCMCState,
    clock: Clock,
    *,
    feed: Feed,
    target: Callable,
    controls: ArrayTree,
    to_sites: Callable,
    dynamics: Dynamics,
    sites: tuple[int, ...] = (),
) -> SGMCMCState:
    """Advance one chain by one draw, or by one warm-up call.

    A draw is a number of segments of :attr:`Dynamics.segment` steps. Each segment lies within one
    epoch, so that a new order is drawn between segments only, whatever the steps per draw.

    Parameters
    ----------
    state, clock
        The state of the chain, and the counters from :func:`clock_of` of all chains.
    feed
        The rows in batches.
    target, controls
        The log density of (position, rows), and what the gradient needs to know about the origin.
    to_sites
        Function of the position that returns the dict of unconstrained sites.
    dynamics
        The static choices.
    sites
        Sizes of the sites at which the target's positions are cut
        (:mod:`sgworld_mcmc.sampling.by_site`); () if they are flat.
    """
    recorder = dynamics.recorder
    if recorder.coordinates:
        recorder = recorder._replace(center=state.moments.center)

    def gradient_of(dealing):
        def gradient(position, index, *key):
            batch = feed.fetch(dealing, index)
            density = (lambda z, rows: target(z, rows, *key)) if key else target
            return dynamics.gradient(density, controls, feed, position, batch, index)

        return gradient

    def segment(number, walk):
        now = clock.step + number * dynamics.segment
        settings = dynamics.settings_at(now, state.step_size)
        if sites:
            walk = walk._replace(motion=cut(walk.motion, sites))
        walk = _segment(walk, now, clock, settings, feed, gradient_of, recorder, dynamics)
        return walk._replace(motion=joined(walk.motion)) if sites else walk

    warming = clock.i < clock.num_warmup
    steps = jnp.where(warming, dynamics.steps_per_warmup, dynamics.steps_per_draw)
    sums = recorder.begin(state.moments)
    batches = state if not len(clock.shared) else clock
    walk = _Walk(
        state.rng_key,
        state.motion,
        batches.order,
        batches.dealing,
        state.step,
        state.diverged_at,
        sums,
    )
    walk = jax.lax.fori_loop(0, steps // dynamics.segment, segment, walk)
    diverging = walk.diverged_at >= 0
    # The run stops a chain that has diverged: positions on its way to infinity are no draws.
    position = jnp.where(diverging, state.position, dynamics.integrator.position(walk.motion))
    return state._replace(
        i=state.i + 1,
        z=to_sites(position),
        position=position,
        motion=walk.motion,
        order=walk.order,
        dealing=walk.dealing,
        step=walk.step,
        step_size=dynamics.settings_at(clock.step + steps - dynamics.segment, state.step_size)[0],
        diverging=diverging,
        diverged_at=walk.diverged_at,
        rng_key=walk.rng_key,
        moments=recorder.close(state.moments, walk.sums, warming, clock.i - clock.num_warmup),
    )


class _Walk(NamedTuple):
    """The values that change from segment to segment."""

    rng_key: PRNGKey
    motion: ArrayTree
    order: jax.Array
    dealing: ArrayTree
    step: jax.Array
    diverged_at: jax.Array
    sums: ArrayTree


def _segment(
    walk: _Walk,
    now: jax.Array,
    clock: Clock,
    settings: tuple[jax.Array, jax.Array],
    feed: Feed,
    gradient_of: Callable,
    recorder: Recorder,
    dynamics: Dynamics,
) -> _Walk:
    """Make the steps of one segment, the first of them being step number ``now``."""
    count, length = dynamics.num_batches, dynamics.segment
    rng_key, noise_key, order_key, rows_key = jax.random.split(walk.rng_key, 4)
    if len(clock.shared):
        order_key, rows_key = _shared_keys(clock.shared, now)
    # Epochs count from the first draw on: a symmetric pair of them begins there.
    warmup = clock.num_warmup * dynamics.steps_per_warmup // count
    order, dealing = _renewed(walk, now, warmup, order_key, rows_key, feed, dynamics)
    result = sweep(
        noise_key,
        walk.motion,
        jax.lax.dynamic_slice(order, (now % count,), (length,)),
        integrator=dynamics.integrator,
        gradient=gradient_of(dealing),
        step_size=settings[0],
        temperature=settings[1],
        active=walk.diverged_at < 0,
        limit=dynamics.limit,
        observer=recorder.observer,
        observed=walk.sums,
        random=dynamics.random,
    )
    fails = (walk.diverged_at < 0) & (result.finite_steps < length)
    after, position = now + length, dynamics.integrator.position(result.state)
    return _Walk(
        rng_key,
        result.state,
        order,
        dealing,
        walk.step + length,
        jnp.where(fails, walk.step + result.finite_steps, walk.diverged_at),
        recorder.after(result.observed, position, after, after // count - warmup, count),
    )


def _renewed(walk, now, warmup, order_key, rows_key, feed: Feed, dynamics: Dynamics):
    """Return the order and dealing of the epoch that step number ``now`` belongs to.

    The order of a new epoch is made when the epoch begins, in a loop of one turn or none and before
    the order is read. Otherwise every step would copy the M numbers of the order.
    """
    count = dynamics.num_batches

    def renew(carry):
        order, dealing, _ = carry
        # JAX's check of keys does not see that the loop has one turn at most.
        own_rows, own_order = jax.random.clone(rows_key), jax.random.clone(order_key)
        dealing = feed.renew(own_rows, dealing)
        return dynamics.order.next(own_order, order, now // count - warmup), dealing, False

    begins = (now % count == 0) & (now > 0)
    order, dealing, _ = jax.lax.while_loop(
        lambda carry: carry[2], renew, (walk.order, walk.dealing, begins)
    )
    return order, dealing
