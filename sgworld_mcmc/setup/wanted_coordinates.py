"""Coordinates of the kind that the settings ask for, about a center."""

import warnings

import numpy as np

from sgworld_mcmc.checks import user_frame
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.curvature import Scale

__all__ = ["coordinates_of"]

# A covariance matrix that is given is warned of if a variance of the posterior, at its mode, is
# larger or smaller along some direction than this many times what it says.
FITS = 100.0


def coordinates_of(
    settings: Settings, center: np.ndarray, scaled: Scale, hessian: np.ndarray | None
) -> Coordinates:
    """Return the coordinates that the settings ask for, or the best that there are.

    A covariance matrix that does not fit the Hessian is warned of: the run would be slow.
    """
    kind = settings.coordinates
    if settings.covariance is not None:
        made = kind.from_covariance(center, np.asarray(settings.covariance, float))
        if np.ndim(settings.covariance) == 2 and hessian is not None and not scaled.indefinite:
            _warn_unless_fitting(made, np.asarray(hessian, float))
        return made
    if kind is None or isinstance(scaled.coordinates, kind):
        return scaled.about(center)
    if hessian is None or scaled.indefinite:
        covariance = scaled.coordinates.covariance()
        hessian = 1 / covariance if covariance.ndim == 1 else np.linalg.inv(covariance)
    return kind.from_hessian(center, np.asarray(hessian, float))


def _warn_unless_fitting(coordinates: Coordinates, hessian: np.ndarray) -> None:
    """Warn if the curvatures in these coordinates, one if they fit, are far from that."""
    curvatures = np.linalg.eigvalsh(coordinates.whiten(hessian))
    least, most = float(curvatures[0]), float(curvatures[-1])
    if least > 1 / FITS and most < FITS:
        return
    warnings.warn(
        "The covariance given as `preconditioner` does not fit the posterior: along some "
        f"directions the variances at the mode are {1 / most:.2g} to {1 / least:.2g} times what it "
        "says, and the run will be slow. Its rows are the unconstrained parameters, the sites in "
        "alphabetical order, as `jax.flatten_util.ravel_pytree` lays out a dictionary of them. "
        "Without `preconditioner` the package finds one.",
        stacklevel=user_frame(),
    )
