"""Bring chains from random starts to the posterior without a search for its mode.

Each chain goes its own way: steps of Adam, then kinetic dynamics at temperature one.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.integrators.ubu import UBU, UBUState
from sgworld_mcmc.protocols import Feed
from sgworld_mcmc.sampling.sweep import sweep

__all__ = ["ROW", "BurnIn", "advance"]

# Steps in a row, after which velocities are looked at.
ROW = 8


class BurnIn(NamedTuple):
    """Chains of kinetic dynamics, and what was seen of their velocities.

    Attributes
    ----------
    motion
        The integrator's states, with positions and velocities (P, D).
    alive
        (P,) whether all steps were finite.
    squares
        (P, D) sum of the squared velocities at the ends of the rows that count.
    """

    motion: UBUState
    alive: jax.Array
    squares: jax.Array


def advance(
    rng_key: jax.Array,
    chains: BurnIn,
    order: jax.Array,
    rows: jax.Array | int,
    counted: jax.Array | int,
    step_size: jax.Array | float,
    friction: jax.Array | float,
    temperature: jax.Array | float,
    target: Callable,
    feed: Feed,
) -> BurnIn:
    """Advance the chains by rows of :data:`ROW` steps.

    Parameters
    ----------
    order
        (R, ROW) int32 batch numbers, the same for all chains: for each step the batch is read once.
    rows, counted
        The first ``rows`` <= R of them are made, and the velocities after the last ``counted`` rows
        are added up. Both are told at run time, so that one program serves all calls.
    step_size, friction, temperature
        Settings of :class:`~sgworld_mcmc.integrators.ubu.UBU`.
    target, feed
        The log density as a function of (z, rows), and the rows in batches.
    """
    integrator, estimator = UBU(friction, "three-point"), jax.grad(target)

    def gradient(position, index):
        return batch_estimate(estimator, position, feed.fetch((), index), feed)

    def one(key, motion, alive, order):
        made = sweep(
            key,
            motion,
            order,
            integrator=integrator,
            gradient=gradient,
            step_size=step_size,
            temperature=temperature,
            active=alive,
        )
        return made.state, alive & (made.finite_steps == ROW)

    def row(number, carry):
        key, chains = carry
        key, *keys = jax.random.split(key, 1 + chains.alive.shape[0])
        motion, alive = jax.vmap(one, in_axes=(0, 0, 0, None))(
            jnp.stack(keys), chains.motion, chains.alive, order[number]
        )
        counts = number >= rows - counted
        squares = chains.squares + jnp.where(counts, motion.velocity**2, 0)
        return key, BurnIn(motion, alive, squares)

    chains = chains._replace(squares=jnp.zeros_like(chains.squares))
    return jax.lax.fori_loop(0, rows, row, (rng_key, chains))[1]
