"""The order that is a fresh one in an epoch, and the same one backward in the next."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from sgworld_mcmc.data.permutation import random_permutation
from sgworld_mcmc.protocols import Order, PRNGKey

__all__ = ["SymmetricOrder"]


@dataclass(frozen=True)
class SymmetricOrder(Order):
    """A fresh random order, then the same backward (Paulin et al., arXiv:2410.19780)."""

    name: ClassVar[str] = "symmetric"
    law: ClassVar[str] = "symmetric"
    period: ClassVar[int] = 2

    def init(self, rng_key: PRNGKey, count: int) -> Int32[jax.Array, " {count}"]:
        return random_permutation(rng_key, count)

    def next(
        self, rng_key: PRNGKey, order: Int32[jax.Array, " M"], epoch: jax.Array | int
    ) -> Int32[jax.Array, " M"]:
        return jnp.where(epoch % 2 == 1, order[::-1], random_permutation(rng_key, order.shape[0]))
