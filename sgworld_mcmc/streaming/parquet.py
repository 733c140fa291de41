"""Parquet files as a source of rows, through pyarrow."""

import bisect
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sgworld_mcmc.model.number_arrays import check_values
from sgworld_mcmc.streaming.source import Column, Source

__all__ = ["ParquetSource"]


class ParquetSource(Source):
    """Columns of Parquet files, as the arguments of a model.

    Pass it to ``run`` as the one positional argument after the key. Parquet stores rows in groups
    that can only be read whole: groups of 10 000 to 100 000 rows suit (``row_group_size`` of
    ``pyarrow.parquet.write_table``).

    Parameters
    ----------
    paths
        Path of a file, or of several with the same columns, in order.
    **arguments
        For each argument of the model the name of a column, or a list of names, which become the
        columns of a matrix (N, D) in the common type of their numbers. A column of lists of one
        length (``pyarrow.list_(type, D)``) is a matrix itself. By default every column is the
        argument of its name.

    Raises
    ------
    ImportError
        If pyarrow is not installed.
    ValueError, TypeError
        If there is no such column, or one holds no numbers.

    Examples
    --------
    >>> from sgworld_mcmc import ParquetSource
    >>> data = ParquetSource("rows.parquet", X=["age", "dose"], y="outcome")    # doctest: +SKIP
    >>> SGWORLD(model).run(key, data)                                           # doctest: +SKIP
    """

    def __init__(
        self, paths: str | os.PathLike | Sequence, **arguments: str | Sequence[str]
    ) -> None:
        parquet = _pyarrow_parquet()
        single = isinstance(paths, str | os.PathLike)
        self._files = [parquet.ParquetFile(path) for path in ([paths] if single else paths)]
        schema = self._files[0].schema_arrow
        chosen: Mapping = arguments or {name: name for name in schema.names}
        self._arguments = {
            name: [columns] if isinstance(columns, str) else list(columns)
            for name, columns in chosen.items()
        }
        self._matrices = {name for name, columns in chosen.items() if not isinstance(columns, str)}
        missing = {c for cs in self._arguments.values() for c in cs} - set(schema.names)
        if missing:
            raise ValueError(
                f"The Parquet file has no columns {sorted(missing)}: it has {schema.names[:20]}."
            )
        self._groups, edges = [], [0]
        for file in self._files:
            for group in range(file.metadata.num_row_groups):
                self._groups.append((file, group))
                edges.append(edges[-1] + file.metadata.row_group(group).num_rows)
        self._edges, self.size = edges, edges[-1]
        self._held: tuple[int, dict] | None = None
        first = self._arrays(self._files[0].read_row_groups([], columns=self._names()))
        self.columns = {name: Column(x.shape[1:], x.dtype) for name, x in first.items()}
        for name, column in self.columns.items():
            check_values(name, column.dtype)

    def read(self, start: int, stop: int) -> dict[str, np.ndarray]:
        parts, group = [], bisect.bisect_right(self._edges, start) - 1
        while start < stop:
            begin, end = self._edges[group], min(self._edges[group + 1], stop)
            rows = self._group(group)
            parts.append({n: x[start - begin : end - begin] for n, x in rows.items()})
            start, group = end, group + 1
        if len(parts) == 1:
            return parts[0]
        return {name: np.concatenate([part[name] for part in parts]) for name in self.columns}

    def _names(self) -> list[str]:
        return sorted({column for columns in self._arguments.values() for column in columns})

    def _group(self, number: int) -> dict[str, np.ndarray]:
        """Return a row group; the last one is kept, since the next rows often begin in it."""
        if self._held is None or self._held[0] != number:
            file, group = self._groups[number]
            table = file.read_row_group(group, columns=self._names())
            self._held = number, self._arrays(table, self._edges[number])
        return self._held[1]

    def _arrays(self, table: Any, first: int = 0) -> dict[str, np.ndarray]:
        """Return the arguments in a table that begins with row number ``first``."""
        made = {}
        for name, columns in self._arguments.items():
            parts = [_array(column, table.column(column), first) for column in columns]
            stacked = name in self._matrices
            made[name] = np.stack(parts, axis=1) if stacked else parts[0]
        return made


def _array(name: str, column: Any, first: int) -> np.ndarray:
    """Return a column, of rows from number ``first`` on, as NumPy's array."""
    import pyarrow as pa

    if column.null_count:
        row = first + column.is_null().to_numpy().argmax()
        raise ValueError(
            f"the column {name!r} has no value in row {row} (and in {column.null_count - 1} more "
            "of its row group). Remove or impute these rows"
        )
    whole = column.combine_chunks()
    whole = whole.combine_chunks() if isinstance(whole, pa.ChunkedArray) else whole
    if pa.types.is_fixed_size_list(whole.type):
        width = whole.type.list_size
        return whole.flatten().to_numpy(zero_copy_only=False).reshape(-1, width)
    return whole.to_numpy(zero_copy_only=False)


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise ImportError(
            "Parquet files are read through pyarrow: pip install 'sgworld-mcmc[streaming]'."
        ) from error
    return pyarrow.parquet
