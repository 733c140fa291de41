"""Find the sampler's coordinates of a model with latents by group."""

from collections.abc import Callable

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.arrow import Arrow
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import head
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.arrow_rows import ArrowRows
from sgworld_mcmc.setup.arrow_search import ArrowCenter, ArrowSearch
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.groups import Structure, find_structure
from sgworld_mcmc.setup.posterior import MOST_NUMBERS, Posterior
from sgworld_mcmc.setup.row_derivatives import count_numbers

__all__ = ["RADII", "fit_by_group", "fit_of", "is_wanted", "recentred"]

# The search starts from a random point this far from the origin, or nearer if the log density is
# not finite there. The origin itself is a bad start: some densities have a kink there.
RADII = (0.1, 0.01, 0.001)
# If the first search fails, a Gaussian of independent parameters is fitted in so many steps on
# parts of the rows, and the search starts from its mean.
STEPS, PART = 1000, 2**14


def is_wanted(settings: Settings) -> bool:
    """Return whether the settings leave room for coordinates by group."""
    kind = settings.coordinates
    free = settings.covariance is None and settings.start != "given"
    return free and (kind is None or kind.name == "arrow")


def fit_by_group(
    generator: np.random.Generator,
    functions: SetUpFunctions,
    feed: FixedPartition,
    constants: tuple,
    initial: np.ndarray | None,
    ahead: Callable[[Arrow], None],
) -> tuple[CoordinateFit, Structure] | None:
    """Return coordinates by group and the groups; None if there are none, or without a center.

    Parameters
    ----------
    generator
        Source of random numbers of its own: what it draws must not change other set-ups.
    functions, feed, constants, initial
        As for :func:`~sgworld_mcmc.setup.coordinates_from_mode.fit_coordinates`.
    ahead
        Is given coordinates like those that will be found before they are searched, so that what
        comes after the search can be compiled during it.
    """
    structure = find_structure(generator, functions, feed, constants)
    if structure is None:
        return None
    # Mean coordinates need the derivatives of all rows, which have to find room.
    countable = count_numbers(structure, feed.size) <= MOST_NUMBERS
    rows = ArrowRows(functions, feed, constants, structure)
    search = ArrowSearch(rows, generator, countable)
    alike = Arrow.blank(structure.segments)
    rows.compile_ahead(alike)
    ahead(alike)
    starts = [] if initial is None else [np.asarray(initial[0], float)]
    starts += [radius * generator.standard_normal(rows.dimension) for radius in RADII]
    for number in range(len(starts) + 1):
        # The mean of a fit is the second start.
        start = _fitted(search, starts[0]) if number == 1 else starts[max(number - 1, 0)]
        found = search.center(start)
        if found is None or not found.converged or found.indefinite:
            continue
        if countable or not found.mean:
            return fit_of(found), structure
    return None


def recentred(posterior: Posterior, pilot: Pilot) -> Posterior | None:
    """Return the posterior in coordinates about the pilot chains' mean; None if it has none."""
    old = posterior.coordinates
    moved = np.sqrt(posterior.temperature) * pilot.mean * old.deviations()
    with jax.enable_x64(posterior.functions.model.precise):
        if posterior.whole is not None:
            found = posterior.whole.groups.at(old.center + moved, old)
        else:
            rows = ArrowRows(
                posterior.functions,
                posterior.feed_double,
                posterior.constants_double,
                posterior.structure,
            )
            search = ArrowSearch(rows, np.random.default_rng(0))
            found = search.at(old.center + moved, old if posterior.fit.mean else None)
    if found is None or found.indefinite:
        return None
    return posterior._replace(fit=fit_of(found), row_derivatives=None)


def _fitted(search: ArrowSearch, start: np.ndarray) -> np.ndarray:
    """Return the mean (D,) of a Gaussian of independent parameters that is fitted from a start."""
    rows = search.rows
    feed = head(rows.feed, PART)
    order = search.generator.integers(0, feed.num_batches, STEPS).astype(np.int32)
    seed = np.uint32(search.generator.integers(2**32))
    count_rows(STEPS * feed.size / feed.num_batches)
    with jax.enable_x64(rows.functions.model.precise):
        mean, _ = rows.functions.gaussian(
            seed, from_numpy(start), order, feed, rows.constants, dense=False
        )
    return np.asarray(mean, float)


def fit_of(found: ArrowCenter) -> CoordinateFit:
    """Return the record of a center that was found."""
    return CoordinateFit(
        found.coordinates,
        None,
        found.converged,
        found.moved**2 / 2,
        found.indefinite,
        (),
        gradient=found.gradient,
        unit=True,
        mean=found.mean,
    )
