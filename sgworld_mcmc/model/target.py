"""Make the log density of a model in the form that gradients take: a function of (z, rows)."""

from collections.abc import Callable
from typing import Any

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import Coordinates

__all__ = ["target_of"]


def target_of(model: MinibatchModel, constants: tuple, coordinates: Coordinates) -> Callable:
    """Return the log density estimated from rows, as a function of (z, rows).

    A third argument is the random key of a model with random parts, fresh in every step of a run.
    """

    def target(position: Any, rows: tuple, key: Any = None) -> Any:
        return model.log_density(coordinates.to_model(position), rows, constants, key)

    return target
