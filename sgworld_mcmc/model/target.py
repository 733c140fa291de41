"""Make the log density of a model in the form that gradients take: a function of (z, rows)."""

import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import Coordinates

__all__ = ["Target", "target_of"]


class Target(NamedTuple):
    """The log density estimated from rows, as a function of (z, rows).

    A gradient that needs several derivatives takes them with respect to theta, by :meth:`near`: the
    products with K, which may cost more than the rows, are then made once.

    Attributes
    ----------
    density
        The log density as a function of (theta, rows) and of the random key of a model with random
        parts, which is fresh in every step of a run.
    coordinates
        The coordinates z.
    """

    density: Callable
    coordinates: Coordinates

    def __call__(self, position: Any, rows: tuple, key: Any = None) -> Any:
        return self.density(self.coordinates.to_model(position), rows, key)

    def near(self, change: Any, rows: tuple) -> Any:
        """Return the log density where theta is the center plus ``change``."""
        theta = jax.tree.map(operator.add, self.coordinates.center, change)
        return self.density(theta, rows, None)


def target_of(
    model: MinibatchModel, constants: tuple, coordinates: Coordinates, temperature: Any = None
) -> Target:
    """Return log p, or log p / tau, estimated from rows as a function of (z, rows)."""

    def density(theta: Any, rows: tuple, key: Any = None) -> Any:
        value = model.log_density(theta, rows, constants, key)
        return value if temperature is None else value / temperature

    return Target(density, coordinates)
