"""Find the sampler's coordinates of a model with latents by group."""

import jax
import numpy as np

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.arrow_search import ArrowCenter, ArrowSearch
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinates_from_mode import CoordinateFit
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.groups import Structure, find_structure
from sgworld_mcmc.setup.posterior import MOST_NUMBERS, Posterior
from sgworld_mcmc.setup.row_derivatives import count_numbers

__all__ = ["fit_by_group", "is_wanted", "recentred"]

# The search starts from a random point this far from the origin, or nearer if the log density is
# not finite there. The origin itself is a bad start: some densities have a kink there.
RADII = (0.1, 0.01, 0.001)


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
) -> tuple[CoordinateFit, Structure] | None:
    """Return coordinates by group and the groups; None if there are none, or without a center.

    Parameters
    ----------
    generator
        Source of random numbers of its own: what it draws must not change other set-ups.
    functions, feed, constants, initial
        As for :func:`~sgworld_mcmc.setup.coordinates_from_mode.fit_coordinates`.
    """
    structure = find_structure(generator, functions, feed, constants)
    if structure is None:
        return None
    # Mean coordinates need the derivatives of all rows, which have to find room.
    countable = count_numbers(structure, feed.size) <= MOST_NUMBERS
    search = ArrowSearch(functions, feed, constants, structure, generator, countable)
    starts = [] if initial is None else [np.asarray(initial[0], float)]
    starts += [radius * generator.standard_normal(search.dimension) for radius in RADII]
    for start in starts:
        found = search.center(start)
        if found is None or not found.converged or found.indefinite:
            continue
        if countable or not found.mean:
            return _fit(found), structure
    return None


def recentred(posterior: Posterior, pilot: Pilot) -> Posterior | None:
    """Return the posterior in coordinates about the pilot chains' mean; None if it has none."""
    old = posterior.coordinates
    search = ArrowSearch(
        posterior.functions,
        posterior.feed_double,
        posterior.constants_double,
        posterior.structure,
        np.random.default_rng(0),
    )
    moved = np.sqrt(posterior.temperature) * pilot.mean * old.deviations()
    with jax.enable_x64(posterior.functions.model.precise):
        found = search.at(old.center + moved, posterior.fit.mean)
    if found is None or found.indefinite:
        return None
    return posterior._replace(fit=_fit(found), row_derivatives=None)


def _fit(found: ArrowCenter) -> CoordinateFit:
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
