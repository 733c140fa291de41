"""The rows of all streamed arguments together."""

import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.in_memory import aligned
from sgworld_mcmc.model.number_arrays import does_not_fit
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

    Attributes
    ----------
    rows_read
        Number of rows that were read so far.
    """

    def __init__(self, leaves: tuple[StreamedArray, ...], double: bool) -> None:
        self.leaves, self.double = leaves, double
        self.size = len(leaves[0])
        self.rows_read, self._lock = 0, threading.Lock()
        self._sources: dict[int, Source] = {id(x.source): x.source for x in leaves}
        with jax.enable_x64(double):
            self.dtypes = tuple(jax.dtypes.canonicalize_dtype(x.dtype) for x in leaves)

    def again(self, double: bool) -> "Rows":
        """Return the same rows in double precision or in single."""
        return Rows(self.leaves, double)

    def place(self, row: int) -> int:
        """Return the number that a row has in the sources."""
        return row

    @property
    def row_bytes(self) -> int:
        """Number of bytes of a row in memory."""
        each = zip(self.leaves, self.dtypes, strict=True)
        return sum(int(np.prod(x.shape[1:], dtype=int)) * dtype.itemsize for x, dtype in each)

    def empty(self, rows: int) -> tuple[np.ndarray, ...]:
        """Return memory for so many rows, which JAX need not copy on a CPU."""
        each = zip(self.leaves, self.dtypes, strict=True)
        return tuple(aligned((rows, *x.shape[1:]), dtype) for x, dtype in each)

    def read(self, start: int, stop: int, out: tuple) -> None:
        """Read rows into the first places of arrays.

        Parameters
        ----------
        start, stop
            The range of rows.
        out
            Arrays to write to, one for each leaf.

        Raises
        ------
        SourceError
            If a source fails, or gives other rows than it should; the message names the argument.
        """
        if self._read_into(start, stop, out):
            return
        with self._lock:
            self.rows_read += stop - start
            found = {
                number: self._from(source, start, stop) for number, source in self._sources.items()
            }
        for leaf, array in zip(self.leaves, out, strict=True):
            rows = np.asarray(found[id(leaf.source)][leaf.column])
            if rows.shape != (stop - start, *leaf.shape[1:]):
                raise SourceError(
                    f"`{leaf.name}` gave an array {rows.shape} for the rows {start} to {stop - 1}, "
                    f"not {(stop - start, *leaf.shape[1:])}: has the file been cut short?"
                )
            wide = does_not_fit(rows, array.dtype)
            if wide.any():
                first = start + int(wide.reshape(len(wide), -1).any(1).argmax())
                raise SourceError(
                    f"`{leaf.name}` has integers of more than 32 bits, in row {self.place(first)} "
                    "for instance, which JAX would wrap. Store the column in floating point "
                    "(.astype(float)), or set jax_enable_x64."
                )
            array[: stop - start] = rows

    def expect(self, start: int, stop: int) -> None:
        """Tell the sources that a range of rows will be read soon."""
        for source in self._sources.values():
            source.expect(start, stop)

    def _read_into(self, start: int, stop: int, out: tuple) -> bool:
        """Read rows straight into the arrays; return whether all sources could do so."""
        given: dict[int, dict] = {number: {} for number in self._sources}
        for leaf, array in zip(self.leaves, out, strict=True):
            given[id(leaf.source)][leaf.column] = array[: stop - start]
        with self._lock:
            for number, source in self._sources.items():
                try:
                    if not source.read_into(start, stop, given[number]):
                        return False
                except Exception as error:
                    raise self._error(source, start, stop, error) from error
            self.rows_read += stop - start
        return True

    def _from(self, source: Source, start: int, stop: int) -> dict[str, Any]:
        try:
            return source.read(start, stop)
        except Exception as error:
            raise self._error(source, start, stop, error) from error

    def _error(self, source: Source, start: int, stop: int, error: Exception) -> SourceError:
        names = ", ".join(f"`{leaf.name}`" for leaf in self.leaves if leaf.source is source)
        return SourceError(
            f"The rows {start} to {stop - 1} of {names} could not be read: "
            f"{type(error).__name__}: {error}"
        )

    def check_finite(self, start: int, arrays: tuple, *, again: bool = False) -> None:
        """Raise if a row, of those read from ``start`` on, is not finite; name both.

        Parameters
        ----------
        start
            Number of the first row.
        arrays
            The rows, as :meth:`read` has given them.
        again
            Whether the rows were finite before, when the run was set up.

        Raises
        ------
        ValueError
            If a row is not finite.
        SourceError
            If it was before: the source has changed during the run, whose draws are kept then.
        """
        for leaf, array in zip(self.leaves, arrays, strict=True):
            if array.dtype.kind not in "fc":
                continue
            with np.errstate(all="ignore"):
                if np.isfinite(array.sum()):
                    continue
            wrong = ~np.isfinite(array).reshape(len(array), -1).all(axis=1)
            if not wrong.any():
                continue
            found = (
                f"`{leaf.name}` has NaN or infinity in row "
                f"{self.place(start + int(wrong.argmax()))} (and in "
                f"{int(wrong.sum()) - 1} more of the {len(array)} rows read with it)"
            )
            if again:
                raise SourceError(
                    f"{found}, which was finite when the run was set up: its source has changed "
                    "since. Restore it; a source must stay as it is as long as it is sampled"
                )
            raise ValueError(
                f"{found}. Remove or impute these rows: the log density would not be finite."
            )

    def total(self, tree: Any) -> Any:
        """Return sums over all rows, from sums over those that this process has read."""
        return tree

    def pieces(self, length: int) -> Iterator[tuple[int, int]]:
        """Yield ranges of ``length`` rows that cover all of them in order."""
        for start in range(0, self.size, length):
            yield start, min(start + length, self.size)
