"""The rows of all streamed arguments together."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.in_memory import aligned
from sgworld_mcmc.streaming.source import Source, SourceError, StreamedArray

__all__ = ["Rows", "Speed"]


class Speed(NamedTuple):
    """How many rows were read, and in how many seconds."""

    rows: int = 0
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        """Rows a second; infinite if nothing was read."""
        return self.rows / self.seconds if self.seconds else np.inf


class Rows:
    """The data leaves of a model, of which any range of rows can be read.

    Parameters
    ----------
    leaves
        The streamed arguments that are data, in the order of the model's layout.
    double
        Whether the numbers are kept in double precision.
    """

    def __init__(self, leaves: tuple[StreamedArray, ...], double: bool) -> None:
        self.leaves, self.double = leaves, double
        self.size = len(leaves[0])
        self.speed, self._lock = Speed(), threading.Lock()
        self._sources: dict[int, Source] = {id(x.source): x.source for x in leaves}
        with jax.enable_x64(double):
            self.dtypes = tuple(jax.dtypes.canonicalize_dtype(x.dtype) for x in leaves)

    @property
    def row_bytes(self) -> int:
        """Number of bytes of a row in memory."""
        each = zip(self.leaves, self.dtypes, strict=True)
        return sum(int(np.prod(x.shape[1:], dtype=int)) * dtype.itemsize for x, dtype in each)

    def empty(self, rows: int) -> tuple[np.ndarray, ...]:
        """Return memory for so many rows, which JAX need not copy on a CPU."""
        each = zip(self.leaves, self.dtypes, strict=True)
        return tuple(aligned((rows, *x.shape[1:]), dtype) for x, dtype in each)

    def read(self, start: int, stop: int, out: tuple, places: Any = None) -> None:
        """Read rows into arrays.

        Parameters
        ----------
        start, stop
            The range of rows.
        out
            Arrays to write to, one for each leaf.
        places
            The place in ``out`` of each of the rows; None for the first places, in order.

        Raises
        ------
        SourceError
            If a source fails, or gives other rows than it should; the message names the argument.
        """
        with self._lock:
            found = {number: self._from(source, start, stop) for number, source in self._sources.items()}
        for leaf, array in zip(self.leaves, out, strict=True):
            rows = np.asarray(found[id(leaf.source)][leaf.column])
            if rows.shape != (stop - start, *leaf.shape[1:]):
                raise SourceError(
                    f"`{leaf.name}` gave an array {rows.shape} for the rows {start} to {stop - 1}, "
                    f"not {(stop - start, *leaf.shape[1:])}: has the file been cut short?"
                )
            if places is None:
                array[: stop - start] = rows
            else:
                array[places] = rows

    def _from(self, source: Source, start: int, stop: int) -> dict[str, Any]:
        try:
            return source.read(start, stop)
        except Exception as error:
            names = [leaf.name for leaf in self.leaves if leaf.source is source]
            raise SourceError(
                f"The rows {start} to {stop - 1} of {', '.join(f'`{n}`' for n in names)} could not "
                f"be read: {type(error).__name__}: {error}"
            ) from error

    def check_finite(self, start: int, arrays: tuple) -> None:
        """Raise if a row among those read from ``start`` on is not finite; name argument and row."""
        for leaf, array in zip(self.leaves, arrays, strict=True):
            if array.dtype.kind not in "fc":
                continue
            with np.errstate(all="ignore"):
                if np.isfinite(array.sum()):
                    continue
            wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if wrong.any():
                row = start + int(wrong.argmax())
                raise ValueError(
                    f"`{leaf.name}` has NaN or infinity in row {row} (and in {int(wrong.sum()) - 1}"
                    f" more of the {len(array)} rows read with it). Remove or impute these rows: "
                    "the log density would not be finite."
                )

    def pieces(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of ``length`` rows that cover all of them in order."""
        for start in range(0, self.size, length):
            yield start, min(start + length, self.size)
