"""Pilot chains in the sampler's coordinates, at step sizes from small to large."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, first_batches, head
from sgworld_mcmc.gradients.control_variate import ControlVariate
from sgworld_mcmc.gradients.plain import Plain
from sgworld_mcmc.gradients.taylor import Taylor
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.protocols import ArrayTree, Gradient
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.coupled_chains import (
    Pilot,
    PilotClock,
    start_chains,
    summarise_pilot,
)
from sgworld_mcmc.setup.posterior import Posterior, derivatives
from sgworld_mcmc.setup.step_error import is_in_range

__all__ = ["PilotGradient", "control_variates", "independent", "other_pilots", "reference_pilots"]

# Rows up to which the pilot uses all of them, and rows of its minibatches above.
WHOLE = 4096
PILOT_ROWS = 1024
# Minibatches that are copied for it at most: more than it makes steps of one size.
PILOT_BATCHES = 512
# Step sizes: the first at which no chain is lost is the reference. It is doubled as long as the
# error is small, and at most to one.
REFERENCES = (1 / 8, 1 / 32, 1 / 128)
# Further halvings of the reference where the error of twice its step is too large to learn from.
HALVINGS = 2
# A chain with a larger coordinate is lost.
LIMIT = 1e3
# At most so many steps, and so many random numbers at a time; more steps where the posterior is
# wide in these coordinates, by at most so many times.
BURN_IN, STEPS, MOST_NORMALS = 100, 200, 2**22
SLOWEST = 10.0


class PilotGradient(NamedTuple):
    """What moves pilot chains.

    Attributes
    ----------
    feed
        Minibatches, or one batch of all rows.
    gradient, controls
        The kind of gradient, and what it needs of the center.
    """

    feed: FixedPartition
    gradient: Gradient
    controls: ArrayTree


def _pilot_gradient(posterior: Posterior) -> PilotGradient:
    if posterior.size <= WHOLE:
        return PilotGradient(cut(posterior.rows, 1), Plain(), ())
    feed = head(first_batches(set_up_feed(posterior.rows), PILOT_BATCHES), PILOT_ROWS)
    return PilotGradient(feed, *control_variates(posterior, posterior.temperature))


def control_variates(posterior: Posterior, temperature: float = 1.0) -> tuple[Gradient, ArrayTree]:
    """Return the gradient of the highest order that the Hessian at the center allows.

    And what it needs of all rows there.
    """
    values = derivatives(posterior, temperature)
    gradient = Taylor() if values.jacobian is not None else ControlVariate(cached=False)
    return gradient, gradient.prepare(None, None, None, *values)


def reference_pilots(
    generator, posterior, positions
) -> tuple[list[Pilot], np.ndarray, PilotGradient]:
    """Pilots from the largest reference step size down to the first at which no chain is lost.

    And where the chains of the last ended.
    """
    moved_by, pilots = _pilot_gradient(posterior), []
    for h in REFERENCES:
        pilot, ends = _pilot(generator, posterior, moved_by, positions, h)
        pilots.insert(0, pilot)
        if pilot.diverged == 0:
            break
    return pilots, ends, moved_by


def other_pilots(
    generator, posterior, moved_by, positions, tried
) -> tuple[list[Pilot], list[np.ndarray]]:
    """Pilots at larger steps until the error is large; at smaller ones where it is from the start.

    And where the chains ended of all whose error is small, the smallest step size first.
    """
    (pilot, *lost), pilots, ends = tried, tried, [positions]
    if pilot.diverged > 0:
        return pilots, ends
    h, most = pilot.step_size, min((p.step_size for p in lost), default=2.0)
    near = True
    while near and 2 * h < most:
        h *= 2
        larger, end = _pilot(generator, posterior, moved_by, positions, h)
        near = larger.diverged == 0 and is_in_range(pilot, larger)
        pilots, ends = [*pilots, larger], [*ends, end] if near else ends
    if near or larger.diverged > 0 or len(ends) > 1:
        return pilots, ends
    for _ in range(HALVINGS):
        smaller, end = _pilot(generator, posterior, moved_by, ends[0], pilot.step_size / 2)
        if smaller.diverged > 0:
            break
        pilots, ends, near = [smaller, *pilots], [end, *ends], is_in_range(smaller, pilot)
        pilot = smaller
        if near:
            break
    return pilots, ends


def independent(directions: np.ndarray | None) -> float | None:
    """How many independent unit vectors (Q, D) are worth: Q over the mean square of their cosines.

    None for the axes, which all are.
    """
    if directions is None:
        return None
    return len(directions) ** 2 / float(((directions @ directions.T) ** 2).sum())


def _pilot(
    generator, posterior: Posterior, moved_by: PilotGradient, positions, step_size: float
) -> tuple[Pilot, np.ndarray]:
    """Chains of some three relaxation times of burn-in and six or more that count.

    And where those ended that were not lost.
    """
    fit, dtype = posterior.fit, _dtype()
    h = step_size / fit.extremes()[0]
    slow = min(fit.width, SLOWEST)
    burn_in = round(slow * min(max(4, round(3 / step_size)), BURN_IN))
    counted = round(slow * min(max(30, round(6 / step_size)), STEPS))
    chains = _cast(start_chains(generator, positions, h, positions.shape[1]), dtype)
    length = int(np.clip(MOST_NORMALS // positions.size, 1, BURN_IN))
    for done in range(0, burn_in + counted, length):
        steps = min(length, burn_in + counted - done)
        count_rows(steps * (posterior.size if moved_by.feed.num_batches == 1 else PILOT_ROWS))
        fresh = generator.standard_normal((length, *positions.shape), dtype.type)
        order = generator.integers(0, moved_by.feed.num_batches, length).astype(np.int32)
        clock = PilotClock(
            dtype.type(h),
            np.int32(burn_in - done),
            np.int32(steps),
            LIMIT,
        )
        chains = posterior.functions.pilot(
            chains,
            fresh,
            order,
            clock,
            fit.coordinates.cast(dtype),
            moved_by.controls,
            moved_by.feed,
            posterior.constants,
            posterior.temperature,
            gradient=moved_by.gradient,
        )
    # A lost chain has stopped far out, at the limit or where the gradient explodes.
    ends = np.asarray(chains.chains.position, float)[np.asarray(chains.alive)]
    return summarise_pilot(chains, counted, step_size), ends


def _dtype() -> np.dtype:
    return jnp.result_type(float)


def _cast(tree, dtype):
    """NumPy arrays of floating-point numbers in the sampler's precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float64 else x, tree)
