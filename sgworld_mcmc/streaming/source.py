"""The protocol of a source of rows, and the arguments of a model that stand for its columns."""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Column", "Source", "SourceError", "StreamedArray"]


class SourceError(RuntimeError):
    """A source of rows could not be read."""


class Column(NamedTuple):
    """The shape (...) and type of what one row has in a column."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def nbytes(self) -> int:
        """Number of bytes of a row."""
        return int(np.prod(self.shape, dtype=int)) * self.dtype.itemsize


class Source(ABC):
    """N rows on a disk, in one or several columns, of which any range can be read.

    Two threads never read from a source at the same time.

    Attributes
    ----------
    columns
        The columns by name.
    size
        Number of rows N.
    """

    columns: dict[str, Column]
    size: int

    @abstractmethod
    def read(self, start: int, stop: int) -> dict[str, Any]:
        """Return the rows from ``start`` to before ``stop``: an array (rows, ...) by column."""

    def read_into(self, start: int, stop: int, out: dict[str, np.ndarray]) -> bool:
        """Read rows into the memory of contiguous arrays of the columns' types, if that is faster.

        Return False if the source cannot do that: :meth:`read` is then called.
        """
        return False

    def expect(self, start: int, stop: int) -> None:
        """Be told that rows will be read soon: a disk can begin with them. Nothing by default."""
        return

    def whole(self) -> dict[str, np.ndarray]:
        """Return all rows of all columns, read."""
        return {name: np.ascontiguousarray(x) for name, x in self.read(0, self.size).items()}


class StreamedArray:
    """An argument of a model that is a column of a source, of which only parts are ever read.

    Attributes
    ----------
    name
        The name of the argument, for messages.
    source, column
        Where the rows come from.
    origin
        The user's own object. Two of these are equal if it is the same, or the same array of the
        same open file.
    """

    def __init__(self, name: str, source: Source, column: str, origin: Any) -> None:
        self.name, self.source, self.column, self.origin = name, source, column, origin
        self._key = (*_place_of(origin), column)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape (N, ...) of the whole array."""
        return (self.source.size, *self.source.columns[self.column].shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers."""
        return self.source.columns[self.column].dtype

    @property
    def nbytes(self) -> int:
        """Number of bytes of the whole array."""
        return self.source.size * self.source.columns[self.column].nbytes

    def __len__(self) -> int:
        return self.source.size

    def __eq__(self, other: object) -> bool:
        return isinstance(other, StreamedArray) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"StreamedArray({self.name}, shape={self.shape}, dtype={self.dtype})"


def _place_of(origin: Any) -> tuple:
    """Return what tells the arrays of files apart: libraries make a new object at every look."""
    library = type(origin).__module__.partition(".")[0]
    if library == "h5py":
        return library, hash(origin)
    if library == "zarr":
        return library, str(origin.store_path)
    return "object", id(origin)
