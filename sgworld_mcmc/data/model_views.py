"""Rows that a model is shown in another form than that in which batches of them are cut."""

from abc import ABC, abstractmethod
from typing import Any

import jax

__all__ = ["Shown", "as_model_sees"]


class Shown(ABC):
    """A pytree of arrays of rows that stands for something else in a model's arguments."""

    @abstractmethod
    def as_model_sees(self) -> Any:
        """Return what the model is given for these rows."""


def as_model_sees(tree: Any) -> Any:
    """Return a model's arguments with what each :class:`Shown` stands for in its place."""
    leaves, treedef = jax.tree.flatten(tree, is_leaf=_is_shown)
    if not any(map(_is_shown, leaves)):
        return tree
    return treedef.unflatten(x.as_model_sees() if _is_shown(x) else x for x in leaves)


def _is_shown(value: object) -> bool:
    return isinstance(value, Shown)
