"""Project a trajectory on its leading principal components, before estimates that cost D^2."""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.moments import trajectory_moments
from sgworld_mcmc.nonequilibrium.trajectory import as_trajectory, chunks

__all__ = ["PrincipalProjection", "project_principal_components"]


class PrincipalProjection(NamedTuple):
    """A trajectory in its leading principal components.

    Attributes
    ----------
    trajectory : numpy.ndarray
        (steps, k) or (chains, steps, k) float64 coordinates about the mean, with the axes of the
        input.
    components : numpy.ndarray
        (D, k) matrix with orthonormal columns, for positions that are divided by `scale`.
    mean, scale : numpy.ndarray
        (D,) mean of the positions, and their units.
    variance : numpy.ndarray
        (k,) variances of the components, in decreasing order.
    explained : float
        Share of the components in the total variance.
    """

    trajectory: np.ndarray
    components: np.ndarray
    mean: np.ndarray
    scale: np.ndarray
    variance: np.ndarray
    explained: float

    def __str__(self):
        rows = [f"{i:>9} {v:>12.5g}" for i, v in enumerate(self.variance[:20])]
        head = f"{len(self.variance)} of {len(self.mean)} components, {self.explained:.2%} of the "
        return "\n".join([head + "variance", f"{'component':>9} {'variance':>12}", *rows])


def project_principal_components(
    trajectory, num_components: int, *, standardize: bool = False
) -> PrincipalProjection:
    """Project a trajectory on its leading principal components.

    The entropy production of the projection is a lower bound on that of the whole. Its plug-in
    estimate is not, because of its bias (N14).

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Positions with D up to a few thousand, since a (D, D) covariance is diagonalised.
    num_components : int
        Number k of components, at most D.
    standardize : bool
        Whether to divide by the standard deviations first, for coordinates of unlike units. The
        components are then those of the correlation matrix, and constant coordinates are left out.

    Examples
    --------
    >>> x = np.random.default_rng(0).standard_normal((500, 3)) * [3.0, 1.0, 0.1]
    >>> result = project_principal_components(x, 2)
    >>> print(result.trajectory.shape, f"{result.explained:.2f}")
    (500, 2) 1.00
    """
    shape = np.shape(trajectory) if hasattr(trajectory, "shape") else None
    trajectory = as_trajectory(trajectory)
    chains, steps, dim = trajectory.values.shape
    num_components = check_integer("num_components", num_components, 1, dim)
    moments = trajectory_moments(trajectory, ())
    scale = np.ones(dim)
    covariance = moments.covariance
    if standardize:
        deviation = np.sqrt(np.maximum(np.diag(covariance), 0))
        # An infinite scale turns a constant coordinate into zero.
        scale = np.where(deviation > 0, deviation, np.inf)
        covariance = covariance / scale / scale[:, None]
    variance, vectors = np.linalg.eigh(covariance)
    order = np.argsort(variance)[::-1][:num_components]
    # The sign of an eigenvector is arbitrary. Here its largest entry is positive.
    vectors = vectors[:, order]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(axis=0), np.arange(len(order))])
    projected = np.empty((chains, steps, num_components))
    weights = vectors / scale[:, None]
    for chain, start, rows, block in chunks(trajectory, 0, moments.mean):
        projected[chain, start : start + rows] = block @ weights
    flat = shape is not None and len(shape) < 3
    return PrincipalProjection(
        trajectory=projected[0] if flat else projected,
        components=vectors,
        mean=moments.mean,
        scale=scale,
        variance=variance[order],
        explained=float(variance[order].sum() / variance.sum()),
    )
