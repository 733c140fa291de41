"""Batches that stay the same for the whole run, laid out as contiguous blocks.

Contiguous blocks make an epoch fast: a gather of rows costs several times the gradient of a small
model.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from sgworld_mcmc.checks import check_data
from sgworld_mcmc.data.dealing import Blocks, count_batches, deal_rows, read_block
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Batch, Feed, PRNGKey

__all__ = ["FixedPartition", "partition"]


@partial(
    jax.tree_util.register_dataclass, data_fields=["main", "extra"], meta_fields=["shards", "axis"]
)
@dataclass(frozen=True)
class FixedPartition(Feed):
    """The rows in memory, with one contiguous block for each batch.

    Attributes
    ----------
    main, extra
        The rows of the M batches, as in :class:`sgworld_mcmc.data.dealing.Blocks`.
    shards
        Number S of parts of the rows: the first b / S rows of a batch are of the first part, and
        so on, so that S devices can have a part each.
    axis
        Name of the mesh axis over which the rows of a batch lie, within a program of one of these
        devices; None where whole batches are seen.
    """

    name: ClassVar[str] = "fixed partition"

    main: ArrayTree
    extra: ArrayTree | None = None
    shards: int = 1
    axis: str | None = None

    @classmethod
    def deal(cls, rng_key, data, batch_size):
        return partition(rng_key, data, batch_size)

    @property
    def num_batches(self) -> int:
        return jax.tree.leaves(self.main)[0].shape[0]

    @property
    def size(self) -> int:
        count, size = jax.tree.leaves(self.main)[0].shape[:2]
        extra = 0
        if self.extra is not None:
            batches, more = jax.tree.leaves(self.extra)[0].shape[:2]
            extra = batches * more
        return self.parts * count * size + extra

    @property
    def parts(self) -> int:
        return 1 if self.axis is None else jax.lax.axis_size(self.axis)

    def across(self, estimate: ArrayTree) -> ArrayTree:
        return estimate if self.axis is None else jax.lax.pmean(estimate, self.axis)

    def specs(self, axis: str) -> "FixedPartition":
        """Return where the arrays lie if the rows of each batch lie over a mesh axis."""
        return replace(self, main=PartitionSpec(None, axis), extra=PartitionSpec())

    def on_axis(self, axis: str) -> "FixedPartition":
        """Return the feed of a device that has its part of the rows over a mesh axis."""
        return replace(self, axis=axis)

    def first_rows(self, number: int) -> ArrayTree:
        """Return up to ``number`` rows, the same ones wherever the batches lie."""
        each = max(1, number // self.shards)
        ours = self.shards // self.parts

        def take(x):
            count, length, *rest = x.shape
            parts = jnp.moveaxis(x.reshape(count, ours, length // ours, *rest), 1, 0)
            some = parts.reshape(ours, -1, *rest)[:, :each].reshape(-1, *rest)
            if self.axis is None:
                return some
            return jax.lax.all_gather(some, self.axis, tiled=True)

        return jax.tree.map(take, self.main)

    def fetch(self, dealing: ArrayTree, index: jax.Array | int) -> Batch:
        # A single batch is read at a constant index. Under vmap each chain would have an index of
        # its own: XLA would copy the data for each chain, and could not multiply one matrix with
        # all chains at once.
        index = 0 if self.num_batches == 1 else index
        return read_block(Blocks(self.main, self.extra), index)


def partition(rng_key: PRNGKey, data: ArrayLikeTree, batch_size: int) -> FixedPartition:
    """Deal the rows of ``data`` at random into contiguous batches.

    Parameters
    ----------
    rng_key
        Random key that decides which row comes into which batch.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, between 1 and N. There are M = ceil(N / batch_size)
        batches of N // M or N // M + 1 rows.

    Returns
    -------
    FixedPartition
        A copy of the rows, which takes as much memory as ``data``.

    Raises
    ------
    ValueError, TypeError
        If arrays differ in length, or the batch size is no integer in [1, N].

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batches = partition(jax.random.key(0), jnp.arange(10), batch_size=4)
    >>> batches.main.shape, batches.extra.shape   # batches of 4, 3 and 3 rows
    ((3, 3), (1, 1))
    """
    rows = deal_rows(rng_key, check_data(data), count_batches(data, batch_size))
    take = lambda index: jax.tree.map(lambda x: jnp.asarray(x)[index], data)  # noqa: E731
    return FixedPartition(take(rows.main), None if rows.extra is None else take(rows.extra))
