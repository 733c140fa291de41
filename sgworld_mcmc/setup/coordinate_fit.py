"""The record of the coordinates that a set-up has found for a posterior."""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Coordinates

__all__ = ["CoordinateFit"]


class CoordinateFit(NamedTuple):
    """The coordinates that were found for a posterior, and how.

    Attributes
    ----------
    coordinates
        The coordinates, made of float64 NumPy arrays.
    hessian
        (D, D) Hessian of the potential at the center, or None if only its diagonal is used.
    converged
        Whether the center is a mode, or the mean of the closest Gaussian.
    gain
        Nats of log density that a further step would gain by its own prediction.
    indefinite
        Number of directions in which the potential is not convex.
    other_modes
        Distances of the other modes that matter, in posterior standard deviations.
    fitted
        Whether center and scale come from pilot chains or a fitted Gaussian, not from the mode.
    by_curvature
        Whether the scale comes from the mean curvature at the pilot chains' draws.
    width, stiffness
        Variance of the posterior along its softest direction and largest curvature at a draw, in
        these coordinates, if ``by_curvature``; else 1 and 1.
    gradient
        (D,) gradient of the log density of all rows at the center, or None if it was not computed.
    modes
        (S, D) modes to which the S points lead that the user has given, or None if they lead to
        one, or are not several.
    unit
        Whether the Hessian at the center is the identity in these coordinates. It is then not
        stored: that of a model with groups would have too many numbers.
    mean
        Whether that holds for a mean Hessian over the posterior, not for the one at the center.
    scattered
        Whether searches for a mode have ended in several places, none of them a mode.
    kinked
        Whether there is no mode because the density is full of kinks.
    decided
        Names of the parameters about which single rows decide, if these are not in every batch.
    jumps
        Names of the sites along which the log density jumps, where gradients say nothing.
    """

    coordinates: Coordinates
    hessian: np.ndarray | None
    converged: bool
    gain: float
    indefinite: int
    other_modes: tuple[float, ...]
    fitted: bool = False
    by_curvature: bool = False
    width: float = 1.0
    stiffness: float = 1.0
    gradient: np.ndarray | None = None
    modes: np.ndarray | None = None
    unit: bool = False
    mean: bool = False
    scattered: bool = False
    kinked: bool = False
    decided: tuple[str, ...] = ()
    jumps: tuple[str, ...] = ()

    @property
    def curved(self) -> bool:
        """Whether the whole Hessian at the center is known."""
        return self.unit or self.hessian is not None

    @property
    def dimension(self) -> int:
        """Dimension D of the coordinates."""
        return len(self.coordinates.center)

    def spectrum(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Return curvatures (D,) and axes (D, D) of the potential in the sampler's coordinates.

        Both are None if the Hessian is not known or not positive definite (the coordinates are then
        made from something else), and if the curvature is one along all axes.
        """
        if self.hessian is None or self.indefinite or self.fitted:
            return None, None
        values, vectors = np.linalg.eigh(self.coordinates.whiten(self.hessian))
        if values.min() <= 0 or np.abs(values - 1).max() < 1e-3:
            return None, None
        return values, vectors

    def extremes(self) -> tuple[float, float]:
        """Return the largest and the smallest curvature in the sampler's coordinates."""
        values, _ = self.spectrum()
        if values is None:
            return 1.0, 1.0 / self.width
        return float(values.max()), float(values.min())

    def widths(self) -> np.ndarray | float:
        """Return the standard deviations (D,) of a Gaussian of that curvature along each z.

        They are one where the coordinates fit, or where the curvature is not known.
        """
        values, vectors = self.spectrum()
        return 1.0 if values is None else np.sqrt((vectors**2 / values).sum(1))
