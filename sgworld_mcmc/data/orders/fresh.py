"""The order that visits every batch once an epoch, in a fresh random order each epoch."""

from dataclasses import dataclass
from typing import ClassVar

import jax
from jaxtyping import Int32

from sgworld_mcmc.data.permutation import random_permutation
from sgworld_mcmc.protocols import Order, PRNGKey

__all__ = ["FreshOrder"]


@dataclass(frozen=True)
class FreshOrder(Order):
    """Every batch once an epoch, in a fresh random order each epoch."""

    name: ClassVar[str] = "batches"
    law: ClassVar[str] = "batches"

    def init(self, rng_key: PRNGKey, count: int) -> Int32[jax.Array, " {count}"]:
        return random_permutation(rng_key, count)

    def next(
        self, rng_key: PRNGKey, order: Int32[jax.Array, " M"], epoch: jax.Array | int
    ) -> Int32[jax.Array, " M"]:
        return random_permutation(rng_key, order.shape[0])
