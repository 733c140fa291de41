"""The order of SGLD, in which each batch is drawn independently of all others."""

from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Int32

from sgworld_mcmc.protocols import Order, PRNGKey

__all__ = ["Replacement"]


@dataclass(frozen=True)
class Replacement(Order):
    """Batches drawn independently (Welling & Teh 2011), whose noise never cancels."""

    name: ClassVar[str] = "replacement"
    law: ClassVar[str] = "replacement"
    period: ClassVar[int] = 0

    def init(self, rng_key: PRNGKey, count: int) -> Int32[jax.Array, " {count}"]:
        return jax.random.randint(rng_key, (count,), 0, count, dtype=jnp.int32)

    def next(
        self, rng_key: PRNGKey, order: Int32[jax.Array, " M"], epoch: jax.Array | int
    ) -> Int32[jax.Array, " M"]:
        return self.init(rng_key, order.shape[0])
