"""Columns and frames of pandas, polars and others as arrays, with the names of their columns.

A column becomes an array (N,), a frame an array (N, columns). pandas is read directly, others
through narwhals. Neither is imported unless such an object is given.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from sgworld_mcmc.data.sparse_rows import SparseRows, sparse_rows
from sgworld_mcmc.model.number_arrays import usable_array

__all__ = ["Table", "column_names", "is_frame", "is_table", "read_table"]

# Libraries whose frames and columns narwhals reads.
OTHERS = frozenset(
    {"cudf", "dask", "duckdb", "ibis", "modin", "narwhals", "polars", "pyarrow", "pyspark"}
)
CURES = {
    "time stamps": "Pass numbers in their place, for instance days since the first of them.",
    "time differences": "Pass numbers in their place, for instance days.",
    "strings": "Pass codes in their place: a column of categories, given as an argument of its "
    "own, becomes its integer codes (in pandas: .astype('category')).",
    "Python objects": "Convert it to numbers, for instance with pandas.to_numeric, or to a "
    "category.",
}


class Table(NamedTuple):
    """What a frame or column holds.

    Attributes
    ----------
    values
        (N,) or (N, columns) numbers, or sparse rows.
    kind
        What the labels name: ``"column"``, or ``"category"`` if the values are codes.
    labels
        The names of the columns or categories; None if there are none.
    """

    values: np.ndarray | SparseRows
    kind: str = "column"
    labels: tuple[str, ...] | None = None


def is_table(value: object) -> bool:
    """Return whether a value is a frame or a column of a library that is known here."""
    library = _library(value)
    if library == "pandas":
        return hasattr(value, "dtype") or hasattr(value, "dtypes")
    return library in OTHERS and (hasattr(value, "dtype") or hasattr(value, "columns"))


def is_frame(value: object) -> bool:
    """Return whether a value is a table of several columns with names."""
    named = is_table(value) and hasattr(value, "columns")
    return named and all(isinstance(name, str) for name in value.columns)


def column_names(frame: Any) -> tuple[str, ...]:
    """Return the names of the columns of a frame."""
    return tuple(frame.columns)


def read_table(name: str, value: Any) -> Table:
    """Return a frame or column as an array of numbers.

    Columns of numbers and truth values keep their type; those of a frame are brought to the type
    that can hold all of them. A column of categories, given as an argument of its own, becomes its
    integer codes. Inside a frame it is refused: a model would compute with the codes as if they
    were quantities.

    Parameters
    ----------
    name
        The name of the argument, for messages.
    value
        A frame or column of pandas, or one that narwhals can read.

    Raises
    ------
    TypeError, ValueError
        If a column holds no numbers, or has missing values; the message names it and the cure.

    Examples
    --------
    >>> import pandas as pd
    >>> table = read_table("X", pd.DataFrame({"age": [31, 45], "smokes": [True, False]}))
    >>> print(table.values)
    [[31  1]
     [45  0]]
    >>> table.labels
    ('age', 'smokes')
    """
    return _read_pandas(name, value) if _library(value) == "pandas" else _read_other(name, value)


def _read_pandas(name: str, value: Any) -> Table:
    import pandas as pd

    if not isinstance(value, pd.DataFrame):
        return _pandas_column(name, value if isinstance(value, pd.Series) else pd.Series(value))
    columns, labels = list(value.columns), _labels(value.columns)
    types = set(value.dtypes)
    if types and all(isinstance(t, pd.SparseDtype) and t.fill_value in (0, False) for t in types):
        return Table(sparse_rows(name, value.sparse.to_coo()), "column", labels)
    if len(types) == 1 and isinstance(next(iter(types)), np.dtype):
        if next(iter(types)).kind in "biufc":
            # One array may hold all columns, of which this is a view.
            return Table(_finite(name, columns, value.to_numpy()), "column", labels)
    series = (value.iloc[:, index] for index in range(len(columns)))
    return Table(_joined(name, columns, series, _pandas_column), "column", labels)


def _pandas_column(name: str, series: Any) -> Table:
    """Return a column; ``name`` says which one, also for those of a frame."""
    import pandas as pd

    kind, numbers = series.dtype, pd.api.types
    if isinstance(kind, pd.CategoricalDtype):
        codes = np.asarray(series.cat.codes)
        _refuse_missing(name, codes < 0)
        # The codes have as few bytes as they need: sums of them in a model would overflow.
        return Table(codes.astype(np.int32), "category", tuple(map(str, kind.categories)))
    if isinstance(kind, pd.SparseDtype):
        return _pandas_column(name, series.sparse.to_dense())
    if numbers.is_bool_dtype(kind) or numbers.is_numeric_dtype(kind):
        if isinstance(kind, np.dtype):
            return Table(usable_array(name, series.to_numpy()))
        _refuse_missing(name, series.isna().to_numpy(bool))
        return Table(series.to_numpy(dtype=kind.numpy_dtype))
    times = numbers.is_datetime64_any_dtype(kind) or isinstance(kind, pd.PeriodDtype)
    raise _no_numbers(
        name,
        kind,
        "time stamps"
        if times
        else "time differences"
        if numbers.is_timedelta64_dtype(kind)
        else "strings"
        if numbers.is_string_dtype(series)
        else "Python objects",
    )


def _read_other(name: str, value: Any) -> Table:
    try:
        import narwhals.stable.v1 as nw
    except ImportError as error:
        raise TypeError(
            f"`{name}` is a {_library(value)} {type(value).__name__}, which is read through the "
            f"package narwhals: install it, or pass {name}.to_numpy()."
        ) from error
    value = value.to_native() if _library(value) == "narwhals" else value
    table = nw.from_native(value, allow_series=True, pass_through=True)
    if isinstance(table, nw.LazyFrame):
        raise TypeError(
            f"`{name}` is a {_library(value)} {type(value).__name__}, whose rows are not computed "
            f"yet: pass {name}.collect()."
        )
    if isinstance(table, nw.Series):
        return _other_column(name, table)
    if not isinstance(table, nw.DataFrame):
        raise TypeError(
            f"`{name}` is a {_library(value)} {type(value).__name__}, which cannot be read as a "
            "table: pass an array of its numbers."
        )
    series = (table[column] for column in table.columns)
    values = _joined(name, table.columns, series, _other_column)
    return Table(values, "column", _labels(table.columns))


def _other_column(name: str, series: Any) -> Table:
    import narwhals.stable.v1 as nw

    kind = series.dtype
    if kind.is_numeric() or kind == nw.Boolean or isinstance(kind, nw.Categorical | nw.Enum):
        _refuse_missing(name, series.is_null().to_numpy().astype(bool))
    if isinstance(kind, nw.Categorical | nw.Enum):
        # The numbers that a library keeps inside differ: here they follow the categories' order.
        labels = series.cat.get_categories().to_list()
        number = {label: index for index, label in enumerate(labels)}
        codes = np.array([number[x] for x in series.to_list()], np.int32)
        return Table(codes, "category", tuple(map(str, labels)))
    if kind.is_numeric() or kind == nw.Boolean:
        return Table(usable_array(name, series.to_numpy()))
    what = "time stamps" if kind.is_temporal() else "Python objects"
    if kind == nw.Duration:
        what = "time differences"
    raise _no_numbers(name, kind, "strings" if kind == nw.String else what)


def _joined(name: str, columns: list, series: Any, read: Callable) -> np.ndarray:
    """Return the columns of a frame as one array (N, columns)."""
    tables = [read(f"{name}[{c!r}]", each) for c, each in zip(columns, series, strict=True)]
    for column, table in zip(columns, tables, strict=True):
        if table.kind == "category":
            raise TypeError(
                f"The column {column!r} of `{name}` holds categories, and a model would compute "
                f"with their codes as with quantities. Pass {name}[{column!r}] as an argument of "
                "its own (it becomes integer codes, which index a latent value for each category), "
                f"or make a column for each category, for instance with pandas.get_dummies({name})."
            )
    if not tables:
        raise ValueError(f"`{name}` is a frame without columns.")
    parts = [table.values for table in tables]
    joined = np.empty((len(parts[0]), len(parts)), np.result_type(*parts))
    for index, part in enumerate(parts):
        joined[:, index] = part
    return _finite(name, columns, joined)


def _finite(name: str, columns: list, values: np.ndarray) -> np.ndarray:
    """Return the values; raise if they are not all finite, with the names of the columns."""
    if values.dtype.kind in "fc" and not np.isfinite(values.sum()):
        bad = ~np.isfinite(values)
        wrong = [repr(c) for c, found in zip(columns, bad.any(axis=0), strict=True) if found]
        rows = bad.any(axis=1)
        if wrong:
            raise ValueError(
                f"`{name}` has NaN or infinity in {int(rows.sum())} of {len(rows)} rows (the first "
                f"is row {int(rows.argmax())}), in the columns {', '.join(wrong)}. Remove or "
                "impute these rows before sampling."
            )
    return values


def _refuse_missing(name: str, missing: np.ndarray) -> None:
    if missing.any():
        raise ValueError(
            f"`{name}` has {int(missing.sum())} missing values among {len(missing)} (the "
            f"first is row {int(missing.argmax())}). Remove or impute these rows before sampling."
        )


def _no_numbers(name: str, kind: object, what: str) -> TypeError:
    return TypeError(
        f"`{name}` holds {what} ({kind}), and a model computes with numbers. {CURES[what]}"
    )


def _library(value: object) -> str:
    return type(value).__module__.partition(".")[0]


def _labels(columns: Any) -> tuple[str, ...] | None:
    """Return the names of columns as text; None if they were numbered only."""
    if all(isinstance(c, int | np.integer) for c in columns):
        return None
    names = tuple(" ".join(map(str, c)) if isinstance(c, tuple) else str(c) for c in columns)
    return names if len(set(names)) == len(names) else None
