"""Compute the curvature of the potential at a point, and preconditioners from it.

A preconditioner is written K, with K K^T an estimate of the posterior covariance: the sampler
runs in z, theta = theta0 + K z, where the curvature is about one and step sizes are dimensionless
(docs/theory.md, section 2.3). Here it comes as :class:`~sgworld_mcmc.protocols.Coordinates` about
the origin.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.protocols import Coordinates, Feed

__all__ = [
    "DENSE_DIMENSION",
    "Scale",
    "dense_hessian",
    "dense_scale",
    "diagonal_hessian",
    "diagonal_probes",
    "diagonal_scale",
]

# The whole Hessian is used up to this dimension. It costs D gradients and D^2 numbers, and its
# factors D^3 operations: a second at a thousand.
DENSE_DIMENSION = 1000
# Directions flatter than this, relative to the stiffest one after equilibration, are taken to be
# as stiff as this: an indefinite or singular Hessian says nothing about their width. A posterior
# covariance of condition number 1e12 after equilibration is still resolved in double precision.
FLOOR = 1e-12
# Number of random vectors that estimate the diagonal of a Hessian that is too large.
PROBES = 64


class Scale(NamedTuple):
    """A preconditioner from a Hessian.

    Attributes
    ----------
    coordinates
        K, about the origin.
    indefinite
        Number of directions in which the Hessian was not positive.
    """

    coordinates: Coordinates
    indefinite: int

    def about(self, center: np.ndarray) -> Coordinates:
        """Return the coordinates about a center (D,)."""
        return replace(self.coordinates, center=center)

    def newton_step(self, gradient: np.ndarray) -> np.ndarray:
        """Return K K^T times the gradient (D,) of the log density."""
        return self.coordinates.apply(self.coordinates.pull_back(gradient))


def dense_hessian(
    log_density: Callable,
    position: jax.Array,
    feed: Feed,
    used: jax.Array | int | None = None,
) -> jax.Array:
    """Return the (D, D) Hessian of the potential, summed over all or the first ``used`` batches."""
    hessian = -epoch_mean(jax.hessian(log_density), position, feed, used)
    return (hessian + hessian.T) / 2


def hessian_product(
    log_density: Callable, position: jax.Array, vector: jax.Array, feed: Feed
) -> jax.Array:
    """Return H v, the Hessian of the potential of all rows times a vector (D,)."""

    def product(x, rows):
        return jax.jvp(lambda y: jax.grad(log_density)(y, rows), (x,), (vector,))[1]

    return -epoch_mean(product, position, feed)


def diagonal_probes(generator: np.random.Generator, dimension: int) -> np.ndarray:
    """Return (P, D) vectors v whose products v_i v_j sum to delta_ij.

    The sum over the vectors is exact up to 64 dimensions, and an expectation above.
    """
    if dimension <= PROBES:
        return np.eye(dimension)
    return generator.choice([-1.0, 1.0], (PROBES, dimension)) / np.sqrt(PROBES)


def diagonal_hessian(
    probes: jax.Array, log_density: Callable, position: jax.Array, feed: Feed
) -> jax.Array:
    """Return the (D,) diagonal of the Hessian from products with :func:`diagonal_probes`."""
    products = jax.lax.map(lambda v: v * hessian_product(log_density, position, v, feed), probes)
    return products.sum(0)


def dense_scale(hessian: np.ndarray) -> Scale:
    """Return K with K K^T = H^-1 for a positive definite H, and else that of a repaired H.

    The Hessian is scaled to unit diagonal first, so that coordinates of very different units do
    not cost precision. Eigenvalues then count by their absolute value, and the smallest are raised
    to a floor relative to the largest. The computation is in NumPy and in double precision. If the
    Hessian is not finite, K is the identity and all directions count as indefinite.

    Examples
    --------
    >>> coordinates, indefinite = dense_scale(np.array([[4.0, 0.0], [0.0, 1e-10]]))
    >>> np.allclose(coordinates.covariance(), np.diag([0.25, 1e10])), indefinite
    (True, 0)
    """
    hessian = np.asarray(hessian, float)
    if not np.isfinite(hessian).all():  # nothing is known: any step has to prove itself
        return Scale(Dense(np.zeros(len(hessian)), np.eye(len(hessian))), len(hessian))
    units = np.sqrt(np.maximum(np.abs(np.diagonal(hessian)), np.finfo(float).tiny))
    values, vectors = np.linalg.eigh(hessian / units[:, None] / units[None, :])
    top = np.max(np.abs(values))
    indefinite = int(np.sum(values < FLOOR * top))
    # A direction of negative curvature is taken to be as wide as its curvature says, but at most a
    # thousand times as wide as the stiffest: nothing is known about it.
    floor = FLOOR if indefinite == 0 else 1e-6
    values = np.maximum(np.abs(values), floor * top)
    scale = vectors / np.sqrt(values) / units[:, None]
    return Scale(Dense(np.zeros(len(units)), scale), indefinite)


def diagonal_scale(diagonal: np.ndarray) -> Scale:
    """Return (D,) K = |diag H|^-1/2, where |diag H| is at least 1e-6 times its largest entry."""
    diagonal = np.asarray(diagonal, float)
    floor = 1e-6 * np.max(np.abs(diagonal))
    scale = 1 / np.sqrt(np.maximum(np.abs(diagonal), floor))
    return Scale(Diagonal(np.zeros(len(scale)), scale), int(np.sum(diagonal <= 0)))
