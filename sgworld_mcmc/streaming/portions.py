"""The loop's side of streaming: which chunk the chains are in, and how many calls it still has."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.streaming.chunks import Chunks
from sgworld_mcmc.streaming.grid import Grid
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["Portions", "Stream"]


class Stream(NamedTuple):
    """Streamed rows, and how a run visits them.

    Attributes
    ----------
    rows, grid
        The rows, and how they are cut.
    shuffled
        Whether the rows of each chunk are shuffled before they are cut into batches.
    """

    rows: Rows
    grid: Grid
    shuffled: bool


class Portions:
    """A compiled program, called with the data of one chunk after the other.

    Parameters
    ----------
    program
        Function of (state, buffers, slot, turns, before, calls) and of ``args``.
    data
        The data of a run, with any chunk for their feed.
    stream
        The rows.
    state
        The state of the chains, which says where in the file they are.
    """

    def __init__(self, program: Callable, data: Any, stream: Stream, state: Any) -> None:
        self._program, self._data, self._grid = program, data, stream.grid
        step, seed = int(np.ravel(state.step)[0]), np.asarray(state.dealing).reshape(-1, 2)[0]
        number, inside = divmod(step, stream.grid.batches)
        self._made = inside // stream.grid.call
        self._chunks = Chunks(stream.rows, stream.grid, stream.shuffled, seed, number)
        self._fresh = True

    @property
    def each(self) -> int:
        """Number of calls of the kernel in a chunk."""
        return self._grid.batches // self._grid.call

    def most(self) -> int:
        """Return the number of calls left in the chunk; read the next chunk if there are none.

        The last call must be complete: the memory of its chunk is used again.
        """
        if self._made == self.each:
            self._made, self._fresh = 0, True
        if self._fresh:
            chunk = self._chunks.next()
            self._data = replace(self._data, feed=chunk)
            self._fresh = False
            count_rows(self._grid.chunk_rows)
        return self.each - self._made

    def __call__(self, state, buffers, slot, turns, before, calls):
        self.most()
        self._made += int(turns) * int(calls) + int(before)
        return self._program(state, buffers, slot, turns, before, calls, args=(self._data,))

    def close(self) -> None:
        """Read no more."""
        self._chunks.close()
