"""Lists of Python numbers: data, or settings of the model such as the widths of its layers."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from numpyro.infer import init_to_uniform

from sgworld_mcmc.data.model_views import as_model_sees
from sgworld_mcmc.model.arguments import is_array
from sgworld_mcmc.model.plates import FullData
from sgworld_mcmc.model.traces import trace_of

__all__ = ["are_data", "is_number_list"]


def is_number_list(value: object) -> bool:
    """Return whether a value is a list of several numbers, or of rows of numbers of one length.

    Examples
    --------
    >>> is_number_list([1.0, 2]), is_number_list([[1, 2], [3, 4]]), is_number_list([[1, 2], [3]])
    (True, True, False)
    """
    return isinstance(value, list) and len(value) > 1 and _shape(value) is not None


def _shape(value: object) -> tuple[int, ...] | None:
    """Return the shape of nested lists of numbers; None if they have none."""
    if not isinstance(value, list):
        return () if isinstance(value, int | float | np.number | np.bool_) else None
    shapes = {_shape(item) for item in value}
    if len(shapes) != 1 or None in shapes:
        return None
    return (len(value), *shapes.pop())


def are_data(model: Callable, treedef: Any, leaves: list, lists: list[int]) -> bool:
    """Return whether lists as long as the data are data too, and not settings of the model.

    They are data if the model cannot do with lists in their place, or if half of the rows need half
    of them. Nothing is computed.

    Parameters
    ----------
    treedef, leaves
        The model's arguments, with each list of numbers as one leaf.
    lists
        Where the lists are among the leaves.
    """
    size = len(leaves[lists[0]])
    if not _works(model, treedef.unflatten(leaves), size, size):
        return True
    if _works(model, treedef.unflatten(leaves), size, size // 2):
        return False
    arrays = [np.asarray(x) if index in lists else x for index, x in enumerate(leaves)]
    return _works(model, treedef.unflatten(arrays), size, size // 2)


def _works(model: Callable, arguments: Any, size: int, count: int) -> bool:
    """Return whether a model can be traced if only ``count`` of ``size`` rows are there."""
    flat, structure = jax.tree.flatten(arguments)
    arrays = [leaf for leaf in flat if is_array(leaf)]

    def shortened(x):
        shape = (count, *x.shape[1:]) if x.ndim and x.shape[0] == size else x.shape
        return jax.ShapeDtypeStruct(shape, jax.dtypes.canonicalize_dtype(x.dtype))

    def run(rng_key, arrays):
        traced = iter(arrays)
        args, kwargs = as_model_sees(
            structure.unflatten(next(traced) if is_array(leaf) else leaf for leaf in flat)
        )
        trace = trace_of(FullData(model), rng_key, init_to_uniform, args, kwargs)
        for site in trace.values():
            if site["type"] == "sample" and site["is_observed"]:
                site["fn"].log_prob(site["value"])

    try:
        jax.eval_shape(run, jax.random.key(0), [shortened(x) for x in arrays])
    except Exception:
        return False
    return True
