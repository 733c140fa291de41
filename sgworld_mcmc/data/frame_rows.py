"""The columns of a frame as arrays of rows, and the frame that a model sees in their place.

A model that takes the columns of a table by their names is given a :class:`Frame`, which answers
what such models ask of a frame of pandas or polars, with arrays that can be traced and cut into
batches. Only the columns that the model takes are data.
"""

import operator
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.model_views import Shown

__all__ = ["Categories", "Column", "Frame", "FrameRows"]


@jax.tree_util.register_pytree_with_keys_class
class FrameRows(Shown):
    """Columns of a frame, each an array (N,) by its name.

    Parameters
    ----------
    columns
        Dict of the columns that the model takes.
    categories
        Names of those that are codes of categories.
    """

    def __init__(self, columns: dict[str, Any], categories: frozenset[str] = frozenset()) -> None:
        self.columns, self.categories = columns, categories

    def as_model_sees(self) -> "Frame":
        kind = lambda name: Categories if name in self.categories else Column  # noqa: E731
        return Frame({name: kind(name)(x) for name, x in self.columns.items()})

    def tree_flatten_with_keys(self):
        key = jax.tree_util.DictKey
        return tuple((key(name), x) for name, x in self.columns.items()), self._static()

    def tree_flatten(self):
        return tuple(self.columns.values()), self._static()

    @classmethod
    def tree_unflatten(cls, static, leaves):
        names, categories = static
        return cls(dict(zip(names, leaves, strict=True)), categories)

    def _static(self):
        return tuple(self.columns), self.categories


class Frame:
    """What a model sees of a frame: its columns by name.

    Parameters
    ----------
    columns
        Dict of the :class:`Column` objects.
    """

    def __init__(self, columns: dict[str, "Column"]) -> None:
        self._columns = columns

    def __getitem__(self, name):
        if isinstance(name, str):
            return self._columns[name]
        if isinstance(name, list):
            return Frame({each: self._columns[each] for each in name})
        raise TypeError(f"A frame in a model gives columns by name, not {name!r}.")

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(name)
        return self._columns[name]

    def __len__(self) -> int:
        return len(next(iter(self._columns.values())))

    def __contains__(self, name: object) -> bool:
        return name in self._columns

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __jax_array__(self):
        return self.values

    @property
    def columns(self) -> list[str]:
        """The names of the columns."""
        return list(self._columns)

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return len(self), len(self._columns)

    @property
    def values(self) -> jax.Array:
        """The columns as one array (N, columns)."""
        return jnp.stack([jnp.asarray(column.values) for column in self._columns.values()], -1)

    def to_numpy(self) -> jax.Array:
        """Return the columns as one array (N, columns)."""
        return self.values


class Column:
    """What a model sees of a column: an array (N,), with the names that frames' columns have.

    What pandas computes in another way than JAX (a standard deviation, an index) is not offered.

    Parameters
    ----------
    array
        The values.
    """

    _SAME = frozenset(
        {"astype", "at", "dtype", "max", "mean", "min", "ndim", "reshape", "shape", "size", "sum"}
    )
    __hash__ = None

    def __init__(self, array: Any) -> None:
        self.values = array

    def __getattr__(self, name):
        if name not in self._SAME:
            raise AttributeError(name)
        return getattr(self.values, name)

    def __getitem__(self, index):
        return self.values[index]

    def __len__(self) -> int:
        return self.values.shape[0]

    def __jax_array__(self):
        return jnp.asarray(self.values)

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype)

    def to_numpy(self) -> Any:
        """Return the array."""
        return self.values

    def nunique(self) -> int:
        """Return the number of different values."""
        return np.unique(np.asarray(self.values)).size


class Categories:
    """What a model sees of a column of categories: its codes, ``column.cat.codes``.

    Parameters
    ----------
    codes
        The codes (N,), integers.
    """

    def __init__(self, codes: Any) -> None:
        self.codes = Column(codes)

    @property
    def cat(self) -> "Categories":
        """What pandas calls the categories of a column."""
        return self

    def __len__(self) -> int:
        return len(self.codes)

    def nunique(self) -> int:
        """Return the number of different categories in the rows."""
        return self.codes.nunique()


def _delegate(name: str) -> None:
    compute = getattr(operator, name)

    def method(self, other):
        return compute(jnp.asarray(self.values), _array(other))

    def reflected(self, other):
        return compute(_array(other), jnp.asarray(self.values))

    plain = name.strip("_")
    setattr(Column, f"__{plain}__", method)
    if plain not in ("lt", "le", "gt", "ge", "eq", "ne"):
        setattr(Column, f"__r{plain}__", reflected)


def _array(value: Any) -> Any:
    return jnp.asarray(value.values) if isinstance(value, Column) else value


for _name in ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul"):
    _delegate(f"__{_name}__")
for _name in ("and", "or", "xor", "lt", "le", "gt", "ge", "eq", "ne"):
    _delegate(f"__{_name}__")
Column.__neg__ = lambda self: -jnp.asarray(self.values)
Column.__abs__ = lambda self: abs(jnp.asarray(self.values))
Column.__invert__ = lambda self: ~jnp.asarray(self.values)
