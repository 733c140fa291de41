"""Read the chunks of epoch after epoch, by a thread, while the chains use earlier ones."""

import queue
from collections.abc import Iterator
from itertools import count

import jax
import numpy as np

from sgworld_mcmc.streaming.chunk import StreamedChunk
from sgworld_mcmc.streaming.grid import Grid
from sgworld_mcmc.streaming.read_ahead import ReadAhead
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["BUFFERS", "Chunks", "first_chunk"]

# Chunks in memory: one that the chains are in, one that is ready, and one that is being read. Where
# rows are shuffled, they are read into the memory of one more.
CHUNKS = 3
BUFFERS = CHUNKS + 1


class Chunks:
    """The chunks of a run, from a given one on.

    Which rows are in a chunk depends on the seed and the number of the chunk only, so that a run
    can go on where another one has ended.

    Parameters
    ----------
    rows, grid
        The rows, and how they are cut.
    shuffled
        Whether the rows of a chunk are shuffled before they are cut into batches, so that every
        epoch has new batches. Else a batch is a range of rows, the same in all epochs.
    seed
        Integers that decide all orders.
    first
        Number of the first chunk, counted through all epochs.
    """

    def __init__(
        self, rows: Rows, grid: Grid, shuffled: bool, seed: np.ndarray, first: int = 0
    ) -> None:
        self._rows, self._grid, self._shuffled = rows, grid, shuffled
        self._seed, self._first = [int(x) for x in seed], first
        self._free: queue.SimpleQueue = queue.SimpleQueue()
        self._held = None
        self._closed = False
        for _ in range(CHUNKS):
            self._free.put(None)  # memory is taken when it is needed
        self._ahead = ReadAhead(self._read_all, depth=1)

    def next(self) -> StreamedChunk:
        """Return the next chunk. The memory of the last one is used again: nobody may read it."""
        if self._held is not None:
            self._free.put(self._held)
            self._held = None
        chunk, self._held = next(self._ahead)
        return chunk

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._ahead.close()

    def _read_all(self) -> Iterator[tuple]:
        with jax.enable_x64(self._rows.double):  # threads do not inherit it
            spared = self._shuffled or self._grid.ragged
            self._spare = self._rows.empty(_room(self._grid)) if spared else ()
            self._expect(self._first)
            for number in count(self._first):
                memory = self._memory()
                if memory is None:
                    return
                # The disk works on the next chunk while this one is copied and shuffled.
                self._expect(number + 1)
                yield self._chunk(number, memory), memory

    def _memory(self) -> tuple | None:
        """Return memory for a chunk when there is some; None when the chunks are closed."""
        while not self._closed:
            try:
                memory = self._free.get(timeout=0.1)
            except queue.Empty:
                continue
            return self._rows.empty(_room(self._grid)) if memory is None else memory
        return None

    def _expect(self, number: int) -> None:
        for block in self._blocks(number):
            edges = self._grid.edges(int(block))
            self._rows.expect(int(edges[0]), int(edges[-1]))

    def _chunk(self, number: int, memory: tuple) -> StreamedChunk:
        epoch, place = divmod(number, self._grid.chunks)
        shuffle = self._generator(epoch, place + 1) if self._shuffled else None
        blocks = self._blocks(number)
        return _filled(self._rows, self._grid, blocks, memory, self._spare, shuffle)

    def _blocks(self, number: int) -> np.ndarray:
        """Return the blocks of a chunk, in the order of the file."""
        epoch, place = divmod(number, self._grid.chunks)
        order = self._generator(epoch).permutation(self._grid.num_blocks)
        width = self._grid.blocks
        return np.sort(order[place * width : (place + 1) * width])

    def _generator(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, *numbers])


def first_chunk(rows: Rows, grid: Grid) -> StreamedChunk:
    """Return the chunk of the first blocks of the file, whose shapes are those of all chunks."""
    memory, spare = (rows.empty(_room(grid)) for _ in range(2))
    with jax.enable_x64(rows.double):
        return _filled(rows, grid, np.arange(grid.blocks), memory, spare, None)


def _room(grid: Grid) -> int:
    """Return the largest number of rows of a chunk."""
    return grid.batches * (grid.batch_size + grid.ragged)


def _filled(
    rows: Rows,
    grid: Grid,
    blocks: np.ndarray,
    memory: tuple,
    spare: tuple,
    shuffle: np.random.Generator | None,
) -> StreamedChunk:
    """Read blocks into memory, whose first m b rows are those that all batches have.

    Rows that do not stay in the order of the file are read into spare memory, and copied.
    """
    size, total = grid.batch_size, grid.batches * grid.batch_size
    edges = [grid.edges(int(block)) for block in blocks]
    longer, done = np.concatenate([np.diff(edge) for edge in edges]) > size, 0
    order = _places(grid, longer, shuffle)
    for edge in edges:
        start, stop = int(edge[0]), int(edge[-1])
        read = tuple(x[done:] for x in (memory if order is None else spare))
        rows.read(start, stop, read)
        # To add numbers up takes no longer than to copy them, and far less than a disk does.
        rows.check_finite(start, tuple(x[: stop - start] for x in read), again=True)
        done += stop - start
    if order is not None:
        # To gather rows takes half the time of scattering them.
        for x, out in zip(spare, memory, strict=True):
            np.take(x, order, axis=0, out=out, mode="clip")

    def put(x, first, last, shape):
        return jax.device_put(x[first:last].reshape(*shape, *x.shape[1:]), may_alias=True)

    main = tuple(put(x, 0, total, (grid.batches, size)) for x in memory)
    extra = has_extra = None
    if grid.ragged:
        extra = tuple(put(x, total, total + grid.batches, (grid.batches, 1)) for x in memory)
        has_extra = jax.device_put(longer)
    # On a device the copy must be complete before the memory is used again.
    main, extra = jax.block_until_ready((main, extra))
    return StreamedChunk(main, extra, has_extra, grid.size, grid.num_batches)


def _places(
    grid: Grid, longer: np.ndarray, shuffle: np.random.Generator | None
) -> np.ndarray | None:
    """Return which of the rows that were read comes to each place; None if they stay in order."""
    if not grid.ragged:
        return None if shuffle is None else shuffle.permutation(grid.batches * grid.batch_size)
    count = grid.batches * grid.batch_size + int(longer.sum())
    order = np.arange(count) if shuffle is None else shuffle.permutation(count)
    # A batch has its rows, and perhaps one more that lies behind those of all batches.
    used = np.ones((grid.batches, grid.batch_size + 1), bool)
    used[:, -1] = longer
    table = np.zeros(used.shape, np.int64)
    table[used] = order
    return np.concatenate([table[:, :-1].ravel(), table[:, -1]])
