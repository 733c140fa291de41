"""Find out whether a model takes the columns of a frame by name, and which of them."""

from collections.abc import Callable
from typing import Any

import jax
from numpyro.infer import init_to_uniform

from sgworld_mcmc.data.frame_rows import Categories, Column, Frame, FrameRows
from sgworld_mcmc.model.plates import FullData
from sgworld_mcmc.model.tables import column_names, is_frame, read_table
from sgworld_mcmc.model.traces import trace_of

__all__ = ["AskedFrame", "frames_by_name"]


def frames_by_name(
    model: Callable, treedef: Any, leaves: list, names: list[str]
) -> "dict[int, AskedFrame]":
    """Return the frames that a model takes apart by name, by their place among the leaves.

    The model is tried with frames whose columns can be had by name only; a model that cannot do
    with them is given arrays of all columns. The columns that it takes are read, all others may
    hold what they will.

    Parameters
    ----------
    model
        The model.
    treedef, leaves
        The model's arguments; frames are leaves.
    names
        Readable names of the leaves.

    Raises
    ------
    TypeError, ValueError
        If a column that the model takes holds no numbers or has missing values.
    """
    places = [index for index, leaf in enumerate(leaves) if is_frame(leaf)]
    if not places:
        return {}
    seen = {index: AskedFrame(names[index], leaves[index]) for index in places}
    tried = [seen.get(index, leaf) for index, leaf in enumerate(leaves)]
    if not _works(model, *treedef.unflatten(tried)):
        for asked in seen.values():
            asked.raise_problem()
        return {}
    return {index: asked for index, asked in seen.items() if asked.read}


def _works(model: Callable, args: tuple, kwargs: dict) -> bool:
    """Return whether a model can be traced with these arguments."""

    def run(rng_key):
        trace_of(FullData(model), rng_key, init_to_uniform, args, kwargs)

    try:
        jax.eval_shape(run, jax.random.key(0))
    except Exception:
        return False
    return True


class AskedFrame(Frame):
    """A frame that notes which columns it is asked for.

    Attributes
    ----------
    read
        The :class:`~sgworld_mcmc.model.tables.Table` of each of these columns, by name.
    """

    def __init__(self, name: str, frame: Any) -> None:
        self._name, self._frame, self._names = name, frame, column_names(frame)
        self._problem, self.read = None, {}

    def rows(self) -> FrameRows:
        """Return the columns that were asked for as rows."""
        categories = (name for name, table in self.read.items() if table.kind == "category")
        columns = {name: table.values for name, table in self.read.items()}
        return FrameRows(columns, frozenset(categories))

    def raise_problem(self) -> None:
        """Raise what is wrong with a column that was asked for by name, if anything is."""
        if self._problem is not None:
            raise self._problem

    def __getitem__(self, name):
        if isinstance(name, list):
            return Frame({each: self[each] for each in name})
        if not isinstance(name, str):
            raise TypeError("This frame gives columns by name.")
        try:
            if name not in self._names:
                raise ValueError(
                    f"The model asks for the column {name!r} of `{self._name}`, whose columns are "
                    f"{', '.join(map(repr, self._names))}."
                )
            if name not in self.read:
                self.read[name] = read_table(f"{self._name}[{name!r}]", self._frame[name])
        except Exception as error:
            self._problem = error
            raise
        table = self.read[name]
        return (Categories if table.kind == "category" else Column)(table.values)

    def __getattr__(self, name):
        if name.startswith("_") or name not in self._names:
            raise AttributeError(name)
        return self[name]

    def __len__(self) -> int:
        return len(self._frame)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self):
        return iter(self._names)

    def __jax_array__(self):
        raise TypeError("This frame gives columns by name.")

    @property
    def columns(self):
        return list(self._names)

    @property
    def shape(self):
        return len(self._frame), len(self._names)

    @property
    def values(self):
        raise TypeError("This frame gives columns by name.")
