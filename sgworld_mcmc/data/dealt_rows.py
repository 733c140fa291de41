"""Batches that every chain deals anew when an epoch begins, gathered from the rows in memory."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.dealing import Blocks, count_batches, deal_rows, read_block
from sgworld_mcmc.protocols import ArrayTree, Batch, Feed, PRNGKey

__all__ = ["DealtRows"]


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["count"])
@dataclass(frozen=True)
class DealtRows(Feed):
    """The rows in memory, and row numbers dealt into new batches each epoch.

    Attributes
    ----------
    data
        Pytree of arrays (N, ...).
    count
        Number of batches M.
    """

    name: ClassVar[str] = "dealt rows"

    data: ArrayTree
    count: int

    @classmethod
    def deal(cls, rng_key, data, batch_size):
        return cls(jax.tree.map(jnp.asarray, data), count_batches(data, batch_size))

    @property
    def size(self) -> int:
        return jax.tree.leaves(self.data)[0].shape[0]

    @property
    def num_batches(self) -> int:
        return self.count

    def init(self, rng_key: PRNGKey) -> Blocks:
        return deal_rows(rng_key, self.size, self.num_batches)

    def renew(self, rng_key: PRNGKey, dealing: Blocks) -> Blocks:
        return self.init(rng_key)

    def fetch(self, dealing: Blocks, index: jax.Array | int) -> Batch:
        rows = read_block(dealing, 0 if self.num_batches == 1 else index)
        pick = lambda numbers: jax.tree.map(lambda x: x[numbers], self.data)  # noqa: E731
        extra = None if rows.extra is None else pick(rows.extra)
        return Batch(pick(rows.main), extra, rows.has_extra)
