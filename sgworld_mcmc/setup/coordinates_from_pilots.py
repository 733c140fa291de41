"""Find coordinates from pilot chains where the posterior is far from the Gaussian at its mode."""

import numpy as np

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.curvature import dense_scale
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.theory.shrinkage import pool_parts

__all__ = ["MOST_LOST", "adapted", "is_far", "with_width", "without_strays"]

# A posterior this much wider, narrower or farther from the center than the Gaussian there, in
# standard deviations along some parameter, is given new coordinates.
WIDE, NARROW, FAR = 2.0, 0.4, 0.8
# If a larger fraction of the chains is lost, the others say little about the posterior.
MOST_LOST = 0.5
# A chain strays if it is so many standard deviations, told by the median deviation, from the median
# of all along some coordinate. If more than this fraction stray, they are a part of the posterior.
STRAY, MOST_STRAYS = 8.0, 0.25
# The mean curvature is that of Hessians at several draws: the first number over the dimension
# says at how many, within the limits that follow.
CURVATURE_NUMBERS, CURVATURE_DRAWS = 3200, (4, 32)


def is_far(
    pilots: list[Pilot],
    fit: CoordinateFit,
    parts: tuple[tuple[np.ndarray, float], ...] | None = None,
    wide_is_far: bool = True,
) -> bool:
    """Return whether the posterior is far from the Gaussian that the coordinates were made for.

    A posterior that is too stiff for its coordinates counts as far too. In coordinates of the mean
    curvature the posterior may be wide but not narrow: the distance between draws allows for the
    width. Without ``wide_is_far`` it may be so in any coordinates. Parameters of one part of
    ``parts`` are judged together, since the largest of thousands of estimates is mostly noise.
    """
    pilot = pilots[0]
    if parts is not None:
        variance, _ = pool_parts(pilot.variance, pilot.variance_error, parts)
        mean, _ = pool_parts(pilot.mean, pilot.mean_error, parts)
        pilot = pilot._replace(variance=variance, mean=mean)
    if pilot.diverged > MOST_LOST or not np.isfinite(pilot.variance).all():
        return not fit.by_curvature
    sd = np.sqrt(np.maximum(pilot.variance, 1e-12))
    wide = pilot.variance.max() > WIDE or (fit.fitted and len(pilots) > 1)
    narrow = pilot.variance.min() < NARROW
    far = np.abs(pilot.mean / sd).max() > FAR
    return bool(far or narrow or (wide and wide_is_far and not fit.by_curvature))


def without_strays(positions: np.ndarray) -> np.ndarray:
    """Return the (P, D) positions but for the few that lie far from all others.

    A chain that is about to be lost may be hundreds of standard deviations away: a few of them
    would move the mean of all to where there is no posterior.
    """
    away = np.abs(positions - np.median(positions, 0))
    sd = 1.4826 * np.median(away, 0)
    strays = (away > STRAY * sd).any(1)
    return positions if strays.mean() > MOST_STRAYS else positions[~strays]


def adapted(
    posterior: Posterior, positions: np.ndarray, by_curvature: bool
) -> tuple[Posterior, np.ndarray]:
    """Return coordinates of the pilot chains' mean and covariance, and the positions in them.

    With ``by_curvature`` the coordinates are those of the mean curvature instead, whose inverse is
    the best preconditioner of Langevin steps (Titsias, NeurIPS 2023). A posterior shaped like a
    banana is stiff across, but its covariance is that of its whole length: in coordinates made from
    the covariance only tiny steps lose no chains.

    If the Hessian is not finite, there is nothing to learn from, and the same posterior is
    returned.
    """
    mean = positions.mean(0)
    center = posterior.at(mean)
    hessian = posterior.hessian(center)
    if not np.isfinite(hessian).all():
        return posterior, positions
    old = posterior.coordinates
    new, stiffness = Dense(center, old.apply(_root(positions).T).T), 1.0
    if by_curvature:
        # The Hessians at the draws are those of one batch: those of all rows would cost as much as
        # many searches for the mode.
        count = int(np.clip(CURVATURE_NUMBERS // len(mean), *CURVATURE_DRAWS))
        chosen = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
        rest = hessian - posterior.hessian(center, 1)
        local = [rest + posterior.hessian(posterior.at(z), 1) for z in chosen]
        # Draws of the Gaussian at the mode may lie where the density overflows.
        local = [each for each in local if np.isfinite(each).all()]
        scaled = dense_scale(np.mean(local, 0) if local else hessian)
        by_curvature = len(local) > 0 and scaled.indefinite == 0
        if by_curvature:
            new = scaled.about(center)
            stiffness = max(np.linalg.eigvalsh(new.whiten(each))[-1] for each in local)
    fit = posterior.fit._replace(
        coordinates=new,
        hessian=hessian,
        indefinite=dense_scale(hessian).indefinite,
        fitted=True,
        by_curvature=by_curvature,
        stiffness=max(1.0, float(stiffness)),
        gradient=None,
    )
    positions = new.solve(old.apply(positions - mean))
    posterior = posterior._replace(fit=fit)
    return with_width(posterior, new.along(positions).var(0)), positions


def with_width(posterior: Posterior, variance: np.ndarray) -> Posterior:
    """Return the posterior with its width noted, from the variances along the parameters."""
    fit = posterior.fit
    width = float(np.nanmax([1.0, *variance])) if fit.by_curvature else 1.0
    return posterior._replace(fit=fit._replace(width=width))


def _root(positions: np.ndarray) -> np.ndarray:
    """Return a Cholesky factor of the positions' covariance.

    The covariance is shrunk towards its diagonal, as if that had been seen in D further draws.
    """
    count, dimension = positions.shape
    covariance = np.cov(positions.T).reshape(dimension, dimension)
    diagonal = np.diag(np.diagonal(covariance))
    return np.linalg.cholesky((count * covariance + dimension * diagonal) / (count + dimension))
