"""Fit a Gaussian to a posterior that has no usable mode, for coordinates from it."""

import numpy as np

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.setup.closest_gaussian import closest_gaussian
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.mode_search import ModeSearch

__all__ = ["GAUSSIAN_DIMENSION", "fitted_gaussian", "stepwise_gaussian"]

# A full covariance is fitted to a posterior without a mode step by step up to the first dimension,
# and up to the second where Hessians of all rows are no help.
STEPWISE_DIMENSION, GAUSSIAN_DIMENSION = 64, 300
# Hessians of all rows are averaged over draws if rows times dimensions are at most so many.
MOST_NUMBERS = 10**7


def fitted_gaussian(search: ModeSearch, start: np.ndarray) -> CoordinateFit | None:
    """Return coordinates from a Gaussian fitted to a posterior that has no usable mode.

    The fit begins at ``start`` (D,). Its covariance follows from Hessians in up to 1000 dimensions,
    if a pass over the rows is short; in up to 300 it can be fitted step by step as well. In more
    dimensions parameters are independent in the Gaussian, which serves models that have no
    minibatches: None for others, whose dynamics do without coordinates.
    """
    model, dimension = search.functions.model, search.dimension
    short = max(search.feed.size, model.num_rows) * dimension <= MOST_NUMBERS
    by_hessians = search.dense and dimension > STEPWISE_DIMENSION and short
    rough = dimension > GAUSSIAN_DIMENSION and model.reason is not None
    if by_hessians or rough:
        mean, deviations = (np.asarray(x, float) for x in search.gaussian(start, dense=False))
        fit = closest_gaussian(search, mean, deviations) if by_hessians else None
        if fit is not None:
            return fit
        if rough:
            independent = Diagonal(mean, deviations)
            return CoordinateFit(independent, None, False, np.inf, 0, (), fitted=True)
    return stepwise_gaussian(search, start)


def stepwise_gaussian(search: ModeSearch, start: np.ndarray) -> CoordinateFit | None:
    """Return coordinates from a Gaussian whose covariance is fitted step by step.

    None in more than 300 dimensions. About a mode that hardly holds any mass, a bent posterior most
    often, it is a better judge than the closest Gaussian, which may be a short piece of it.
    """
    if search.dimension > GAUSSIAN_DIMENSION:
        return None
    mean, factor = search.gaussian(start)
    hessian, scaled = search.curvature(mean, search.feed.num_batches)
    return CoordinateFit(
        Dense(np.asarray(mean, float), np.asarray(factor, float)),
        np.asarray(hessian, float),
        False,
        np.inf,
        scaled.indefinite,
        (),
        fitted=True,
    )
