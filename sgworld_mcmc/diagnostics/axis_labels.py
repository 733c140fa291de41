"""Give the axes of a model's sites the names of the columns and categories of its data.

A site of as many values as a frame has columns has most likely one for each column. The names are
given only if nothing else of that length could be meant: wrong labels are worse than none.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np

__all__ = ["axis_labels"]


def axis_labels(
    labels: Iterable[Any],
    shapes: Mapping[str, tuple[int, ...]],
    dims: Mapping[str, list[str | None]],
    arguments: Any,
    observed: Mapping[str, np.ndarray],
) -> tuple[dict[str, list[str | None]], dict[str, list[str]]]:
    """Return names for axes of sites, and labels along them.

    An axis gets labels if exactly one frame or column of categories has as many of them, if it is
    the only axis of the site with that length, and if that is neither the number of rows nor that
    of the values of an integer argument, which may be an index into the site. An axis keeps the
    name of its plate.

    Parameters
    ----------
    labels
        The names that came with the arguments: :class:`sgworld_mcmc.model.user_data.Labels`.
    shapes
        Shape of each site, without axes for chain and draw.
    dims
        Names of the axes that plates give; None where there is none.
    arguments
        The model's arguments, a pytree.
    observed
        The observed values by site.

    Returns
    -------
    dims, coords
        Names of the axes of the sites that got any, and the labels by name of an axis.
    """
    found, coords = {}, {}
    fitting = _unambiguous(list(labels), jax.tree.leaves(arguments), list(observed.values()))
    for site, shape in shapes.items():
        names = [*dims.get(site, []), *[None] * len(shape)][: len(shape)]
        for axis, length in enumerate(shape):
            if length not in fitting or shape.count(length) > 1:
                continue
            label = fitting[length]
            names[axis] = names[axis] or f"{_plain(label.argument)}_{label.kind}"
            coords[names[axis]] = list(label.names)
            found[site] = names
    return found, coords


def _unambiguous(labels: list, leaves: list, observed: list) -> dict[int, Any]:
    """Return the labels by their number, where that can mean nothing else."""
    fitting = {}
    for label in labels:
        length = len(label.names)
        fitting[length] = None if length in fitting or length == 1 else label
    for leaf in leaves:
        if not isinstance(leaf, np.ndarray | jax.Array) or leaf.ndim == 0 or leaf.size == 0:
            continue
        fitting[leaf.shape[0]] = None
        if leaf.ndim > 1 or not np.issubdtype(leaf.dtype, np.integer):
            continue
        values = np.asarray(leaf)
        length = int(values.max()) + 1
        label = fitting.get(length)
        # Codes of categories are an index into the values for these categories, as they should be.
        if label is None or label.kind == "category" or values.min() < 0:
            continue
        # Two outcomes are no index.
        if length > 2 or not any(np.array_equal(values, y) for y in observed):
            fitting[length] = None
    return {length: label for length, label in fitting.items() if label is not None}


def _plain(argument: str) -> str:
    """Return the name of an argument without brackets: ``batch['X']`` becomes ``batch_X``."""
    return re.sub(r"\W+", "_", argument).strip("_")
