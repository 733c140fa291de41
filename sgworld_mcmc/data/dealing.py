"""Deal N rows into M batches whose sizes differ by at most one.

If M does not divide N, the first N mod M batches have one row more. That row is stored apart, so
that all shapes stay static: see :func:`sgworld_mcmc.gradients.weighting.batch_estimate`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.checks import check_data, check_integer
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Batch, PRNGKey

__all__ = ["Blocks", "count_batches", "deal_rows", "read_block", "split_rows"]


class Blocks(NamedTuple):
    """Rows, or row numbers, as M blocks.

    Attributes
    ----------
    main
        Pytree of arrays (M, b, ...), b = N // M rows of each batch.
    extra
        Pytree of arrays (N mod M, 1, ...): one more row for each of the first N mod M
        batches. ``None`` when M divides N.
    """

    main: ArrayTree
    extra: ArrayTree | None


def count_batches(data: ArrayLikeTree, batch_size: int) -> int:
    """Return M = ceil(N / batch_size).

    Raises
    ------
    ValueError, TypeError
        If arrays differ in length, or the batch size is no integer in [1, N].
    """
    size = check_data(data)
    return -(-size // check_integer("batch_size", batch_size, 1, size))


def split_rows(rows: jax.Array, count: int) -> Blocks:
    """Cut an array of N row numbers into ``count`` batches of N // count or one row more."""
    rows = rows.astype(jnp.int32)  # they would be int64 in double precision
    size = rows.shape[0] // count
    extra = rows[count * size :, None] if rows.shape[0] % count else None
    return Blocks(rows[: count * size].reshape(count, size), extra)


def deal_rows(rng_key: PRNGKey, size: int, count: int) -> Blocks:
    """Deal the row numbers 0, ..., ``size`` - 1 at random into ``count`` batches."""
    return split_rows(jax.random.permutation(rng_key, size), count)


def read_block(blocks: Blocks, index: jax.Array | int) -> Batch:
    """Return block number ``index``."""
    batch = Batch(jax.tree.map(lambda x: x[index], blocks.main), None, jnp.array(False))
    if blocks.extra is None:
        return batch
    length = jax.tree.leaves(blocks.extra)[0].shape[0]
    row = jax.tree.map(lambda x: x[jnp.minimum(index, length - 1)], blocks.extra)
    return Batch(batch.main, row, index < length)


def even_size(batch_size: int, size: int) -> int:
    """Return a size near ``batch_size`` that cuts the rows into equal batches, if there is one.

    Batches of one size need no extra row, and their loop compiles in half the time.

    Examples
    --------
    >>> even_size(3021, 100_000)
    2500
    """
    count = -(-size // batch_size)
    divisor = next((m for m in range(count, int(1.3 * count) + 1) if size % m == 0), count)
    return -(-size // divisor)
