"""Draws that lie on disk, in the place of a dict of arrays: each look reads them."""

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.checkpoint.draws_store import SHOWN, DrawsStore

__all__ = ["LOOKED_AT", "StoredDraws", "looked_at"]

# The checks of the draws look at so many numbers at most, of each field; of more draws they take
# every so many.
LOOKED_AT = 2**23


class StoredDraws(MutableMapping):
    """The draws of a run by field, as NumPyro keeps them, but on disk.

    Every look at a field reads it whole, as NumPy arrays (chains, draws, ...), and keeps nothing.

    Parameters
    ----------
    store
        Where they are.
    leaves
        Pytrees of :class:`~sgworld_mcmc.checkpoint.draws_store.Leaf` by field.
    chains, made
        Numbers of chains and draws.
    folder
        The folder of the checkpoint.
    """

    def __init__(
        self, store: DrawsStore, leaves: dict[str, Any], chains: int, made: int, folder: Path
    ) -> None:
        self.store, self.leaves = store, dict(leaves)
        self.chains, self.made, self.folder = chains, made, folder
        self._shown, self._flat = list(leaves), False

    @property
    def path(self) -> Path:
        """The Zarr store, which ArviZ can read."""
        return self.folder / SHOWN

    def flat(self) -> "StoredDraws":
        """Return the same draws without the axis of chains."""
        made = StoredDraws(self.store, self.leaves, self.chains, self.made, self.folder)
        made._shown, made._flat = self._shown, True
        return made

    def whole(self, field: str, every: int = 1) -> Any:
        """Return a field (chains, draws, ...), also one that is not shown."""
        return jax.tree.map(
            lambda leaf: self.store.read(leaf, self.made, self.chains, every), self.leaves[field]
        )

    def __getitem__(self, field: str) -> Any:
        if field not in self._shown:
            raise KeyError(field)
        found = self.whole(field)
        if not self._flat:
            return found
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)

    def __delitem__(self, field: str) -> None:
        self._shown = [name for name in self._shown if name != field]

    def __setitem__(self, field: str, value: Any) -> None:
        raise TypeError("Draws on disk cannot be changed.")

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)


def looked_at(states: Any, fields: tuple[str, ...]) -> tuple[dict[str, Any], int]:
    """Return the fields at which the checks look, and that they have every so many draws.

    Draws in memory are returned as they are.
    """
    if not isinstance(states, StoredDraws):
        return states, 1
    known = [name for name in fields if name in states.leaves]
    sizes = [
        sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(states.leaves[name]))
        for name in known
    ]
    every = -(-max(sizes, default=1) * states.chains * states.made // LOOKED_AT)
    every = max(1, min(every, states.made))
    return {name: states.whole(name, every) for name in known}, every
