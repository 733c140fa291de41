"""Find the sampler's coordinates from the posterior mode and the curvature there.

They are found in Python from concrete numbers, before the compiled loop is made, and in double
precision whatever the user's precision is: the log density of a million rows is too coarse in
single precision to be compared at two points.
"""

import jax
import numpy as np

from sgworld_mcmc.data.dealing import batch_count, is_shared, numbers_of
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, is_large
from sgworld_mcmc.device_layout import Layout
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.curvature import Scale
from sgworld_mcmc.setup.fitted_gaussian import fitted_gaussian
from sgworld_mcmc.setup.growing_search import GrownMode, grow
from sgworld_mcmc.setup.influential_rows import are_very_many, decided_by_rows
from sgworld_mcmc.setup.kinks import is_kinked
from sgworld_mcmc.setup.mode_search import ROUNDS, ModeSearch, finite_loss
from sgworld_mcmc.setup.other_modes import distances_of, find_modes, heaviest
from sgworld_mcmc.setup.search_ends import (
    are_scattered,
    distances_of_others,
    may_be_hierarchy,
    modes_apart,
)
from sgworld_mcmc.setup.wanted_coordinates import coordinates_of

__all__ = [
    "CONVERGED",
    "coordinates_at",
    "fit_coordinates",
    "set_up_feed",
]

# Rows of the batches in which the set-up reads the data.
BATCH_ROWS = 5000
# The search has converged if a further step promises fewer nats of log density than this.
CONVERGED = 1e-3
# The curvature is looked at in so many given points at most.
SOME_POINTS = 4
# All rows are searched from the start if rows times squared dimensions are at most so many.
MOST_PRODUCTS = 2 * 10**9


def set_up_feed(data: tuple, shards: int = 1, layout: Layout | None = None) -> FixedPartition:
    """Cut shuffled rows into batches of about 5000 rows for the set-up, of one size if possible.

    Where ``shards`` devices can share such batches, they are cut accordingly, and lie over the
    devices of the ``layout``.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    if is_shared(min(size, BATCH_ROWS), numbers_of(data), shards):
        feed = cut(data, batch_count(size, BATCH_ROWS, shards), shards, by_part=False)
        return feed if layout is None else layout.place_feed(feed)
    count = -(-size // BATCH_ROWS)
    divisor = next((m for m in range(count, 2 * count + 1) if size % m == 0), count)
    return cut(data, divisor)


def fit_coordinates(
    generator: np.random.Generator,
    functions: SetUpFunctions,
    feed: FixedPartition,
    constants: tuple,
    initial: np.ndarray | None,
    settings: Settings,
) -> CoordinateFit | None:
    """Find the posterior mode and the curvature there, from any initial point.

    The search takes Newton steps on a few thousand rows from several points, after steps of Adam
    on minibatches where it needs them. Newton steps on all rows follow, with the Hessian of a part
    of them, or, where the rows are many, on growing parts of them
    (:mod:`sgworld_mcmc.setup.growing_search`). L-BFGS takes over where the Hessian is too large,
    or where Newton steps lead nowhere. All of it is in double precision under
    ``jax.enable_x64(True)``.

    Parameters
    ----------
    functions
        The model's compiled functions.
    feed
        The rows in batches, from :func:`set_up_feed`.
    initial
        (S, D) unconstrained initial points, or None for the initialisation strategy.
    settings
        The user's settings, which say the kind of coordinates that is wanted.

    Returns
    -------
    CoordinateFit or None
        None if searches end in several places, none of which is a usable mode, as those of networks
        do, and if the settings allow a set-up without a mode. A Gaussian is fitted to a hierarchy
        of few parameters, whose density has no mode where a scale is zero.
    """
    search = ModeSearch(functions, feed, constants, generator)
    given = initial
    if initial is None:
        initial = search.initial_points()
    found = search.modes(np.asarray(initial, float))
    losses = np.array([finite_loss(each) for each in found])
    best = found[int(np.argmin(losses))]
    modes = find_modes(search, np.asarray(initial, float), found, further=given is None)
    if modes:
        best = heaviest(modes).end
    grown = _grown(search, np.asarray(best.position))
    if grown is not None:
        center, gain, gradient, hessian, scaled, decided = grown
    else:
        last, hessian, scaled = search.finish(best.position)
        if scaled.indefinite or not float(last.gain) < CONVERGED:
            points = [*np.asarray(initial, float), np.asarray(best.position, float)]
            last, hessian, scaled = _from_start(search, points) or (last, hessian, scaled)
        center, gain = np.asarray(last.position), float(last.gain)
        gradient = -feed.size * np.asarray(last.gradient, float)
        decided = _decided(search, center, scaled)
    converged = bool(gain < CONVERGED and np.isfinite(gain))
    if settings.adapt and not (converged and scaled.indefinite == 0):
        scattered = False
        if settings.may_go_without_mode and functions.model.reason is None:
            scattered = are_scattered(search, found, best, scaled.coordinates)
            if scattered and not may_be_hierarchy(search, initial[0], settings):
                return None
        # A random point may be far out in a tail: start half way to the origin.
        fitted = fitted_gaussian(search, initial[0] / 2)
        if fitted is not None:
            kinked = not fitted.converged and is_kinked(search, fitted)
            return fitted._replace(scattered=scattered, kinked=kinked)
    return CoordinateFit(
        coordinates_of(settings, center, scaled, hessian),
        None if hessian is None else np.asarray(hessian),
        converged,
        gain,
        scaled.indefinite,
        distances_of(search, modes, heaviest(modes), scaled.coordinates)
        if modes
        else distances_of_others(search, found, best, scaled.coordinates),
        gradient=gradient,
        modes=modes_apart(search, given, scaled.coordinates),
        decided=tuple(functions.model.scalar_names()[number] for number in decided),
    )


def coordinates_at(
    generator: np.random.Generator,
    functions: SetUpFunctions,
    feed: FixedPartition,
    constants: tuple,
    points: np.ndarray,
    settings: Settings,
) -> CoordinateFit | None:
    """Return coordinates about the most probable of (S, D) points, from the curvature there.

    Nothing is searched: chains that start at the points stay as far apart as they are. None if the
    potential is convex at none of the points, as that of a network is nowhere, and if the settings
    allow a set-up without a mode.
    """
    search = ModeSearch(functions, feed, constants, generator)
    count = feed.num_batches
    found = [search.evaluate(point, count) for point in np.asarray(points, float)]
    losses = np.array([finite_loss(each) for each in found])
    center = np.asarray(points[int(np.argmin(losses))], float)
    hessian, scaled = search.curvature(center, count)
    if scaled.indefinite and settings.may_go_without_mode and functions.model.reason is None:
        others = (search.curvature(np.asarray(x, float), count)[1] for x in points[:SOME_POINTS])
        if all(other.indefinite for other in others):
            return None
    return CoordinateFit(
        coordinates_of(settings, center, scaled, hessian),
        None if hessian is None else np.asarray(hessian, float),
        True,
        0.0,
        0,
        (),
        fitted=True,
        gradient=-feed.size * np.asarray(found[int(np.argmin(losses))].gradient, float),
    )


def _grown(search: ModeSearch, position: np.ndarray) -> GrownMode | None:
    """Find the mode of many rows from growing parts of them; None if that does not work."""
    if not (search.dense and is_large(search.feed.size)):
        return None
    return grow(search, position)


def _decided(search: ModeSearch, center: np.ndarray, scaled: Scale) -> tuple[int, ...]:
    """Return the numbers of the directions along which single ones of many rows decide."""
    if not (search.dense and are_very_many(search.feed.size)):
        return ()
    powers = search.expand(center, search.feed.num_batches, scaled.about(center)).powers
    return () if powers is None else decided_by_rows(powers)


def _from_start(search: ModeSearch, points: list[np.ndarray]) -> tuple | None:
    """Search on all rows from the best of some points; None if that leads to no mode.

    The mode of a part of the rows is no guide where a few others have large weights, such as far
    values of a regressor that another part has not seen.
    """
    count, size = search.feed.num_batches, search.feed.size
    if count == 1 or not search.dense or size * search.dimension**2 > MOST_PRODUCTS:
        return None
    start = min(points, key=lambda point: finite_loss(search.evaluate(point, count)))
    found = search.refine(start, count, ROUNDS)
    last, _, scaled = found
    return None if scaled.indefinite or not float(last.gain) < CONVERGED else found
