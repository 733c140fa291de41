"""See whether a log density is full of kinks, so that its Hessian does not know its curvature.

A likelihood of absolute values (Laplace errors, quantile regression) is a sum of pieces of straight
lines: it has no mode at which a Newton step ends, and a Hessian next to nothing, while its slope
changes across the posterior as that of any other. Such a posterior is a good one for chains.
"""

import numpy as np

from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.mode_search import ModeSearch

__all__ = ["is_kinked"]

# The slope is looked at so many standard deviations on both sides of the center: far enough that
# there are kinks among a hundred rows, and so near that a smooth curvature hardly changes.
STEP = 0.3
# It is looked at along so many directions at most, those of the smallest curvature.
DIRECTIONS = 8
# The density has kinks if its slope changes by more than the Hessian says, by so much of what that
# of the Gaussian does.
CHANGE = 0.5


def is_kinked(search: ModeSearch, fit: CoordinateFit) -> bool:
    """Return whether slopes change about the center where the Hessian says that they do not."""
    if fit.hessian is None or not np.isfinite(fit.hessian).all():
        return False
    coordinates = fit.coordinates
    values, axes = np.linalg.eigh(coordinates.whiten(fit.hessian))
    for number in np.argsort(np.abs(values))[:DIRECTIONS]:
        way = STEP * axes[:, number]
        behind, ahead = (search.gradient(coordinates.to_model(z)) for z in (-way, way))
        change = axes[:, number] @ coordinates.pull_back(behind - ahead) / (2 * STEP)
        if change - values[number] > CHANGE:
            return True
    return False
