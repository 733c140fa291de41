"""The base class of Gaussian posteriors, which solve a least-squares problem by QR."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import qr, solve_triangular

from sgworld_mcmc.exact.base import ExactPosterior
from sgworld_mcmc.exact.marginal import normal


class LeastSquares(NamedTuple):
    """The minimum of |A x - b|^2 and its curvature.

    Attributes
    ----------
    solution : numpy.ndarray
        (D,) minimiser.
    root : numpy.ndarray
        (D, D) upper triangular R with R^T R = A^T A and a positive diagonal.
    inverse_root : numpy.ndarray
        (D, D) inverse of R.
    residual : float
        The value of |A x - b|^2 at the minimum.
    """

    solution: np.ndarray
    root: np.ndarray
    inverse_root: np.ndarray
    residual: float


def least_squares(design, target):
    """Solve a full-column-rank least-squares problem for (n, D) and (n,), n >= D.

    The solution comes from a QR decomposition of [A b]. The normal equations would square the
    condition number, and the residual b^T b - b^T A x would cancel if the fit is good. A prior
    enters as D more rows of A and b.
    """
    dim = design.shape[1]
    factor = qr(np.column_stack([design, target]), mode="r", overwrite_a=True)[0][: dim + 1]
    signs = np.where(np.diag(factor[:dim, :dim]) < 0, -1.0, 1.0)
    root = signs[:, None] * factor[:dim, :dim]
    inverse_root = solve_triangular(root, np.eye(dim))
    residual = float(factor[dim, dim] ** 2) if len(factor) > dim else 0.0
    return LeastSquares(inverse_root @ (signs * factor[:dim, dim]), root, inverse_root, residual)


class GaussianPosterior(ExactPosterior):
    """An exact posterior that is Gaussian in its single site."""

    _fit: LeastSquares

    def _set_gaussian(self, data, site, shape, fit):
        self._fit = fit
        covariance = fit.inverse_root @ fit.inverse_root.T
        self._set(data, {site: shape}, fit.solution, covariance)

    def marginal(self, name):
        """Return the exact marginal, a normal distribution."""
        i = self._index(name)
        return normal(self._fit.solution[i], self.sd[i])

    def gaussian_kl(self, flat):
        """Return KL(N(mean, covariance of ``flat`` (n, D)) || posterior), in nats.

        It is infinite if n <= D, because the covariance of the draws is then singular.
        """
        n, dim = flat.shape
        if n <= dim:
            return float("inf")
        white = (flat - self._fit.solution) @ self._fit.root.T
        mean = white.mean(axis=0)
        covariance = np.atleast_2d(np.cov(white, rowvar=False))
        sign, log_det = np.linalg.slogdet(covariance)
        if sign <= 0:
            return float("inf")
        return float(0.5 * (np.trace(covariance) + mean @ mean - dim - log_det))

    def _draw(self, key, n):
        white = jax.random.normal(key, (n, len(self.names)), dtype=jnp.float64)
        return self._fit.solution + np.asarray(white) @ self._fit.inverse_root.T

    def _log_density(self, flat, xp):
        white = (flat - self._fit.solution) @ self._fit.root.T
        log_det = np.log(np.diag(self._fit.root)).sum()
        constant = log_det - 0.5 * len(self.names) * np.log(2 * np.pi)
        return constant - 0.5 * xp.sum(white**2, axis=-1)
