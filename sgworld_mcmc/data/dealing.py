"""Deal N rows into M batches whose sizes differ by at most one.

If M does not divide N, the first N mod M batches have one row more. That row is stored apart, so
that all shapes stay static: see :func:`sgworld_mcmc.gradients.weighting.batch_estimate`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.checks import check_data, check_integer
from sgworld_mcmc.data.permutation import random_permutation
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Batch, PRNGKey

__all__ = [
    "Blocks",
    "batch_count",
    "count_batches",
    "deal_rows",
    "even_size",
    "extra_rows",
    "is_shared",
    "numbers_of",
    "read_block",
    "split_rows",
]

# So many sizes, and numbers of batches, are looked at for one that leaves few rows over.
LOOKED_AT, COUNTS = 20, 200
# A device must read this many numbers of a batch. On a CPU that takes about as long as the exchange
# of gradients between four devices, 25 microseconds.
LEAST_NUMBERS = 2**14


class Blocks(NamedTuple):
    """Rows, or row numbers, as M blocks.

    Attributes
    ----------
    main
        Pytree of arrays (M, b, ...), b = N // M rows of each batch.
    extra
        Pytree of arrays (E, w, ...): w more rows for each of the first E batches, nearly always
        one more for each of the first N mod M. ``None`` when M divides N.
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
    return split_rows(random_permutation(rng_key, size), count)


def read_block(blocks: Blocks, index: jax.Array | int) -> Batch:
    """Return block number ``index``."""
    batch = Batch(jax.tree.map(lambda x: x[index], blocks.main), None, jnp.array(False))
    if blocks.extra is None:
        return batch
    length = jax.tree.leaves(blocks.extra)[0].shape[0]
    row = jax.tree.map(lambda x: x[jnp.minimum(index, length - 1)], blocks.extra)
    return Batch(batch.main, row, index < length)


def even_size(batch_size: int, size: int, shards: int = 1) -> int:
    """Return a size near ``batch_size`` that cuts the rows into equal batches, if there is one.

    Batches of one size need no extra row, and their loop compiles in half the time. Sizes that
    ``shards`` devices can share come first.

    Examples
    --------
    >>> even_size(3021, 100_000)
    2500
    """
    count = -(-size // batch_size)
    near = range(count, int(1.3 * count) + 1)
    whole = (m for parts in (shards, 1) for m in near if size % (m * parts) == 0)
    divisor = next(whole, count)
    return -(-size // divisor)


def extra_rows(size: int, count: int, shards: int = 1) -> tuple[int, int, int]:
    """Return how N rows are cut into M batches whose common part has a multiple of S rows.

    Returns
    -------
    tuple
        Number of rows b of the common part of a batch, how many batches have more, and how many
        more.

    Examples
    --------
    >>> extra_rows(1000, 3), extra_rows(1003, 2, shards=4)
    ((333, 1, 1), (500, 1, 3))
    """
    length = size // count // shards * shards
    found = []
    # What is left over must be cut into equal pieces, at most one for each batch: of few rows.
    for common in range(length, max(length - LOOKED_AT * shards, 0), -shards):
        left = size - count * common
        if left <= count:
            return common, left, 1
        pieces = (n for n in range(-(-left // count), left + 1) if left % n == 0)
        found.append((next(pieces), -common))
    more, common = min(found)
    return -common, (size + count * common) // more, more


def numbers_of(data: ArrayLikeTree) -> int:
    """Return how many numbers a row has."""
    return sum(int(np.prod(x.shape[1:])) for x in jax.tree.leaves(data))


def is_shared(rows: int, numbers: int, shards: int) -> bool:
    """Return whether S devices gain by sharing a batch of rows with so many numbers each."""
    return shards > 1 and rows >= shards and rows // shards * numbers >= LEAST_NUMBERS


def batch_count(size: int, batch_size: int, shards: int = 1) -> int:
    """Return the number of batches M of at most B of N rows.

    It is ceil(N / B), or up to a third more where ``shards`` devices share a batch and few rows, or
    none, are to be left over by equal parts.

    Examples
    --------
    >>> batch_count(1000, 300), batch_count(1000, 300, shards=8)
    (4, 5)
    """
    least = -(-size // batch_size)
    if shards == 1:
        return least
    found = []
    for count in range(least, min(max(least + 2, int(1.3 * least)), least + COUNTS) + 1):
        common, batches, more = extra_rows(size, count, shards)
        more *= batches > 0
        over = max(0, common + more - batch_size)
        # A second evaluation of no rows costs nothing, and one of few hardly anything.
        found.append((over, more > 0, 100 * more > common, count))
    return min(found)[-1]
