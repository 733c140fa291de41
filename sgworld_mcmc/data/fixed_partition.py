"""Batches that stay the same for the whole run, laid out as contiguous blocks.

Contiguous blocks make an epoch fast: a gather of rows costs several times the gradient of a small
model.
"""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from sgworld_mcmc.checks import check_data
from sgworld_mcmc.data.dealing import Blocks, count_batches, deal_rows, read_block
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Batch, Feed, PRNGKey

__all__ = ["FixedPartition", "partition"]


@partial(jax.tree_util.register_dataclass, data_fields=["main", "extra"], meta_fields=[])
@dataclass(frozen=True)
class FixedPartition(Feed):
    """The rows in memory, with one contiguous block for each batch.

    Attributes
    ----------
    main, extra
        The rows of the M batches, as in :class:`sgworld_mcmc.data.dealing.Blocks`.
    """

    name: ClassVar[str] = "fixed partition"

    main: ArrayTree
    extra: ArrayTree | None = None

    @classmethod
    def deal(cls, rng_key, data, batch_size):
        return partition(rng_key, data, batch_size)

    @property
    def num_batches(self) -> int:
        return jax.tree.leaves(self.main)[0].shape[0]

    @property
    def size(self) -> int:
        count, size = jax.tree.leaves(self.main)[0].shape[:2]
        extra = 0 if self.extra is None else jax.tree.leaves(self.extra)[0].shape[0]
        return count * size + extra

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
