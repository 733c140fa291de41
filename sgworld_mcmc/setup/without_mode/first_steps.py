"""Coordinates in which scales are alike, and points in them from which chains begin."""

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.setup.without_mode.prior_scales import PriorMoments, by_site, pooled_scales
from sgworld_mcmc.setup.without_mode.problem import Problem, cast
from sgworld_mcmc.setup.without_mode.spectrum import DEVIATIONS, SIGNS, STEPS

__all__ = [
    "RADII",
    "descended",
    "find_curvature",
    "first_points",
    "prior_coordinates",
    "scaled_by_site",
]

# Radii of the starts, in standard deviations of the prior: the first with a finite density.
RADII = (1.0, 0.3, 0.1, 0.01, 0.0)
# The cost of a product with the Hessian, in gradients: all vectors share what the network computes
# at their point, and less than two are measured.
PRODUCT = 2


def prior_coordinates(problem: Problem) -> Diagonal:
    """Return the coordinates in which the prior has about unit scale, or those the user gives."""
    model, settings = problem.model, problem.settings
    rows = problem.prior_rows
    count_rows(len(jax.tree.leaves(rows)[0]))
    try:
        found = problem.functions.prior(problem.seed(), rows, problem.constants)
    except NotImplementedError:  # an improper prior has no draws
        found = PriorMoments(*np.full((2, model.dimension), np.nan))
    mean, scale = pooled_scales(model, found)
    if settings.covariance is not None:
        scale = np.sqrt(np.asarray(settings.covariance, float))
    elif settings.coordinates is not None and not settings.coordinates.whitens:
        scale = np.ones_like(scale)
    return Diagonal(mean, scale)


def first_points(
    problem: Problem, coordinates: Diagonal, initial: np.ndarray | None, chains: int
) -> np.ndarray:
    """Return (P, D) starts: the given points, or random ones of about the prior's size."""
    if initial is not None:
        points = np.resize(initial, (max(chains, len(initial)), initial.shape[1]))
        return coordinates.to_z(points)
    return problem.generator.standard_normal((chains, problem.model.dimension))


def descended(
    problem: Problem, coordinates: Diagonal, positions: np.ndarray, given: bool
) -> np.ndarray:
    """Return where steps of Adam lead, or the start where they lead nowhere.

    Starts that are not ``given`` are drawn nearer to the center while their density is not finite.
    """
    size, feed = problem.size, problem.adam_feed
    steps = problem.adam_steps
    order = problem.generator.integers(0, feed.num_batches, steps).astype(np.int32)
    count_rows(steps * size / feed.num_batches * len(positions))
    radii = np.ones(len(RADII)) if given else np.array(RADII)
    starts, found = problem.functions.adam(
        cast(positions),
        cast(radii),
        order,
        coordinates.cast(float_dtype()),
        feed,
        problem.constants,
    )
    starts, found = np.asarray(starts, float), np.asarray(found, float)
    return np.where(np.isfinite(found).all(1, keepdims=True), found, starts)


def find_curvature(problem: Problem, coordinates: Diagonal, positions: np.ndarray):
    """Return Lanczos runs at the positions of the first chains."""
    used, rows = problem.curvature_rows(positions)
    products = len(used) * (SIGNS + DEVIATIONS) * STEPS
    count_rows(products * PRODUCT * len(jax.tree.leaves(rows)[0]))
    return problem.functions.lanczos(
        problem.seed(), cast(used), coordinates.cast(float_dtype()), rows, problem.constants
    )


def scaled_by_site(problem: Problem, coordinates: Diagonal, positions, found):
    """Return coordinates in which each site has about unit curvature, and the positions there.

    The curvature of a site is that of its prior, one, and the mean square of the rows' gradients.
    """
    if problem.settings.coordinates is not None or problem.settings.covariance is not None:
        return coordinates, positions
    squares = np.asarray(found.squares, float).mean(0)
    factor = np.ones_like(squares)
    for places in by_site(problem.model):
        factor[places] = 1 / np.sqrt(1 + squares[places].mean())
    if not np.isfinite(factor).all():
        return coordinates, positions
    new = Diagonal(coordinates.center, coordinates.scale * factor)
    return new, positions / factor
