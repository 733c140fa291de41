"""In which coordinates the chain moves."""

import operator
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy

__all__ = ["Coordinates"]


class Coordinates(ABC):
    """The coordinates z in which a chain moves: theta = center + K z.

    They are a pytree with the center (D,) and the arrays that K is made of; K K^T estimates the
    posterior covariance. All methods take NumPy and JAX arrays.

    Attributes
    ----------
    name
        The public spelling.
    whitens
        Whether a posterior standard deviation has about length one in z.
    divisible
        Whether each part of theta depends on the same part of z only: see :meth:`divided`.
    """

    name: ClassVar[str]
    whitens: ClassVar[bool] = True
    divisible: ClassVar[bool] = False
    center: Any

    @classmethod
    @abstractmethod
    def from_covariance(cls, center: np.ndarray, covariance: np.ndarray) -> "Coordinates":
        """Return coordinates for a posterior covariance (D, D), or for posterior variances (D,)."""

    @classmethod
    def from_hessian(cls, center: np.ndarray, hessian: np.ndarray) -> "Coordinates":
        """Return coordinates for a positive definite Hessian of the potential at the center.

        The Hessian is (D, D), or (D,) if only its diagonal is known.
        """
        inverse = 1 / hessian if np.ndim(hessian) == 1 else np.linalg.inv(hessian)
        return cls.from_covariance(center, inverse)

    @abstractmethod
    def apply(self, z: Any) -> Any:
        """Return K z for z (..., D)."""

    @abstractmethod
    def solve(self, change: Any) -> Any:
        """Return K^-1 times a change of theta (..., D)."""

    @abstractmethod
    def pull_back(self, gradient: Any) -> Any:
        """Return K^T times gradients with respect to theta (..., D): those with respect to z."""

    @abstractmethod
    def scaled(self, factor: Any) -> "Coordinates":
        """Return the coordinates with ``factor`` K in place of K."""

    @abstractmethod
    def covariance(self) -> np.ndarray:
        """Return K K^T as (D, D), or as (D,) if it is diagonal."""

    @abstractmethod
    def whiten(self, hessian: np.ndarray) -> np.ndarray:
        """Return K^T H K for a Hessian H (D, D) with respect to theta."""

    @abstractmethod
    def error_of(self, errors: np.ndarray) -> np.ndarray:
        """Return the standard deviations in z (D,) of independent errors of theta (D,)."""

    @property
    def directions(self) -> np.ndarray | None:
        """The (D, D) unit vectors of the parameters theta in z.

        They are None if they are the axes, or if there are too many numbers in them:
        :meth:`along` then projects on them all the same.
        """
        return None

    def deviations(self) -> np.ndarray:
        """Return the standard deviations of theta (D,), if those of z are one."""
        covariance = self.covariance()
        return np.sqrt(covariance if covariance.ndim == 1 else np.diagonal(covariance))

    def to_model(self, z: Any) -> Any:
        """Return theta at positions z (..., D)."""
        return jax.tree.map(operator.add, self.center, self.apply(z))

    def divided(self, sizes: tuple[int, ...]) -> "Coordinates":
        """Return the coordinates for theta and z that are tuples of parts of these sizes."""
        raise NotImplementedError(f"Coordinates of the kind {self.name!r} have no parts.")

    def to_z(self, theta: Any) -> Any:
        """Return z at the model's unconstrained coordinates theta (..., D)."""
        return self.solve(theta - self.center)

    def distance(self, change: np.ndarray) -> float:
        """Return the length of a change of theta (D,) in posterior standard deviations."""
        return float(np.linalg.norm(self.solve(np.asarray(change))))

    def along(self, z: Any) -> Any:
        """Return the components of z (..., D) along :attr:`directions`."""
        return z if self.directions is None else z @ self.directions.T

    def projector(self) -> Callable:
        """Return a function of gradients with respect to theta (..., D).

        It returns the components along :attr:`directions` of the gradients with respect to z.
        """
        return self.pull_back

    def cast(self, dtype: Any) -> "Coordinates":
        """Return the coordinates with JAX arrays of this precision."""
        return jax.tree.map(lambda x: from_numpy(x, dtype), self)
