"""Coordinates with a full matrix, for up to about a thousand dimensions."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np

from sgworld_mcmc.protocols import Coordinates

__all__ = ["Dense"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["center", "scale", "transposed"],
    meta_fields=[],
)
@dataclass(frozen=True)
class Dense(Coordinates):
    """theta = center + scale @ z.

    Attributes
    ----------
    center
        (D,) origin of the coordinates.
    scale
        (D, D) matrix K, any one with K K^T the covariance.
    transposed
        K^T, or None. Compiled products of a few vectors with the rows of a large matrix take up to
        eight times as long as those with its columns, so that a run has both.
    """

    name: ClassVar[str] = "dense"

    center: Any
    scale: Any
    transposed: Any = None

    @classmethod
    def from_covariance(cls, center, covariance):
        full = covariance if np.ndim(covariance) == 2 else np.diag(covariance)
        return cls(center, np.linalg.cholesky(full))

    def apply(self, z):
        return z @ (self.scale.T if self.transposed is None else self.transposed)

    def solve(self, change):
        flat = change.reshape(-1, change.shape[-1])
        return _library(change).linalg.solve(self.scale, flat.T).T.reshape(change.shape)

    def pull_back(self, gradient):
        return gradient @ self.scale

    def scaled(self, factor):
        transposed = None if self.transposed is None else self.transposed * factor
        return Dense(self.center, self.scale * factor, transposed)

    def covariance(self):
        return np.asarray(self.scale @ self.scale.T)

    def whiten(self, hessian):
        return self.scale.T @ hessian @ self.scale

    def error_of(self, errors):
        return np.sqrt(np.linalg.inv(self.scale) ** 2 @ errors**2)

    @property
    def directions(self):
        return self.scale / _library(self.scale).linalg.norm(self.scale, axis=1, keepdims=True)

    def projector(self):
        # Each gradient needs one product instead of two.
        projection = self.scale @ self.directions.T
        return lambda gradient: gradient @ projection

    def cast(self, dtype):
        transposed = np.ascontiguousarray(np.asarray(self.scale).T)
        return super(Dense, replace(self, transposed=transposed)).cast(dtype)


def _library(x):
    """Return JAX's library for JAX arrays, else NumPy, whose functions need no compilation."""
    return jax.numpy if isinstance(x, jax.Array) else np
