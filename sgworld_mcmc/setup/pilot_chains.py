"""Pilot chains in the sampler's coordinates, at step sizes from small to large."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.batches import Batches, num_batches
from sgworld_mcmc.data.in_memory import cut, first_batches, head
from sgworld_mcmc.gradients.estimators import Anchor
from sgworld_mcmc.passes import count_rows
from sgworld_mcmc.setup.coordinates_from_mode import set_up_batches, spectrum, zero_anchor
from sgworld_mcmc.setup.coupled_chains import Pilot, start_pilot, summarise_pilot
from sgworld_mcmc.setup.posterior import Bench
from sgworld_mcmc.setup.step_error import is_in_range

__all__ = ["Track", "independent", "other_pilots", "reference_pilots"]

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


class Track(NamedTuple):
    """Where pilot chains run: minibatches (or all rows) and what their gradients need."""

    batches: Batches
    anchor: Anchor | tuple
    whole: bool


def _track(bench: Bench) -> Track:
    if bench.size <= WHOLE:
        return Track(cut(bench.rows, 1), (), True)
    batches = head(first_batches(set_up_batches(bench.rows), PILOT_BATCHES), PILOT_ROWS)
    anchor = zero_anchor(bench.center, bench.gradient(), bench.temperature, _dtype())
    return Track(batches, anchor, False)


def reference_pilots(generator, bench, positions) -> tuple[list[Pilot], np.ndarray, Track]:
    """Pilots from the largest reference step size down to the first at which no chain is lost.

    And where the chains of the last ended.
    """
    track, pilots = _track(bench), []
    for h in REFERENCES:
        pilot, ends = _pilot(generator, bench, track, positions, h)
        pilots.insert(0, pilot)
        if pilot.diverged == 0:
            break
    return pilots, ends, track


def other_pilots(generator, bench, track, positions, tried) -> tuple[list[Pilot], list[np.ndarray]]:
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
        larger, end = _pilot(generator, bench, track, positions, h)
        near = larger.diverged == 0 and is_in_range(pilot, larger)
        pilots, ends = [*pilots, larger], [*ends, end] if near else ends
    if near or larger.diverged > 0 or len(ends) > 1:
        return pilots, ends
    for _ in range(HALVINGS):
        smaller, end = _pilot(generator, bench, track, ends[0], pilot.step_size / 2)
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
    generator, bench: Bench, track: Track, positions, step_size: float
) -> tuple[Pilot, np.ndarray]:
    """Chains of some three relaxation times of burn-in and six or more that count.

    And where those ended that were not lost.
    """
    center, dtype = bench.center, _dtype()
    values, _ = spectrum(center)
    stiffest = 1.0 if values is None else float(values.max())
    directions = bench.directions
    h = step_size / stiffest
    slow = min(center.width, SLOWEST)
    burn_in = round(slow * min(max(4, round(3 / step_size)), BURN_IN))
    counted = round(slow * min(max(30, round(6 / step_size)), STEPS))
    width = positions.shape[1] if directions is None else len(directions)
    chains = _cast(start_pilot(generator, positions, h, width), dtype)
    length = int(np.clip(MOST_NORMALS // positions.size, 1, BURN_IN))
    for done in range(0, burn_in + counted, length):
        steps = min(length, burn_in + counted - done)
        count_rows(steps * (bench.size if track.whole else PILOT_ROWS))
        fresh = generator.standard_normal((length, *positions.shape), dtype.type)
        chains = bench.functions.pilot(
            chains,
            fresh,
            generator.integers(0, num_batches(track.batches), length).astype(np.int32),
            dtype.type(h),
            np.int32(burn_in - done),
            np.int32(steps),
            _cast(center.position, dtype),
            _cast(center.scale, dtype),
            track.anchor,
            track.batches,
            bench.constants,
            None if directions is None else _cast(directions, dtype),
            LIMIT,
            bench.temperature,
            whole=track.whole,
        )
    # A lost chain has stopped far out, at the limit or where the gradient explodes.
    ends = np.asarray(chains.positions, float)[np.asarray(chains.alive)]
    return summarise_pilot(chains, counted, step_size), ends


def _dtype() -> np.dtype:
    return jnp.result_type(float)


def _cast(tree, dtype):
    """NumPy arrays of floating-point numbers in the sampler's precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float64 else x, tree)
