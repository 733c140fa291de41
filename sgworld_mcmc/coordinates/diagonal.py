"""Coordinates with one scale for each parameter, for many dimensions."""

import operator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np

from sgworld_mcmc.protocols import Coordinates

__all__ = ["Diagonal"]


@partial(jax.tree_util.register_dataclass, data_fields=["center", "scale"], meta_fields=[])
@dataclass(frozen=True)
class Diagonal(Coordinates):
    """theta = center + scale * z.

    Attributes
    ----------
    center, scale
        (D,) origin and scales; tuples of such arrays where theta and z are tuples.
    """

    name: ClassVar[str] = "diagonal"
    divisible: ClassVar[bool] = True

    center: Any
    scale: Any

    @classmethod
    def from_covariance(cls, center, covariance):
        variances = np.diagonal(covariance) if np.ndim(covariance) == 2 else covariance
        return cls(center, np.sqrt(variances))

    @classmethod
    def from_hessian(cls, center, hessian):
        # The scales come from the Hessian's diagonal, not from that of its inverse: the curvature
        # along every axis is then the same, and one step size suits all of them.
        diagonal = np.diagonal(hessian) if np.ndim(hessian) == 2 else hessian
        return cls(center, 1 / np.sqrt(diagonal))

    def apply(self, z):
        return jax.tree.map(operator.mul, self.scale, z)

    def solve(self, change):
        return change / self.scale

    def pull_back(self, gradient):
        return jax.tree.map(operator.mul, self.scale, gradient)

    def divided(self, sizes):
        parts = (tuple(jax.lax.split(x, sizes)) for x in (self.center, self.scale))
        return Diagonal(*parts)

    def scaled(self, factor):
        return Diagonal(self.center, self.scale * factor)

    def covariance(self):
        return np.asarray(self.scale) ** 2

    def error_of(self, errors):
        return errors / self.scale

    def whiten(self, hessian):
        return hessian * self.scale[:, None] * self.scale[None, :]
