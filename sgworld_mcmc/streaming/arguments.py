"""Which arguments of a run are streamed, and which are read into memory.

Arrays in files that fit comfortably in memory are read, and the run goes as with any arrays. If
they do not fit, every array with as many rows is replaced by a :class:`StreamedArray`.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.memory import fits
from sgworld_mcmc.model.arguments import argument_names, is_array, leaf_name
from sgworld_mcmc.model.number_arrays import check_values
from sgworld_mcmc.streaming.arrays import ALL, ArraySource, is_on_disk
from sgworld_mcmc.streaming.items import ItemSource, is_item_source
from sgworld_mcmc.streaming.source import Source, StreamedArray

__all__ = ["is_streamed", "open_arguments", "stream_rest"]

# An array in a file with fewer rows than this part of the longest one's is taken whole.
SHORT = 0.01


def is_streamed(args: tuple, kwargs: dict) -> bool:
    """Return whether any argument is streamed."""
    return any(isinstance(x, StreamedArray) for x in jax.tree.leaves((args, kwargs)))


def open_arguments(
    model: Callable, args: tuple, kwargs: dict, stream: bool | str
) -> tuple[tuple, dict]:
    """Return a model's arguments with what lies in files either read or as streamed arrays.

    Parameters
    ----------
    model
        The model, whose signature gives the arguments their names.
    args, kwargs
        The arguments as the user gave them; one data source may stand for all data.
    stream
        True to stream, False to read, ``"auto"`` to stream what does not fit in memory.

    Raises
    ------
    ValueError
        If arrays in files have different lengths, are empty, or their file is closed.
    """
    if is_streamed(args, kwargs):  # opened before: the free memory may have changed since
        return args, kwargs
    args, kwargs = _with_columns(model, args, kwargs)
    # What a user has opened as one data source is one tree: its columns are leaves already.
    flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=_is_leaf)
    positional = argument_names(model, args)
    names = [leaf_name(positional, path) for path, _ in flat]
    leaves = [_opened(name, leaf, flat) for name, (_, leaf) in zip(names, flat, strict=True)]
    found = [leaf for leaf in leaves if isinstance(leaf, StreamedArray)]
    if not found:
        return args, kwargs
    _check_lengths(found)
    size = max(len(leaf) for leaf in found)
    total = sum(leaf.nbytes for leaf in found)
    if stream is False or (stream == "auto" and fits(total)):
        kept: dict[int, dict] = {}
        leaves = [_read(leaf, kept) for leaf in leaves]
    else:
        leaves = [
            _read(leaf, {}) if isinstance(leaf, StreamedArray) and len(leaf) < size else leaf
            for leaf in leaves
        ]
    return jax.tree.unflatten(treedef, leaves)


def stream_rest(
    model: Callable, args: tuple, kwargs: dict, stream: bool | str
) -> tuple[tuple, dict]:
    """Replace the arrays in memory that have as many rows as the streamed ones.

    With ``stream=True`` those with the most rows are replaced even if no other is streamed.
    """
    if stream is not True and not is_streamed(args, kwargs):
        return args, kwargs
    flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    names = [leaf_name(argument_names(model, args), path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    sized = [x for x in leaves if isinstance(x, StreamedArray) or (is_array(x) and np.ndim(x))]
    size = max((x.shape[0] for x in sized), default=0)
    for place, (name, leaf) in enumerate(zip(names, leaves, strict=True)):
        if is_array(leaf) and np.ndim(leaf) and leaf.shape[0] == size:
            leaves[place] = StreamedArray(name, ArraySource(np.asarray(leaf)), ALL, leaf)
    return jax.tree.unflatten(treedef, leaves)


def _is_leaf(value: object) -> bool:
    return isinstance(value, Source) or is_on_disk(value)


def _with_columns(model: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Return the arguments with the fields of one data source as arguments by name."""
    given = [x for x in args if isinstance(x, Source) or is_item_source(x)]
    if not given:
        return args, kwargs
    if len(args) != 1:
        raise TypeError(
            f"A data source ({type(given[0]).__name__}) gives all rows of all arguments: pass it "
            "as the only positional argument after the key, and what is not rows by name."
        )
    origin = args[0]
    source = origin if isinstance(origin, Source) else ItemSource(origin)
    columns = list(source.columns)
    try:
        parameters = inspect.signature(model).parameters
    except (TypeError, ValueError):
        parameters = {}
    if parameters and all(p.kind is not p.VAR_KEYWORD for p in parameters.values()):
        columns = [name for name in columns if name in parameters]
    if not columns:
        raise ValueError(
            f"The rows of the data source have the fields {list(source.columns)}, and the model "
            f"the arguments {list(parameters)}: fields are passed to the arguments of their name."
        )
    both = sorted(set(columns) & set(kwargs))
    if both:
        raise ValueError(f"The arguments {both} are given twice: by name, and in the data source.")
    return (), {**kwargs, **{n: StreamedArray(n, source, n, origin) for n in columns}}


def _opened(name: str, leaf: Any, flat: list) -> Any:
    """Return a streamed array in place of an array in a file; anything else as it is."""
    if isinstance(leaf, StreamedArray) or not is_on_disk(leaf):
        return leaf
    dtype = np.dtype(leaf.dtype)
    if dtype.names is not None:  # fields that lie side by side in each row: see usable_array
        return leaf
    source = ArraySource(leaf)
    check_values(name, source.columns[ALL].dtype)
    return StreamedArray(name, source, ALL, leaf)


def _check_lengths(found: list[StreamedArray]) -> None:
    lengths = {leaf.name: len(leaf) for leaf in found}
    longest = max(lengths.values())
    if longest == 0:
        raise ValueError(f"The arrays in files are empty: {', '.join(lengths)}. There are no data.")
    other = {n: length for n, length in lengths.items() if SHORT * longest < length < longest}
    if other:
        raise ValueError(
            f"The arrays in files have different numbers of rows: {lengths}. Row i of one belongs "
            "to row i of the others: pass arrays of one length."
        )


def _read(leaf: Any, kept: dict[int, dict]) -> Any:
    """Return an array in a file as NumPy's array; a memory map stays what it is."""
    if not isinstance(leaf, StreamedArray):
        return leaf
    if isinstance(leaf.origin, np.ndarray):
        return leaf.origin
    number = id(leaf.source)
    if number not in kept:
        kept[number] = leaf.source.whole()
    return kept[number][leaf.column]
