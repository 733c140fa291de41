"""The batches of one chunk of a file, as a feed: what the chains have in memory at a time."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.dealing import count_batches, deal_rows
from sgworld_mcmc.protocols import ArrayTree, Batch, Feed, PRNGKey

__all__ = ["StreamedChunk"]


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["main", "extra", "has_extra"],
    meta_fields=["total", "count"],
)
@dataclass(frozen=True)
class StreamedChunk(Feed):
    """A chunk of m of the M batches of N rows; ``fetch`` knows the numbers 0 to m - 1.

    All chunks have the same shapes: a program that is compiled for one serves all.

    Attributes
    ----------
    main
        Pytree of arrays (m, b, ...).
    extra
        Pytree of arrays (m, 1, ...) with one row more, or None if all batches of the file have one
        size.
    has_extra
        (m,) which batches have that row, or None.
    total, count
        Numbers of rows N and batches M of the file.
    """

    name: ClassVar[str] = "streamed chunk"

    main: ArrayTree
    extra: ArrayTree | None
    has_extra: jax.Array | None
    total: int
    count: int

    @classmethod
    def deal(cls, rng_key, data, batch_size):
        """Deal rows in memory: a file of one chunk."""
        size, count = jax.tree.leaves(data)[0].shape[0], count_batches(data, batch_size)
        rows, left = deal_rows(rng_key, size, count), size % count
        take = lambda index: jax.tree.map(lambda x: jnp.asarray(x)[index], data)  # noqa: E731
        if not left:
            return cls(take(rows.main), None, None, size, count)
        index = jnp.concatenate([rows.extra, jnp.zeros((count - left, 1), jnp.int32)])
        return cls(take(rows.main), take(index), jnp.arange(count) < left, size, count)

    @property
    def size(self) -> int:
        return self.total

    @property
    def num_batches(self) -> int:
        return self.count

    def init(self, rng_key: PRNGKey) -> jax.Array:
        """Return (2,) uint32, the seed of the order in which the chain's blocks are read."""
        return jax.random.bits(rng_key, (2,), jnp.uint32)

    def fetch(self, dealing: ArrayTree, index: jax.Array | int) -> Batch:
        index = 0 if jax.tree.leaves(self.main)[0].shape[0] == 1 else index
        main = jax.tree.map(lambda x: x[index], self.main)
        if self.extra is None:
            return Batch(main, None, jnp.array(False))
        return Batch(main, jax.tree.map(lambda x: x[index], self.extra), self.has_extra[index])
