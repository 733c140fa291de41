"""Measure what the choice of the settings rests on: pilot chains, and the noise at their draws."""

from functools import partial
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.setup.batch_noise import BatchNoise, measure_batches
from sgworld_mcmc.setup.coordinates_at_mass import about_mass
from sgworld_mcmc.setup.coordinates_by_group import recentred
from sgworld_mcmc.setup.coordinates_from_pilots import (
    MOST_LOST,
    adapted,
    is_far,
    with_width,
    without_strays,
)
from sgworld_mcmc.setup.pilot_chains import (
    independent,
    other_pilots,
    pilots_of,
    reference_pilots,
)
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws
from sgworld_mcmc.setup.row_noise import RowNoise, summarise_noise
from sgworld_mcmc.setup.step_error import (
    Discretisation,
    fit_discretisation,
    without_step,
)

__all__ = ["Measurements", "measure"]

# The coordinates may be changed this many times.
ROUNDS = 6
# New pilot chains start where the last ones ended if at least this many were not lost.
FEWEST_CHAINS = 8
# Noise is measured on at most NOISE_ROWS rows in all, and on at most NOISE_NUMBERS / D rows in D
# dimensions, but on at least FEWEST_ROWS rows at each draw. Each row is read at one draw.
NOISE_ROWS, NOISE_NUMBERS, FEWEST_ROWS = 2**19, 2**23, 256
# Noise is measured at this many draws at most, in all and for each chain: many are needed, since
# only draws in the tails show the noise there.
NOISE_DRAWS, MOST_ENDS = 256, 4
# The change of the curvature is measured over a shift of the mean by this many posterior standard
# deviations, on this many batches.
SHIFT, SHIFT_BATCHES = 0.3, 4


class Measurements(NamedTuple):
    """What the choice of the settings rests on. It holds numbers only.

    Attributes
    ----------
    noise
        The noise of single rows, or of batches dealt by group.
    steps
        The error of the step size itself.
    starts
        (P, D) positions of pilot chains, in the sampler's coordinates.
    recentred
        Whether the coordinates are those of the pilot chains.
    lost
        Fraction of the pilot chains that were lost at the smallest step size.
    """

    noise: RowNoise | BatchNoise
    steps: Discretisation
    starts: np.ndarray
    recentred: bool
    lost: float


def measure(
    generator: np.random.Generator,
    posterior: Posterior,
    integrator: Integrator,
    adapt: bool,
    batch_size: int | None = None,
    redeals: bool = False,
) -> tuple[Posterior, Measurements]:
    """Run pilot chains around the center, and measure the rows' noise at their draws.

    Parameters
    ----------
    integrator
        What the run will use. The pilots that find coordinates have averaged noise.
    adapt
        Whether the coordinates may be changed to those of the pilot chains.
    batch_size
        The batch size, if it is known: the noise of batches by group is measured at some sizes.
    redeals
        Whether the rows are dealt anew in every epoch, without regard to groups.

    Returns
    -------
    Posterior, Measurements
        The posterior in the coordinates that the run will use, and what was measured in them.
    """
    positions = gaussian_draws(generator, posterior)
    if posterior.row_derivatives is None:
        posterior = _with_row_derivatives(posterior)
    chains, last = len(positions), None
    parts = None if posterior.structure is None else posterior.parts()
    of_batches = partial(_of_batches, generator, batch_size=batch_size, redeals=redeals)
    # Streamed rows are not dealt by group: their noise is that of single rows.
    dealt = parts is not None and posterior.whole is None
    batches = of_batches(posterior, positions) if dealt else None
    stage("pilot chains")
    first, at_mass = reference_pilots(generator, posterior, positions, batches), False
    found = about_mass(generator, posterior, first[0]) if adapt else None
    if found is not None:
        (posterior, positions, first), at_mass = found, True
    for number in range(ROUNDS + 1):
        stage("pilot chains")
        if number > 0:
            first = reference_pilots(generator, posterior, positions, batches)
        pilots, ends, moved_by = first
        positions = ends if len(ends) >= FEWEST_CHAINS else positions
        if last is not None and pilots[0].step_size < last[2][0].step_size:
            # The chains have drifted to where the posterior is stiffer than it was before.
            posterior, positions, pilots, moved_by = last
            break
        fit = posterior.fit
        # Coordinates by group follow the chains' mean, and their width once, as far as the Hessian
        # at another center tells it.
        wide = parts is None or number == 0
        if not adapt or number == ROUNDS or not is_far(pilots, fit, parts, wide):
            break
        if posterior.structure is not None:
            moved = recentred(posterior, pilots[0])
            if moved is None or pilots[0].diverged > MOST_LOST:
                break
            # The chains go on from the same points of the model's coordinates.
            positions = _same_points(posterior, moved, positions)
            posterior = _with_row_derivatives(moved)
            continue
        last = (posterior, positions, pilots, moved_by) if fit.by_curvature else None
        lost = len(pilots) > 1 or fit.by_curvature
        stage("coordinates")
        positions = without_strays(positions)
        other, moved = adapted(posterior, positions, lost)
        few = pilots[0].diverged > MOST_LOST and not other.fit.by_curvature
        if other is posterior or few:
            break  # too few chains are left for an estimate of the covariance
        posterior, positions = other, moved
    stage("pilot chains")
    pilots, ends = other_pilots(generator, posterior, moved_by, positions, pilots)
    directions = posterior.coordinates.directions
    # Coordinates from a mean Hessian fit less well: pilots that are short see less than a run does.
    margin = 4.0 if parts is None or posterior.fit.mean else 2.0
    given = independent(directions), parts, margin
    steps = fit_discretisation(pilots, *given)
    if integrator.law is None and pilots[0].diverged == 0:
        reference = without_step(pilots[0], steps)
        others = pilots_of(integrator, generator, posterior, moved_by, positions, reference)
        steps = fit_discretisation([reference, *others], *given)
    if posterior.fit.by_curvature:
        posterior = with_width(posterior, steps.spread)
        steps = steps._replace(largest=min(steps.largest, 1 / posterior.fit.stiffness))
    # The number of draws does not depend on how many chains were lost: the noise is compiled once.
    draws, count = np.concatenate(ends), min(NOISE_DRAWS, MOST_ENDS * chains)
    chosen = draws[np.linspace(0, len(draws) - 1, count).astype(int)]
    if dealt:
        noise = batches if number == 0 else of_batches(posterior, chosen)
    else:
        noise = _noise(posterior, chosen, parts)
    return posterior, Measurements(
        noise,
        steps,
        ends[0] * np.sqrt(posterior.temperature),
        number > 0 or at_mass,
        min(pilot.diverged for pilot in pilots),
    )


def _same_points(before: Posterior, after: Posterior, z: np.ndarray) -> np.ndarray:
    """Return where positions z in the coordinates before lie in those after."""
    root = np.sqrt(before.temperature)
    return after.coordinates.solve(before.at(z) - after.coordinates.center) / root


def _with_row_derivatives(posterior: Posterior) -> Posterior:
    if posterior.structure is None or posterior.whole is not None:
        return posterior
    stage("derivatives of the rows")
    return posterior.with_row_derivatives()


def _of_batches(
    generator,
    posterior: Posterior,
    positions: np.ndarray,
    batch_size: int | None,
    redeals: bool,
) -> BatchNoise:
    """Measure the noise of batches that are dealt as in the run, at some of these positions."""
    stage("noise of the batches")
    curvatures = None if redeals else posterior.curvatures()
    return measure_batches(generator, posterior, positions, curvatures, batch_size)


def _noise(posterior: Posterior, positions: np.ndarray, parts: tuple | None = None) -> RowNoise:
    """Measure the noise of single rows at these positions, in the precision of the set-up.

    Estimates for the parameters of a part are pooled.
    """
    stage("noise of the rows")
    total = min(NOISE_ROWS, NOISE_NUMBERS / posterior.fit.dimension)
    block = max(FEWEST_ROWS, round(total / len(positions)))
    count_rows(len(positions) * min(posterior.size, block))
    with jax.enable_x64(posterior.functions.model.precise):
        measured = posterior.functions.noise(
            jax.tree.map(from_numpy, posterior.coordinates),
            from_numpy(positions),
            posterior.rows_double,
            posterior.constants_double,
            posterior.temperature,
            block=min(posterior.size, block),
        )
        alike = () if posterior.structure is None else posterior.structure.alike
        noise = summarise_noise(measured, posterior.coordinates.along(positions), parts, alike)
        return noise._replace(widening=_widening(posterior, noise.coupling["plain"]))


def _widening(posterior: Posterior, coupling: np.ndarray) -> np.ndarray | float:
    """Return the relative change of each variance if the mean shifts by ``coupling``.

    The change follows from Hessians on both sides of the center.

    The variance along d where the curvature changes from I to I + E is 1 - d E d to first order
    (docs/theory.md, B14): third derivatives tie the shift of one mean to the variances of all.
    """
    coordinates, directions = posterior.coordinates, posterior.coordinates.directions
    unknown = directions is None or posterior.fit.hessian is None
    if unknown or not np.isfinite(coupling).all():
        return 0.0
    shift = np.linalg.solve(directions, coupling)
    length = np.linalg.norm(shift)
    if length == 0:
        return 0.0
    step = coordinates.apply(SHIFT / length * np.sqrt(posterior.temperature) * shift)
    used = min(posterior.feed_double.num_batches, SHIFT_BATCHES)
    ahead, behind = (posterior.hessian(coordinates.center + sign * step, used) for sign in (1, -1))
    # Columns are unit steps along each parameter's direction.
    along = coordinates.apply(directions).T
    change = np.einsum("dq,de,eq->q", along, ahead - behind, along) / (2 * SHIFT / length)
    return -change if np.isfinite(change).all() else 0.0
