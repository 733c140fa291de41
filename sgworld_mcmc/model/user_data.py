"""Read the data that users have at hand as arrays, once, where they enter a run.

Frames and columns, lists of numbers, sparse matrices and structured arrays become arrays that can
be cut into batches; what cannot be sampled from is refused with its name before any work. NumPy's
and JAX's arrays, memory maps among them, stay the very objects that the user gave.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.sparse_rows import is_sparse, sparse_rows
from sgworld_mcmc.model.arguments import argument_names, is_array, leaf_name
from sgworld_mcmc.model.frames import frames_by_name
from sgworld_mcmc.model.number_arrays import usable_array, without_wide_integers
from sgworld_mcmc.model.number_lists import are_data, is_number_list
from sgworld_mcmc.model.tables import is_table, read_table

__all__ = ["Labels", "UserData", "kept_arrays", "read_user_data"]

# Libraries of loaders, whose objects give batches instead of rows.
LOADERS = frozenset({"datasets", "grain", "tensorflow", "torch"})


class Labels(NamedTuple):
    """Names that came with an argument.

    Attributes
    ----------
    argument
        Readable name of the argument.
    kind
        What is named: ``"column"`` or ``"category"``.
    names
        The names, in order.
    """

    argument: str
    kind: str
    names: tuple[str, ...]


class UserData(NamedTuple):
    """A model's arguments with arrays in place of the data that were given in other forms.

    Attributes
    ----------
    args, kwargs
        The arguments.
    labels
        The names of columns and categories.
    """

    args: tuple
    kwargs: dict
    labels: tuple[Labels, ...] = ()


def read_user_data(
    model: Callable, args: tuple, kwargs: dict, before: tuple[tuple, dict] | None = None
) -> UserData:
    """Return a model's arguments with its data as arrays.

    Parameters
    ----------
    model
        The model, whose signature gives the arguments their names.
    args, kwargs
        The model's arguments as the user gave them.
    before
        Arguments that this function returned earlier. An array that it makes again with the same
        numbers is the one made before, so that a second run finds the data that it knows.

    Raises
    ------
    TypeError, ValueError
        If an argument has a form that cannot be read; the message names it and the cure.
    """
    flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs), is_leaf=_is_whole)
    positional = argument_names(model, args)
    names = [leaf_name(positional, path) for path, _ in flat]
    given, labels = [leaf for _, leaf in flat], []
    by_name = frames_by_name(model, treedef, given, names)
    leaves = [
        by_name[index].rows() if index in by_name else _read(names[index], leaf, labels)
        for index, leaf in enumerate(given)
    ]
    for index, frame in by_name.items():
        named = ((f"{names[index]}[{c!r}]", t.kind, t.labels) for c, t in frame.read.items())
        labels.extend(Labels(*label) for label in named if label[2])
    arrays = jax.tree.leaves([leaf for leaf in leaves if not _is_whole(leaf)])
    lengths = {x.shape[0] for x in arrays if is_array(x) and x.ndim}
    _read_sparse(names, leaves, lengths)
    _read_lists(model, treedef, leaves, lengths)
    leaves = [without_wide_integers(x) if isinstance(x, np.ndarray) else x for x in leaves]
    if all(a is b for a, b in zip(leaves, given, strict=True)):
        return UserData(args, kwargs)
    read = jax.tree.unflatten(treedef, leaves)
    if before is not None:
        read = kept_arrays(read, before, {id(leaf) for leaf in given})
    return UserData(*read, tuple(labels))


def _is_whole(value: object) -> bool:
    """Return whether a value is read as one thing, though JAX would take it apart."""
    return is_sparse(value) or is_number_list(value) or isinstance(value, Iterator)


def _read(name: str, leaf: Any, labels: list[Labels]) -> Any:
    """Return one argument as an array; add its labels to the list. Others are returned as given."""
    if isinstance(leaf, np.ndarray):
        return usable_array(name, leaf)
    if is_table(leaf):
        table = read_table(name, leaf)
        if table.labels:
            labels.append(Labels(name, table.kind, table.labels))
        return table.values
    _refuse_loader(name, leaf)
    return leaf


def _refuse_loader(name: str, leaf: Any) -> None:
    library = type(leaf).__module__.partition(".")[0]
    loader = (
        hasattr(leaf, "__iter__")
        and not hasattr(leaf, "__array__")
        and (library in LOADERS or hasattr(leaf, "batch_size"))
    )
    if loader or isinstance(leaf, Iterator):
        raise TypeError(
            f"`{name}` is a {type(leaf).__name__}, which gives the data piece by piece and in an "
            "order of its own. The sampler deals the rows into minibatches itself: pass the arrays "
            "of all rows, for instance numpy.concatenate([...]) of the pieces. numpy.memmap reads "
            "them from a file that is larger than the memory."
        )


def _read_sparse(names: list[str], leaves: list, lengths: set[int]) -> None:
    """Replace the sparse matrices that are data by their rows.

    A square matrix is one of neighbours or of a penalty, and stays what it is, as one does whose
    rows are not those of the other arguments.
    """
    known = frozenset(lengths)
    for index, leaf in enumerate(leaves):
        if not is_sparse(leaf):
            continue
        size, width = leaf.shape
        if size != width and (not known or size in known):
            leaves[index] = sparse_rows(names[index], leaf)
            lengths.add(size)


def _read_lists(model: Callable, treedef: Any, leaves: list, lengths: set[int]) -> None:
    """Replace the lists of numbers that are data by arrays."""
    lists = {index: len(leaf) for index, leaf in enumerate(leaves) if is_number_list(leaf)}
    if not lists:
        return
    # Without any other rows the longest lists are the data, if any are.
    rows = lengths or {max(lists.values())}
    lists = [index for index, length in lists.items() if length in rows]
    if lists and are_data(model, treedef, leaves, lists):
        for index in lists:
            leaves[index] = np.asarray(leaves[index])


def kept_arrays(read: tuple, before: tuple, given: set[int]) -> tuple:
    """Return the arguments with the arrays made before in place of equal ones made now."""
    now, treedef = jax.tree.flatten(read)
    old, structure = jax.tree.flatten(before)
    if structure != treedef:
        return read
    pairs = zip(now, old, strict=True)
    return treedef.unflatten(b if id(a) not in given and _equal(a, b) else a for a, b in pairs)


def _equal(a: Any, b: Any) -> bool:
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray)):
        return False
    return a.shape == b.shape and a.dtype == b.dtype and np.array_equal(a, b)
