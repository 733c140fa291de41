"""What the choice of the settings is made from: pilot chains, and the noise at their draws."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.batches import num_batches
from sgworld_mcmc.interrupts import wait
from sgworld_mcmc.progress import stage
from sgworld_mcmc.setup.coordinates_from_pilots import MOST_LOST, is_far, recentre, with_width
from sgworld_mcmc.setup.pilot_chains import independent, other_pilots, reference_pilots
from sgworld_mcmc.setup.posterior import Bench, gaussian_draws
from sgworld_mcmc.setup.row_noise import RowNoise, summarise_noise
from sgworld_mcmc.setup.step_error import Discretisation, fit_discretisation

__all__ = ["Measurements", "measure"]

# Times that the coordinates may be changed.
ROUNDS = 6
FEWEST_CHAINS = 8
# Rows on which noise is measured, each at one draw: in all, in all times D, and at each draw.
NOISE_ROWS, NOISE_NUMBERS, FEWEST_ROWS = 2**19, 2**23, 256
# Draws for it, in all and for each chain: what the tails do only draws there tell.
NOISE_DRAWS, MOST_ENDS = 256, 4
# Shift, in posterior standard deviations, at which the curvature is looked at, on so many batches.
SHIFT, SHIFT_BATCHES = 0.3, 4


class Measurements(NamedTuple):
    """What the choice of the settings rests on.

    Attributes
    ----------
    bench
        With the coordinates to sample in: of the mode, or of the pilot chains. None once the
        data have been laid out.
    noise
        Of single rows.
    steps
        The step size's own error.
    starts
        (P, D) positions of pilot chains, in the sampler's coordinates.
    recentred
        Whether the coordinates are those of the pilot chains.
    lost
        Fraction of the pilot chains that were lost at the smallest step size.
    """

    bench: Bench | None
    noise: RowNoise
    steps: Discretisation
    starts: np.ndarray
    recentred: bool
    lost: float


def measure(generator: np.random.Generator, bench: Bench, adapt: bool) -> Measurements:
    """Run pilot chains around the center, and measure the rows' noise at their draws.

    ``adapt`` says whether the coordinates may be changed to those of the pilot chains.
    """
    positions = gaussian_draws(generator, bench)
    chains, last = len(positions), None
    for number in range(ROUNDS + 1):
        stage("pilot chains")
        pilots, ends, track = reference_pilots(generator, bench, positions)
        positions = ends if len(ends) >= FEWEST_CHAINS else positions
        if last is not None and pilots[0].step_size < last[2][0].step_size:
            # The chains have drifted to where the posterior is stiffer than it was before.
            bench, positions, pilots, track = last
            break
        if not adapt or number == ROUNDS or not is_far(pilots, bench.center):
            break
        last = (bench, positions, pilots, track) if bench.center.by_curvature else None
        lost = len(pilots) > 1 or bench.center.by_curvature
        stage("coordinates")
        other, moved = recentre(bench, positions, lost)
        if other is bench or (pilots[0].diverged > MOST_LOST and not other.center.by_curvature):
            break  # so few chains tell no covariance
        bench, positions = other, moved
    stage("pilot chains")
    pilots, ends = other_pilots(generator, bench, track, positions, pilots)
    steps = fit_discretisation(pilots, independent(bench.directions))
    if bench.center.by_curvature:
        bench = with_width(bench, steps.spread)
        steps = steps._replace(largest=min(steps.largest, 1 / bench.center.stiffness))
    # As many whether or not some were lost: the noise is compiled once.
    draws, count = np.concatenate(ends), min(NOISE_DRAWS, MOST_ENDS * chains)
    chosen = draws[np.linspace(0, len(draws) - 1, count).astype(int)]
    return Measurements(
        bench,
        _noise(bench, chosen),
        steps,
        ends[0] * np.sqrt(bench.temperature),
        number > 0,
        min(pilot.diverged for pilot in pilots),
    )


def _noise(bench: Bench, positions: np.ndarray) -> RowNoise:
    """Noise of single rows at these positions, in double precision."""
    stage("noise of the rows")
    center, directions = bench.center, bench.directions
    dimension = len(center.position)
    total = min(NOISE_ROWS, NOISE_NUMBERS / dimension)
    block = max(FEWEST_ROWS, round(total / len(positions)))
    with jax.enable_x64(bench.functions.model.precise):
        measured = bench.functions.noise(
            jnp.asarray(center.position),
            jnp.asarray(center.scale),
            jnp.asarray(positions),
            bench.rows_double,
            bench.constants_double,
            None if directions is None else jnp.asarray(directions),
            bench.temperature,
            block=min(bench.size, block),
        )
        wait(measured)
        along = positions if directions is None else positions @ directions.T
        noise = summarise_noise(measured, along)
        return noise._replace(widening=_widening(bench, noise.coupling))


def _widening(bench: Bench, coupling: np.ndarray) -> np.ndarray | float:
    """Relative change of each variance for a shift of the mean by ``coupling``, from Hessians.

    The variance along d where the curvature changes from I to I + E is 1 - d E d to first order
    (docs/theory.md, B14): third derivatives tie the shift of one mean to the variances of all.
    """
    center, directions = bench.center, bench.directions
    if directions is None or center.hessian is None or not np.isfinite(coupling).all():
        return 0.0
    shift = np.linalg.solve(directions, coupling)
    length = np.linalg.norm(shift)
    if length == 0:
        return 0.0
    step = SHIFT / length * np.sqrt(bench.temperature) * center.scale @ shift
    used = min(num_batches(bench.batches_double), SHIFT_BATCHES)
    ahead, behind = (bench.hessian(center.position + sign * step, used) for sign in (1, -1))
    along = center.scale @ directions.T  # a unit step along each parameter's direction
    change = np.einsum("dq,de,eq->q", along, ahead - behind, along) / (2 * SHIFT / length)
    return -change if np.isfinite(change).all() else 0.0
