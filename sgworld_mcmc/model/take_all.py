"""A model some of whose rows are in every batch: those of a take-all stratum.

Survey samplers draw with probability one whatever is so large that a sample without it says little
(certainty units). A row that alone decides about a parameter is like that: a chain that reads it
once in an epoch is thrown about by it, or forgets it in between.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax

from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["TakeAll", "TakeAllModel", "taking_all"]


class TakeAll(NamedTuple):
    """The constants of a model, and with them the rows that are in every batch.

    Attributes
    ----------
    constants
        The constant leaves of the user's model.
    rows
        Data leaves (k, ...) of the stratum.
    """

    constants: tuple
    rows: tuple


class TakeAllModel(MinibatchModel):
    """The log density on the stratum and on any number of the other rows.

    Its constants are a :class:`TakeAll`; with those of the user's model alone it sees any rows as
    that does.

    Parameters
    ----------
    base
        The user's model.
    taken
        Number k of rows in every batch.
    """

    def __init__(self, base: MinibatchModel, taken: int) -> None:
        self.__dict__.update(base.__dict__)
        self.taken = taken
        self._remember()

    @property
    def size(self) -> int:
        """Number of the other rows, N - k, of which batches are samples."""
        return self.layout.size - self.taken

    def untraced(
        self,
        flat: jax.Array,
        rows: tuple,
        constants: TakeAll,
        key: jax.Array | None = None,
        weight: jax.Array | float | None = None,
    ) -> jax.Array:
        own, stratum = constants
        others = super().untraced(flat, rows, own, key, weight)
        return others + (1.0 if weight is None else weight) * self.log_likelihood(
            flat, stratum, own
        )

    def of_sample(self, flat: jax.Array, rows: tuple, constants: TakeAll) -> jax.Array:
        return super().untraced(flat, rows, _own(constants))

    def log_densities(self, params: dict, rows: tuple, constants: tuple, **options) -> dict:
        return super().log_densities(params, rows, _own(constants), **options)

    def constrain(self, params: dict, data: tuple, constants: tuple) -> dict:
        return super().constrain(params, data, _own(constants))

    def initial_params(
        self, rng_key: jax.Array, strategy: Callable, rows: tuple, constants: tuple
    ) -> dict:
        return super().initial_params(rng_key, strategy, rows, _own(constants))


def taking_all(model: MinibatchModel, taken: int) -> TakeAllModel:
    """Return the model with so many rows in every batch; the same one again, with what it knows."""
    place = "take all", taken
    if place not in model.kept:
        model.kept[place] = TakeAllModel(model, taken)
    return model.kept[place]


def _own(constants: tuple) -> tuple:
    return constants.constants if isinstance(constants, TakeAll) else constants
