"""Put the rows of the data in random order, and cut them into batches."""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy, reshaped
from sgworld_mcmc.data.dealing import extra_rows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.protocols import PRNGKey

__all__ = [
    "PART_ROWS",
    "aligned",
    "cut",
    "first_batches",
    "generator_of",
    "head",
    "is_large",
    "joined",
    "minibatches",
    "order_without",
    "part_edges",
    "part_order",
    "random_order",
    "seed_of",
    "shuffle",
    "take_rows",
]

# JAX does not copy an array whose memory is aligned to this many bytes.
ALIGNMENT = 64
# Up to this number of rows, an even one, every part of the set-up reads all of them. Above, it
# reads parts where they tell as much. To read all of PART_ROWS rows takes hundredths of a second:
# parts of fewer rows would save nothing, and would change the draws that belong to a key.
PART_ROWS = 2**17
# Rows are copied this many at a time.
COPIED_ROWS = 2**16


def is_large(size: int) -> bool:
    """Return whether data with this number of rows are read in parts where parts are enough."""
    return size > PART_ROWS


def seed_of(rng_key: PRNGKey) -> np.ndarray:
    """Return the integers of a JAX key: the seed of the set-up's random numbers."""
    return np.asarray(jax.random.key_data(rng_key)).ravel()


def generator_of(seed: np.ndarray) -> np.random.Generator:
    """Return NumPy's generator for the random numbers of the set-up.

    Each function of ``jax.random`` costs a third of a second to compile for every shape, and a
    permutation of a million rows a second to run on a CPU.
    """
    return np.random.default_rng(seed.tolist())


def shuffle(generator: np.random.Generator, data: tuple) -> tuple:
    """Return copies of the data leaves with their rows in one random order."""
    return take_rows(data, random_order(generator, jax.tree.leaves(data)[0].shape[0]))


def random_order(generator: np.random.Generator, size: int, shards: int = 1) -> np.ndarray:
    """Return the numbers of the rows (N,) in random order.

    With S ``shards`` the rows are cut into S parts as they lie, and each is shuffled by itself.
    The order takes one row of each part in turn; what longer parts have left comes last.
    """
    if shards > 1:
        words, edges = generator.integers(2**32, size=4), part_edges(size, shards)
        parts = [part_order(words, number, edges) for number in range(shards)]
        common = size // shards
        rounds = np.stack([part[:common] for part in parts], axis=1)
        return np.concatenate([rounds.ravel(), *(part[common:] for part in parts)])
    if not is_large(size) or size > np.iinfo(np.int32).max:
        return generator.permutation(size)
    # Numbers of four bytes take two thirds of the time.
    order = np.arange(size, dtype=np.int32)
    generator.shuffle(order)
    return order


def order_without(few: np.ndarray, size: int, shards: int = 1) -> np.ndarray:
    """Return which of N rows in a :func:`random_order` are left without a few, and their order.

    With S ``shards`` they come from the parts in turn again, and what longer parts have left last.
    """
    others = np.delete(np.arange(size), few)
    if shards == 1:
        return others
    longer = np.flatnonzero(np.diff(part_edges(size, shards)) > size // shards)
    common = size - len(longer)
    part = np.append(np.arange(common) % shards, longer)[others]
    place = np.empty(len(others), int)
    for number in range(shards):
        own = part == number
        place[own] = np.arange(own.sum())
    return others[np.lexsort((part, place))]


def part_edges(size: int, shards: int) -> list[int]:
    """Return the first rows of S parts of N rows, and N. The parts differ by at most one row.

    Where S is a multiple of P, the edges of P parts are among them.
    """
    return [number * size // shards for number in range(shards + 1)]


def part_order(words: np.ndarray, number: int, edges: list[int]) -> np.ndarray:
    """Return the rows of a part in random order, which depends on no other part."""
    generator = np.random.default_rng([*words.tolist(), number])
    return edges[number] + generator.permutation(edges[number + 1] - edges[number])


def take_rows(data: tuple, order: np.ndarray) -> tuple:
    """Return copies of the data leaves with their rows in the order (N,)."""
    return jax.tree.map(lambda x: _take(x, order), data)


def _take(x: Any, order: np.ndarray) -> jax.Array:
    dtype = jax.dtypes.canonicalize_dtype(x.dtype)
    if jax.default_backend() != "cpu" or dtype.kind not in "biufc":
        return jnp.take(x, order, axis=0) if isinstance(x, jax.Array) else jnp.asarray(x[order])
    # On a CPU a JAX array lends its memory to NumPy, which takes rows with no further copy.
    x, taken = np.asarray(x), aligned((len(order), *x.shape[1:]), dtype)

    def copy(start):
        some = slice(start, start + COPIED_ROWS)
        if x.dtype == dtype:
            np.take(x, order[some], axis=0, out=taken[some], mode="clip")
        else:
            np.copyto(taken[some], x[order[some]], casting="same_kind")

    # Most of the time goes into memory that is touched for the first time, by each thread for
    # itself; NumPy lets others run meanwhile.
    with ThreadPoolExecutor(os.cpu_count() if is_large(len(order)) else 1) as threads:
        list(threads.map(copy, range(0, len(order), COPIED_ROWS)))
    return jax.device_put(taken, may_alias=True)


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Return memory that JAX need not copy: that would take longer than gradients of the rows."""
    size = int(np.prod(shape)) * dtype.itemsize
    memory = np.empty(size + ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % ALIGNMENT
    return memory[start : start + size].view(dtype).reshape(shape)


def cut(data: tuple, count: int, shards: int = 1, *, by_part: bool = True) -> FixedPartition:
    """Cut shuffled rows into ``count`` batches whose sizes differ by at most one.

    On a CPU batches of one size share the memory of the rows. With S ``shards`` the rows come from
    S parts in turn (:func:`random_order`); ``by_part`` those of each part are brought together in a
    batch. Batches may then differ by a few rows.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    length, left, more = extra_rows(size, count, shards)
    used = count * length
    main = jax.tree.map(lambda x: reshaped(x, (count, length, *x.shape[1:]), used), data)
    shards = shards if by_part else 1
    if shards > 1:
        main = jax.tree.map(lambda x: _swapped(x, (-1, shards)), main)
    if left == 0:
        return FixedPartition(main, shards=shards)
    rest = jax.tree.map(lambda x: x[used:].reshape(left, more, *x.shape[1:]), data)
    return FixedPartition(main, rest, shards)


def _swapped(x: jax.Array, table: tuple[int, int]) -> jax.Array:
    """Return batches (M, b, ...) whose rows, written as a table, are read column by column."""
    parts = np.asarray(x).reshape(len(x), *table, *x.shape[2:])
    return from_numpy(np.moveaxis(parts, 2, 1).reshape(x.shape), x.dtype)


def joined(feed: FixedPartition) -> tuple:
    """Return the rows of all batches together: what :func:`cut` cut, perhaps in another order."""
    main = feed.main
    if feed.shards > 1:
        main = jax.tree.map(lambda x: _swapped(x, (feed.shards, -1)), main)
    rows = jax.tree.map(lambda x: reshaped(x, (-1, *x.shape[2:])), main)
    if feed.extra is None:
        return rows
    flat = lambda x: reshaped(x, (-1, *x.shape[2:]))  # noqa: E731
    return jax.tree.map(lambda a, b: jnp.concatenate([a, flat(b)]), rows, feed.extra)


def head(feed: FixedPartition, rows: int) -> FixedPartition:
    """Return smaller batches for estimates: the first ``rows`` rows of each batch."""
    if jax.default_backend() != "cpu":
        return FixedPartition(jax.tree.map(lambda x: x[:, :rows], feed.main))
    return FixedPartition(jax.tree.map(lambda x: from_numpy(np.asarray(x)[:, :rows]), feed.main))


def minibatches(feed: FixedPartition, rows: int, most: int) -> FixedPartition:
    """Return batches of ``rows`` rows cut from those of a feed, from each equally many.

    There are at most ``most`` of them, but one from each batch at least; a batch of fewer rows
    stays whole.
    """
    size = jax.tree.leaves(feed.main)[0].shape[1]
    each = int(np.clip(most // feed.num_batches, 1, max(1, size // rows)))
    cut_rows = head(feed, each * min(rows, size))
    count = each * feed.num_batches
    return FixedPartition(jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[2:]), cut_rows.main))


def first_batches(feed: FixedPartition, count: int) -> FixedPartition:
    """Return the first ``count`` batches, or all if they are fewer."""
    if count >= feed.num_batches:
        return feed
    take = lambda x: reshaped(x, (count, *x.shape[1:]), count)  # noqa: E731
    return FixedPartition(jax.tree.map(take, feed.main))
