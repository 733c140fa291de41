"""Streamed rows without a few of them, which are elsewhere."""

import numpy as np

from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import StreamedArray

__all__ = ["RowsWithout"]


class RowsWithout(Rows):
    """The rows of a file but a few, numbered as if these were not there.

    Parameters
    ----------
    leaves, double
        As for :class:`~sgworld_mcmc.streaming.rows.Rows`.
    few
        Numbers (k,) of the rows to leave out, in ascending order.
    """

    def __init__(self, leaves: tuple[StreamedArray, ...], double: bool, few: np.ndarray) -> None:
        super().__init__(leaves, double)
        self.few = np.asarray(few)
        self.size -= len(self.few)

    def again(self, double: bool) -> Rows:
        return RowsWithout(self.leaves, double, self.few)

    def place(self, row: int) -> int:
        before = self.few - np.arange(len(self.few)) <= row
        return row + int(before.sum())

    def read(self, start: int, stop: int, out: tuple) -> None:
        first, last = self.place(start), self.place(stop - 1) + 1
        if last - first == stop - start:
            return super().read(first, last, out)
        memory = self.empty(last - first)
        super().read(first, last, memory)
        inside = self.few[(self.few >= first) & (self.few < last)] - first
        for x, array in zip(memory, out, strict=True):
            array[: stop - start] = np.delete(x, inside, axis=0)
        return None

    def expect(self, start: int, stop: int) -> None:
        super().expect(self.place(start), self.place(stop - 1) + 1)
