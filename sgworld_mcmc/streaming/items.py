"""Data sources of Grain, and any others whose items are single rows, as a source of rows."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from sgworld_mcmc.model.number_arrays import check_values
from sgworld_mcmc.streaming.source import Column, Source

__all__ = ["ItemSource", "is_item_source"]


def is_item_source(value: object) -> bool:
    """Return whether a value has a length and gives, for a number, a row as a dict of fields.

    That is Grain's ``RandomAccessDataSource``; no class of Grain is asked for.
    """
    known = list | tuple | str | bytes | Mapping | np.ndarray
    kind = type(value)
    if isinstance(value, known) or not hasattr(kind, "__getitem__"):
        return False
    # The class is asked: a data set of an HDF5 file that is closed raises an error.
    if not hasattr(kind, "__len__") or hasattr(kind, "dtype") or hasattr(kind, "columns"):
        return False
    try:
        if hasattr(value, "dtype") or hasattr(value, "columns"):
            return False
        return len(value) > 0 and isinstance(value[0], Mapping)
    except Exception:
        return False


class ItemSource(Source):
    """The rows of a random-access data source whose items are dicts by argument name.

    Each row is an object of Python, so that reading takes microseconds a row: where it is too slow,
    write the rows to an array file first.

    Examples
    --------
    >>> class Squares:
    ...     def __len__(self):
    ...         return 10
    ...     def __getitem__(self, index):
    ...         return {"x": float(index), "y": index**2}
    >>> ItemSource(Squares()).read(2, 4)
    {'x': array([2., 3.]), 'y': array([4, 9])}
    """

    def __init__(self, items: Any) -> None:
        self._items, self.size = items, len(items)
        first = {name: np.asarray(value) for name, value in items[0].items()}
        self.columns = {name: Column(x.shape, x.dtype) for name, x in first.items()}
        for name, column in self.columns.items():
            check_values(name, column.dtype)

    def read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        several = getattr(self._items, "__getitems__", None) or getattr(
            self._items, "_getitems", None
        )
        rows = (
            several(range(start, stop))
            if several
            else map(self._items.__getitem__, range(start, stop))
        )
        rows = list(rows)
        try:
            return {
                name: np.stack([np.asarray(row[name], column.dtype) for row in rows])
                if rows
                else np.zeros((0, *column.shape), column.dtype)
                for name, column in self.columns.items()
            }
        except KeyError as error:
            raise ValueError(
                f"a row between {start} and {stop} has no field {error}, which row 0 has"
            ) from error
