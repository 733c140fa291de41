"""The model's own unconstrained coordinates, measured from the center."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np

from sgworld_mcmc.protocols import Coordinates

__all__ = ["Identity"]


@partial(jax.tree_util.register_dataclass, data_fields=["center", "factor"], meta_fields=[])
@dataclass(frozen=True)
class Identity(Coordinates):
    """theta = center + factor z.

    Attributes
    ----------
    center
        (D,) origin of the coordinates.
    factor
        A number: the square root of the temperature, or 1.
    """

    name: ClassVar[str] = "none"
    whitens: ClassVar[bool] = False

    center: Any
    # The factor is an array, because JAX would convert a Python number by a program of its own.
    factor: Any = field(default_factory=lambda: np.ones(()))

    @classmethod
    def from_covariance(cls, center, covariance):
        return cls(center)

    @classmethod
    def from_hessian(cls, center, hessian):
        return cls(center)

    def apply(self, z):
        return self.factor * z

    def solve(self, change):
        return change / self.factor

    def pull_back(self, gradient):
        return self.factor * gradient

    def scaled(self, factor):
        return Identity(self.center, self.factor * factor)

    def covariance(self):
        return np.full(len(self.center), np.square(float(self.factor)))

    def error_of(self, errors):
        return errors / self.factor

    def whiten(self, hessian):
        return hessian * self.factor**2
