"""How a file of rows is cut into blocks, chunks and batches.

A *block* is a contiguous range of rows, which a disk reads in one go. A *chunk* is what is in
memory at a time: several blocks from anywhere in the file. An epoch visits all blocks in a fresh
random order, chunk after chunk, and in each chunk every batch once. Each row belongs to exactly one
block, so that an epoch visits each row exactly once, whatever the order.
"""

from math import lcm
from typing import NamedTuple

import numpy as np

__all__ = ["Grid", "make_grid"]

# A chunk has this many blocks, or a smaller power of two: rows of so many places are in memory
# together, and a block is still long enough that a disk reads it at its sequential rate.
BLOCKS = 16
# An epoch has at least this many chunks, if it has as many batches.
FEWEST_CHUNKS = 4
# Numbers of chunks and batches that are tried for batches of one size.
TRIES = 400


class Grid(NamedTuple):
    """The cut of N rows into C chunks of m batches.

    Attributes
    ----------
    size
        Number of rows N.
    chunks
        Number of chunks C in an epoch.
    batches
        Number of batches m in a chunk.
    blocks
        Number of blocks in a chunk; it divides m.
    call
        Number of steps of one call of the kernel; it divides m.
    """

    size: int
    chunks: int
    batches: int
    blocks: int
    call: int

    @property
    def num_batches(self) -> int:
        """Number of batches M in an epoch."""
        return self.chunks * self.batches

    @property
    def num_blocks(self) -> int:
        """Number of blocks of the file."""
        return self.chunks * self.blocks

    @property
    def batch_size(self) -> int:
        """Number of rows that all batches have; some have one more if :attr:`ragged`."""
        return self.size // self.num_batches

    @property
    def ragged(self) -> bool:
        """Whether some batches have one row more than others."""
        return self.size % self.num_batches > 0

    @property
    def chunk_rows(self) -> float:
        """Mean number of rows of a chunk."""
        return self.size / self.chunks

    @property
    def block_rows(self) -> float:
        """Mean number of rows of a block."""
        return self.size / self.num_blocks

    def edges(self, block: int) -> np.ndarray:
        """Return the numbers of the rows at which the batches of a block begin, and its end.

        Examples
        --------
        >>> Grid(size=10, chunks=2, batches=2, blocks=1, call=1).edges(1)
        array([ 5,  7, 10])
        """
        each = self.batches // self.blocks
        batches = block * each + np.arange(each + 1, dtype=np.int64)
        return batches * self.size // self.num_batches


def make_grid(
    size: int, batch_size: int, steps_per_draw: int, chunk_rows: int, *, fixed: bool = False
) -> tuple[Grid, int]:
    """Cut rows into chunks at whose ends a number of whole kernel calls ends.

    Parameters
    ----------
    size, batch_size
        Number of rows N, and the most rows that a batch should have.
    steps_per_draw
        Number of steps of a draw. Whole epochs stay whole epochs.
    chunk_rows
        The most rows that a chunk should have.
    fixed
        Whether the number of steps may not be changed. Else draws of several chunks are made a
        little longer, so that they end with one.

    Returns
    -------
    tuple
        The grid, and the number of steps of a draw, a multiple of its ``call``.

    Examples
    --------
    >>> grid, steps = make_grid(10**8, 10, 5, 800_000)
    >>> grid.chunks, grid.batches, grid.ragged, steps
    (125, 80000, False, 5)
    """
    count = -(-size // batch_size)
    most = max(1, min(chunk_rows // batch_size, count // FEWEST_CHUNKS))
    epochs = steps_per_draw // count if steps_per_draw % count == 0 else 0
    call = 1
    if not epochs:
        call = steps_per_draw
        if call > most and fixed:
            call = max(d for d in range(1, most + 1) if steps_per_draw % d == 0)
        elif call > most:
            parts = -(-steps_per_draw // most)
            call = -(-steps_per_draw // parts)
            steps_per_draw = parts * call
    blocks = BLOCKS
    while blocks > 1 and lcm(call, blocks) > most:
        blocks //= 2
    unit = lcm(call, blocks)
    chunks, batches = _even(size, batch_size, unit, most // unit)
    grid = Grid(size, chunks, batches, blocks, batches if epochs else call)
    return grid, epochs * grid.num_batches if epochs else steps_per_draw


def _even(size: int, batch_size: int, unit: int, most: int) -> tuple[int, int]:
    """Return numbers of chunks and batches, such that all batches have one size if possible."""
    first = None
    for units in range(most, max(most // 2, 1) - 1, -1)[:TRIES]:
        batches = units * unit
        chunks = max(1, -(-size // (batches * batch_size)))
        if chunks * batches > size:  # batches have a row at least
            chunks = max(1, size // batches)
        first = first or (chunks, batches)
        for more in range(chunks, chunks + 1 + min(chunks // 50, TRIES // 10)):
            if size % (more * batches) == 0:
                return more, batches
    return first
