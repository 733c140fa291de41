"""Other coordinates where the posterior is far from the Gaussian at its mode."""

import numpy as np

from sgworld_mcmc.setup.coordinates_from_mode import Center
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.curvature import dense_scale
from sgworld_mcmc.setup.posterior import Bench

__all__ = ["MOST_LOST", "is_far", "recentre", "with_width"]

# A posterior this much wider, narrower or farther from the center than the Gaussian there, in
# standard deviations along some parameter, is given new coordinates.
WIDE, NARROW, FAR = 2.0, 0.4, 0.8
# Beyond, the chains that were not lost say little of the posterior.
MOST_LOST = 0.5
# Hessians at so many draws make a mean curvature: so many numbers in all, within limits.
CURVATURE_NUMBERS, CURVATURE_DRAWS = 3200, (4, 32)


def is_far(pilots: list[Pilot], center: Center) -> bool:
    """Whether the posterior is far from the Gaussian that the coordinates were made for.

    Or too stiff for them. In those of the mean curvature it may be wide, not narrow: draws are as
    far apart as the width asks for.
    """
    pilot = pilots[0]
    if pilot.diverged > MOST_LOST or not np.isfinite(pilot.variance).all():
        return not center.by_curvature
    sd = np.sqrt(np.maximum(pilot.variance, 1e-12))
    wide = pilot.variance.max() > WIDE or (center.fitted and len(pilots) > 1)
    narrow = pilot.variance.min() < NARROW
    far = np.abs(pilot.mean / sd).max() > FAR
    return bool(far or narrow or (wide and not center.by_curvature))


def recentre(bench: Bench, positions: np.ndarray, by_curvature: bool) -> tuple[Bench, np.ndarray]:
    """Coordinates of the pilot chains' mean and covariance, and the positions in them.

    ``by_curvature``: of the mean curvature instead, whose inverse is the best preconditioner of
    Langevin steps (Titsias, NeurIPS 2023). A banana is stiff across and its covariance is that of
    its whole length: steps that do not lose chains are tiny in coordinates made of that.

    The same bench comes back where the Hessian is not finite: there is nothing to learn from.
    """
    center = bench.center
    old, mean = center.scale, positions.mean(0)
    position = bench.at(mean)
    hessian = bench.hessian(position)
    if not np.isfinite(hessian).all():
        return bench, positions
    scale, stiffness = old @ _root(positions), 1.0
    if by_curvature:
        # At draws from one batch of rows: all would cost as much as many searches for the mode.
        count = int(np.clip(CURVATURE_NUMBERS // len(mean), *CURVATURE_DRAWS))
        chosen = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
        rest = hessian - bench.hessian(position, 1)
        local = [rest + bench.hessian(bench.at(z), 1) for z in chosen]
        # Draws of the Gaussian at the mode may lie where the density overflows.
        local = [each for each in local if np.isfinite(each).all()]
        scaled = dense_scale(np.mean(local, 0) if local else hessian)
        by_curvature = len(local) > 0 and scaled.indefinite == 0
        if by_curvature:
            scale = scaled.scale
            stiffness = max(np.linalg.eigvalsh(scale.T @ each @ scale)[-1] for each in local)
    new = center._replace(
        position=position,
        scale=scale,
        hessian=hessian,
        indefinite=dense_scale(hessian).indefinite,
        fitted=True,
        by_curvature=by_curvature,
        stiffness=max(1.0, float(stiffness)),
        gradient=None,
    )
    positions = np.linalg.solve(scale, old @ (positions - mean).T).T
    bench = bench._replace(center=new)
    return with_width(bench, (positions @ bench.directions.T).var(0)), positions


def with_width(bench: Bench, variance: np.ndarray) -> Bench:
    """With the width of the posterior whose variances these are along the parameters."""
    center = bench.center
    width = float(np.nanmax([1.0, *variance])) if center.by_curvature else 1.0
    return bench._replace(center=center._replace(width=width))


def _root(positions: np.ndarray) -> np.ndarray:
    """Of their covariance, shrunk towards its diagonal as if by D further draws."""
    count, dimension = positions.shape
    covariance = np.cov(positions.T).reshape(dimension, dimension)
    diagonal = np.diag(np.diagonal(covariance))
    return np.linalg.cholesky((count * covariance + dimension * diagonal) / (count + dimension))
