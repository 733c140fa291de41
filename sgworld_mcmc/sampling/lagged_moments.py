"""Accumulate the lagged moments of a chain at every step, in a bounded number of blocks.

Thinning and rare draws then lose nothing of what a test of detailed balance or the mean entropy
production needs: `sgworld_mcmc.nonequilibrium.recorded_moments` reads the result. The length of a
run need not be known: when all blocks are full, neighbours are joined and blocks become twice as
long.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.protocols import ArrayLikeTree

__all__ = [
    "MAX_COORDINATES",
    "BlockMoments",
    "BlockSums",
    "OpenSums",
    "absorb",
    "add",
    "begin",
    "init",
    "update",
]

# Largest number of coordinates, and number of blocks. Moments are blocks x D x D numbers: with 32
# coordinates and 64 blocks half a MB for each chain.
MAX_COORDINATES = 32
NUM_BLOCKS = 64
# Largest number of positions that a record can hold: their numbers are int32.
_MOST_UPDATES = 2**30


class BlockSums(NamedTuple):
    """Sums over successive pairs (x_k, x_{k+1}) of each block.

    Attributes
    ----------
    pairs
        (blocks,) number of pairs, int32; 0 for blocks that are not yet begun.
    starts
        (blocks, D) x_k of the first pair.
    sums
        (blocks, D) sum of x_k.
    squares
        (blocks, D, D) sum of x_k x_k^T.
    moved
        (blocks, D, D) sum of x_k (x_{k+1} - x_k)^T. For small steps this is much smaller than
        the sum of x_k x_{k+1}^T, and so are its rounding errors.
    """

    pairs: jax.Array
    starts: jax.Array
    sums: jax.Array
    squares: jax.Array
    moved: jax.Array


class BlockMoments(NamedTuple):
    """The record of a chain; with several chains every field has a leading chain axis.

    Attributes
    ----------
    count
        Number of positions seen, int32.
    center
        (D,) origin: x is the position minus this.
    previous
        (D,) the last x.
    blocks
        The sums, :class:`BlockSums`.
    """

    count: jax.Array
    center: jax.Array
    previous: jax.Array
    blocks: BlockSums


class OpenSums(NamedTuple):
    """The sums over some steps before they join a block, with fields as in `BlockSums`."""

    count: jax.Array
    previous: jax.Array
    pairs: jax.Array
    start: jax.Array
    total: jax.Array
    square: jax.Array
    moved: jax.Array


def init(
    position: ArrayLikeTree,
    center: ArrayLikeTree | None = None,
    *,
    chains: bool = False,
    num_blocks: int = NUM_BLOCKS,
) -> BlockMoments:
    """Return an empty record, for the positions that :func:`update` is then called with.

    Parameters
    ----------
    position
        Pytree of floating-point arrays, of at most 32 numbers in all for each chain.
    center
        A position of one chain, roughly where the chain will be, so that the sums do not lose
        digits. Default: the position, or its mean over the chains.
    chains
        Whether leaves have a leading axis of chains. Then call `update` with all chains at once
        rather than under ``jax.vmap``, which would make it move all blocks at every step.
    num_blocks
        Number of blocks, even. At least half of them are in use once there are as many positions.

    Raises
    ------
    ValueError
        If a position has more than 32 numbers, which must be projected first.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from sgworld_mcmc.sampling import lagged_moments as moments
    >>> record = moments.init(jnp.zeros(2))
    >>> path = jax.random.normal(jax.random.key(0), (100, 2))
    >>> record, _ = jax.lax.scan(lambda r, x: (moments.update(r, x), None), record, path)
    >>> int(record.count), int(record.blocks.pairs.sum())
    (100, 99)
    """
    check_integer("num_blocks", num_blocks, 2)
    if num_blocks % 2:
        raise ValueError(f"`num_blocks` must be even, not {num_blocks}: neighbours are joined.")
    flat = _flatten(position, chains)
    one = jnp.mean(flat, axis=0) if chains else flat
    if one.size > MAX_COORDINATES:
        raise ValueError(
            f"`position` has {one.size} numbers; moments of at most {MAX_COORDINATES} are recorded "
            "(memory grows with their square). Pass some of them, or a projection such as "
            "components.T @ position."
        )
    origin = one if center is None else _flatten(center, False)
    record = empty(jnp.asarray(origin, flat.dtype), num_blocks)
    if not chains:
        return record
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (len(flat), *x.shape)), record)


def update(record: BlockMoments, position: ArrayLikeTree) -> BlockMoments:
    """Record one more position, in the body of a scan over the steps of any kernel."""
    chains = record.count.ndim > 0
    flat = _flatten(position, chains)
    one = lambda record, x, number: absorb(record, add(begin(record), x, record.center), number)  # noqa: E731
    if not chains:
        return one(record, flat, record.count)
    # The counter that all chains share is not batched, so that joining blocks stays a branch.
    return jax.vmap(one, in_axes=(0, 0, None))(record, flat, record.count[0])


def empty(center: jax.Array, num_blocks: int = NUM_BLOCKS) -> BlockMoments:
    """Return an empty record of one chain about ``center`` (D,)."""
    dim, dtype = center.size, center.dtype
    blocks = BlockSums(
        jnp.zeros(num_blocks, jnp.int32),
        jnp.zeros((num_blocks, dim), dtype),
        jnp.zeros((num_blocks, dim), dtype),
        jnp.zeros((num_blocks, dim, dim), dtype),
        jnp.zeros((num_blocks, dim, dim), dtype),
    )
    return BlockMoments(jnp.zeros((), jnp.int32), center, jnp.zeros_like(center), blocks)


def begin(record: BlockMoments) -> OpenSums:
    """Return sums over no pairs, which continue from the record's last position."""
    vector = jnp.zeros_like(record.previous)
    matrix = jnp.outer(vector, vector)
    none = jnp.zeros((), jnp.int32)
    return OpenSums(record.count, record.previous, none, record.previous, vector, matrix, matrix)


def add(sums: OpenSums, position: jax.Array, center: jax.Array) -> OpenSums:
    """Add the step to ``position`` (D,); the very first position makes no step."""
    x = position - center
    fresh = sums.count == 0
    at = jnp.where(fresh, 0, sums.previous)
    step = jnp.where(fresh, 0, x - sums.previous)
    return OpenSums(
        sums.count + 1,
        x,
        sums.pairs + ~fresh,
        jnp.where(fresh, x, sums.start),
        sums.total + at,
        sums.square + at[:, None] * at,
        sums.moved + at[:, None] * step,
    )


def absorb(record: BlockMoments, sums: OpenSums, number: jax.Array) -> BlockMoments:
    """Add sums to the block in use, after ``number`` (int32) of them have been added before."""
    capacity = record.blocks.pairs.shape[0]
    doublings = (_MOST_UPDATES // capacity).bit_length() - 1
    full = capacity * 2 ** jnp.arange(doublings, dtype=jnp.int32)
    blocks = jax.lax.cond(jnp.any(number == full), _join, lambda b: b, record.blocks)
    index = number >> jnp.sum(number >= full)
    start = jnp.where(blocks.pairs[index] == 0, sums.start, blocks.starts[index])
    blocks = BlockSums(
        blocks.pairs.at[index].add(sums.pairs),
        blocks.starts.at[index].set(start),
        blocks.sums.at[index].add(sums.total),
        blocks.squares.at[index].add(sums.square),
        blocks.moved.at[index].add(sums.moved),
    )
    return BlockMoments(sums.count, record.center, sums.previous, blocks)


def _join(blocks: BlockSums) -> BlockSums:
    """Return the blocks with neighbours joined: half as many, followed by as many empty ones."""
    paired = lambda x: x.reshape(-1, 2, *x.shape[1:])  # noqa: E731
    pad = lambda x: jnp.concatenate([x, jnp.zeros_like(x)])  # noqa: E731
    starts, pairs = paired(blocks.starts), paired(blocks.pairs)
    begun = pairs[:, :1] > 0
    return BlockSums(
        pad(pairs.sum(1, dtype=pairs.dtype)),
        pad(jnp.where(begun, starts[:, 0], starts[:, 1])),
        *(pad(paired(x).sum(1)) for x in (blocks.sums, blocks.squares, blocks.moved)),
    )


def _flatten(position: ArrayLikeTree, chains: bool) -> jax.Array:
    """Return a pytree as one array (D,), or (chains, D)."""
    leaves = [jnp.asarray(x) for x in jax.tree.leaves(position)]
    shape = lambda x: (x.shape[0], -1) if chains else (-1,)  # noqa: E731
    flat = jnp.concatenate([x.reshape(shape(x)) for x in leaves], axis=-1)
    return flat if jnp.issubdtype(flat.dtype, jnp.floating) else flat.astype(float)
