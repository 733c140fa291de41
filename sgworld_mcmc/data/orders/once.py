"""The order that is drawn once and kept for the whole run."""

from dataclasses import dataclass
from typing import ClassVar

import jax
from jaxtyping import Int32

from sgworld_mcmc.data.permutation import random_permutation
from sgworld_mcmc.protocols import Order, PRNGKey

__all__ = ["SingleOrder"]


@dataclass(frozen=True)
class SingleOrder(Order):
    """One random order for all epochs, which shifts the mean too (docs/theory.md, B9)."""

    name: ClassVar[str] = "once"
    law: ClassVar[str] = "once"

    def init(self, rng_key: PRNGKey, count: int) -> Int32[jax.Array, " {count}"]:
        return random_permutation(rng_key, count)

    def next(
        self, rng_key: PRNGKey, order: Int32[jax.Array, " M"], epoch: jax.Array | int
    ) -> Int32[jax.Array, " M"]:
        return order
