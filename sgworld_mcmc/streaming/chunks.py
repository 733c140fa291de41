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

# Chunks in memory: one that the chains are in, one that is ready, and one that is being read.
BUFFERS = 3


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
        for _ in range(BUFFERS):
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
            for number in count(self._first):
                memory = self._memory()
                if memory is None:
                    return
                yield self._chunk(number, memory), memory

    def _memory(self) -> tuple | None:
        """Return memory for a chunk when there is some; None when the chunks are closed."""
        while not self._closed:
            try:
                memory = self._free.get(timeout=0.1)
            except queue.Empty:
                continue
            grid = self._grid
            room = grid.batches * (grid.batch_size + grid.ragged)
            return self._rows.empty(room) if memory is None else memory
        return None

    def _chunk(self, number: int, memory: tuple) -> StreamedChunk:
        epoch, place = divmod(number, self._grid.chunks)
        order = self._generator(epoch).permutation(self._grid.num_blocks)
        width = self._grid.blocks
        blocks = np.sort(order[place * width : (place + 1) * width])
        shuffle = self._generator(epoch, place + 1) if self._shuffled else None
        return _filled(self._rows, self._grid, blocks, memory, shuffle)

    def _generator(self, *numbers: int) -> np.random.Generator:
        return np.random.default_rng([*self._seed, *numbers])


def first_chunk(rows: Rows, grid: Grid) -> StreamedChunk:
    """Return the chunk of the first blocks of the file, whose shapes are those of all chunks."""
    memory = rows.empty(grid.batches * (grid.batch_size + grid.ragged))
    with jax.enable_x64(rows.double):
        return _filled(rows, grid, np.arange(grid.blocks), memory, None)


def _filled(
    rows: Rows, grid: Grid, blocks: np.ndarray, memory: tuple, shuffle: np.random.Generator | None
) -> StreamedChunk:
    """Read blocks into memory, whose first m b rows are those that all batches have."""
    size, total = grid.batch_size, grid.batches * grid.batch_size
    edges = [grid.edges(int(block)) for block in blocks]
    longer = np.concatenate([np.diff(edge) for edge in edges]) > size
    places = None
    if grid.ragged:
        # The place of each row: those of a batch in turn, and then its extra row if it has one.
        main = np.arange(total).reshape(grid.batches, size)
        both = np.concatenate([main, total + np.arange(grid.batches)[:, None]], axis=1)
        places = both[np.concatenate([np.ones(main.shape, bool), longer[:, None]], axis=1)]
    elif shuffle is not None:
        places = np.arange(total)
    if shuffle is not None:
        shuffle.shuffle(places)
    done = 0
    for edge in edges:
        start, stop = int(edge[0]), int(edge[-1])
        if places is None:
            out, where = tuple(x[done:] for x in memory), None
        else:
            out, where = memory, places[done : done + stop - start]
        rows.read(start, stop, out, where)
        done += stop - start

    def put(x, first, last, shape):
        return jax.device_put(x[first:last].reshape(*shape, *x.shape[1:]), may_alias=True)

    main = tuple(put(x, 0, total, (grid.batches, size)) for x in memory)
    extra = has_extra = None
    if grid.ragged:
        extra = tuple(
            put(x, total, total + grid.batches, (grid.batches, 1)) for x in memory
        )
        has_extra = jax.device_put(longer)
    # On a device the copy must be complete before the memory is used again.
    main, extra = jax.block_until_ready((main, extra))
    return StreamedChunk(main, extra, has_extra, grid.size, grid.num_batches)
