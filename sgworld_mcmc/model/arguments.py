"""Sort a model's arguments into data, constants and the rest.

Minibatches are rows of the *data*: array arguments whose leading axis is that of the observations.
Other arrays are *constants* and are passed on whole. Whatever is no array (numbers, strings,
functions) is static and reaches the model as the very object that the user gave.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.model_views import as_model_sees

__all__ = [
    "ArgumentLayout",
    "WholeLayout",
    "argument_names",
    "flatten_arguments",
    "is_array",
    "leaf_name",
    "signature_of",
]


class ArgumentLayout(NamedTuple):
    """How the leaves of (args, kwargs) are sorted.

    Attributes
    ----------
    treedef
        Structure of (args, kwargs).
    names
        A readable name for each leaf: ``"X"``, ``"batch['y']"``.
    kinds
        ``"data"``, ``"constant"`` or ``"static"`` for each leaf.
    statics
        The static leaves, in order.
    size
        Length N of the common leading axis of the data.
    """

    treedef: Any
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    statics: tuple[Any, ...]
    size: int

    def named_kinds(self) -> list[tuple[str, str]]:
        """Return (name, kind) of each leaf."""
        return list(zip(self.names, self.kinds, strict=True))

    def split(self, args: tuple, kwargs: dict) -> tuple[tuple, tuple]:
        """Return the data leaves and the constant leaves of these arguments, as tuples."""
        leaves = jax.tree.leaves((args, kwargs))
        pick = lambda kind: tuple(  # noqa: E731
            leaf for leaf, k in zip(leaves, self.kinds, strict=True) if k == kind
        )
        return pick("data"), pick("constant")

    def join(self, rows: tuple, constants: tuple) -> tuple[tuple, dict]:
        """Return the model's (args, kwargs) with ``rows`` in place of the data.

        Sparse rows come as the sparse matrix that they are rows of.
        """
        sources = {
            "data": iter(rows),
            "constant": iter(constants),
            "static": iter(self.statics),
        }
        leaves = [next(sources[kind]) for kind in self.kinds]
        return as_model_sees(jax.tree.unflatten(self.treedef, leaves))


class WholeLayout(ArgumentLayout):
    """The layout of a model whose only batch is all rows.

    The feed then has a single row, a number that nobody reads; the arrays are constants.
    """

    def split(self, args: tuple, kwargs: dict) -> tuple[tuple, tuple]:
        """Return the single row and the constant leaves."""
        _, constants = super().split(args, kwargs)
        return (np.zeros(1, np.float32),), constants


def is_array(leaf: object) -> bool:
    """Return whether a leaf is an array (a NumPy scalar counts as a number)."""
    return isinstance(leaf, np.ndarray | jax.Array)


def flatten_arguments(model: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Return the leaves of the model's arguments by readable name, in JAX's order.

    Other libraries' arrays are refused: they look like arrays, but JAX cannot trace them.
    """
    names = argument_names(model, args)
    result = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path((args, kwargs)):
        name = leaf_name(names, path)
        if hasattr(leaf, "__array__") and not is_array(leaf) and np.ndim(leaf) > 0:
            raise TypeError(
                f"`{name}` is a {type(leaf).__module__.split('.')[0]} {type(leaf).__name__}, which "
                f"JAX cannot trace: pass numpy.asarray({name})."
            )
        result[name] = leaf
    return result


def leaf_name(names: list[str], path: tuple) -> str:
    """Return a readable name for a leaf of (args, kwargs), given those of the positional ones."""
    group, key, *rest = path
    name = names[key.idx] if group.idx == 0 else str(key.key)
    return name + jax.tree_util.keystr(tuple(rest))


def argument_names(model: Callable, args: tuple) -> list[str]:
    """Return the names of the positional arguments, from the model's signature."""
    try:
        parameters = list(inspect.signature(model).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    names = []
    for index in range(len(args)):
        parameter = parameters[index] if index < len(parameters) else None
        if parameter is None or parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names.append(f"args[{index}]")
        else:
            names.append(parameter.name)
    return names


def signature_of(args: tuple, kwargs: dict) -> tuple:
    """Return a hashable key, equal for arguments that the same compiled functions can serve."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    return treedef, tuple(_leaf_key(leaf) for leaf in leaves)


def _leaf_key(leaf: object) -> tuple:
    if is_array(leaf):
        return "array", leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype)
    try:
        hash(leaf)
    except TypeError:
        return "object", id(leaf)
    # 1, 1.0 and True are equal as keys but not as arguments of a model.
    return "static", type(leaf), leaf
