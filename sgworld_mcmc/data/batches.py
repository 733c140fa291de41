"""How the rows of the data are dealt into minibatches.

A *partition* deals N rows into M = ceil(N / batch_size) batches whose sizes differ by at most
one, in random order. Two layouts hold one: :class:`Batches` has the rows copied into
contiguous blocks, which is what makes an epoch fast (a gather of rows costs several times the
gradient of a small model); :class:`RowBatches` keeps the data as they are and holds row numbers,
for partitions that change. :func:`fetch` reads one batch from either.

When M does not divide N the first N mod M batches have one row more. That row is stored apart,
so that all shapes stay static: see :func:`sgworld_mcmc.gradients.weighting.batch_estimate`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.types import ArrayLikeTree, ArrayTree, PRNGKey

from sgworld_mcmc.checks import check_data, check_integer

__all__ = [
    "Batch",
    "Batches",
    "RowBatches",
    "fetch",
    "num_batches",
    "num_examples",
    "partition",
    "partition_rows",
    "split_rows",
]


class Batches(NamedTuple):
    """Rows laid out as contiguous blocks, one a batch.

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


class RowBatches(NamedTuple):
    """Row numbers dealt into batches, and the data that they point into.

    Attributes
    ----------
    data
        Pytree of arrays (N, ...).
    rows
        :class:`Batches` of int32 row numbers, shapes (M, b) and (N mod M, 1).
    """

    data: ArrayTree
    rows: Batches


class Batch(NamedTuple):
    """One minibatch: ``main`` (b, ...), ``extra`` (1, ...) or None, and whether it has that."""

    main: ArrayTree
    extra: ArrayTree | None
    has_extra: jax.Array  # bool


def partition(rng_key: PRNGKey, data: ArrayLikeTree, batch_size: int) -> Batches:
    """Deal the rows of ``data`` at random into contiguous batches.

    Parameters
    ----------
    rng_key
        Decides which row comes into which batch.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, between 1 and N. There are M = ceil(N / batch_size)
        batches of N // M or N // M + 1 rows.

    Returns
    -------
    Batches
        A copy of the rows: memory of the size of ``data``.

    Raises
    ------
    ValueError, TypeError
        Arrays of different length, or a batch size that is no integer in [1, N].

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> batches = partition(jax.random.key(0), jnp.arange(10), batch_size=4)
    >>> batches.main.shape, batches.extra.shape   # batches of 4, 3 and 3 rows
    ((3, 3), (1, 1))
    """
    rows = partition_rows(rng_key, check_data(data), batch_size)
    return jax.tree.map(lambda index: jax.tree.map(lambda x: jnp.asarray(x)[index], data), rows)


def partition_rows(rng_key: PRNGKey, size: int, batch_size: int) -> Batches:
    """Deal the row numbers 0, ..., ``size`` - 1 at random into batches, as :func:`partition`."""
    batch_size = check_integer("batch_size", batch_size, 1, size)
    return split_rows(jax.random.permutation(rng_key, size), -(-size // batch_size))


def split_rows(rows: jax.Array, count: int) -> Batches:
    """Cut an array of N row numbers into ``count`` batches of N // count or one row more."""
    size = rows.shape[0] // count
    extra = rows[count * size :, None] if rows.shape[0] % count else None
    return Batches(rows[: count * size].reshape(count, size), extra)


def _index(batches: Batches | RowBatches) -> Batches:
    return batches.rows if isinstance(batches, RowBatches) else batches


def num_batches(batches: Batches | RowBatches) -> int:
    """M, the number of batches in an epoch."""
    return jax.tree.leaves(_index(batches).main)[0].shape[0]


def num_examples(batches: Batches | RowBatches) -> int:
    """N, the number of rows in all batches together."""
    main, extra = _index(batches)
    count, size = jax.tree.leaves(main)[0].shape[:2]
    return count * size + (0 if extra is None else jax.tree.leaves(extra)[0].shape[0])


def fetch(batches: Batches | RowBatches, index: jax.Array) -> Batch:
    """Batch number ``index``: a slice of :class:`Batches`, a gather from :class:`RowBatches`."""
    main, extra = _index(batches)
    if num_batches(batches) == 1:
        # Under vmap an index of each chain's own would copy the data for each of them, and take
        # from XLA the product of one matrix with all chains.
        index = 0
    batch = Batch(jax.tree.map(lambda x: x[index], main), None, jnp.array(False))
    if extra is not None:
        length = jax.tree.leaves(extra)[0].shape[0]
        row = jax.tree.map(lambda x: x[jnp.minimum(index, length - 1)], extra)
        batch = Batch(batch.main, row, index < length)
    if isinstance(batches, RowBatches):
        pick = lambda rows: jax.tree.map(lambda x: x[rows], batches.data)  # noqa: E731
        row = None if extra is None else pick(batch.extra)
        batch = Batch(pick(batch.main), row, batch.has_extra)
    return batch
