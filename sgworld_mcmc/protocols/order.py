"""In which order an epoch visits the batches."""

from abc import ABC, abstractmethod
from typing import ClassVar

import jax

from sgworld_mcmc.protocols.types import PRNGKey

__all__ = ["Order"]


class Order(ABC):
    """The order in which an epoch visits the M batches.

    Attributes
    ----------
    name
        The public spelling.
    law
        The scheme of :mod:`sgworld_mcmc.theory.variance_bias` whose closed form holds.
    period
        Number of epochs after which the noise of the batches has cancelled; 0 if it never does.
    redeals
        Whether the rows are dealt into new batches when an epoch begins.
    """

    name: ClassVar[str]
    law: ClassVar[str]
    period: ClassVar[int] = 1
    redeals: ClassVar[bool] = False

    @abstractmethod
    def init(self, rng_key: PRNGKey, count: int) -> jax.Array:
        """Return the order of the first epoch: (count,) int32 batch numbers."""

    @abstractmethod
    def next(self, rng_key: PRNGKey, order: jax.Array, epoch: jax.Array | int) -> jax.Array:
        """Return the order of epoch number ``epoch`` >= 1, given that of the epoch before."""
