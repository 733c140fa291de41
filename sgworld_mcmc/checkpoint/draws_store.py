"""Draws on disk: Zarr arrays in ArviZ's groups, to which pieces are appended."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

__all__ = ["DrawsStore", "Leaf", "leaves_of"]

# The arrays are cut into files of about this many bytes: a file is read and written whole.
CHUNK_BYTES = 2**20
# Names of the stores: what a user sees, and what only the checks of the draws need.
SHOWN, HIDDEN = "draws.zarr", "checks.zarr"
# The coordinates of ArviZ's datasets: no other array of a group may have these names.
COORDINATES = ("chain", "draw")


@dataclass(frozen=True)
class Leaf:
    """An array of the draws.

    Attributes
    ----------
    store, group, name
        Where it is.
    shape
        Shape of one draw of one chain, as stored.
    dtype
        The type of numbers, as stored: any type that Zarr knows.
    """

    store: str
    group: str
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def path(self) -> str:
        """The path of the array within its store."""
        return f"{self.group}/{self.name}"


def leaves_of(one: dict[str, Any], hidden: Sequence[str]) -> dict[str, Any]:
    """Return the draws of one chain at one time, by field, with a :class:`Leaf` for each array.

    Parameters
    ----------
    one
        Pytrees of shapes and types by field; the first field has the sites.
    hidden
        Names of the fields that a user does not see.
    """
    taken: dict[tuple[str, str], set[str]] = {}
    sites = next(iter(one))

    def leaf(field, path, x):
        store = HIDDEN if field in hidden else SHOWN
        group = "posterior" if field == sites else "sample_stats"
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        if field != sites:
            name = f"{field}.{name}" if name else field
        # A slash would make a group, and names that begin with two underscores are Zarr's own.
        name = name.replace("/", "|").strip() or "kept"
        name = f"site{name}" if name.startswith("__") or set(name) == {"."} else name
        names = taken.setdefault((store, group), set(COORDINATES))
        while name in names:
            name += "_"
        names.add(name)
        shape, dtype = _stored_as(x)
        return Leaf(store, group, name, shape, dtype)

    return {
        field: jax.tree_util.tree_map_with_path(lambda p, x, f=field: leaf(f, p, x), tree)
        for field, tree in one.items()
    }


def _stored_as(x: Any) -> tuple[tuple[int, ...], np.dtype]:
    if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # random keys: their words
        words = jax.eval_shape(jax.random.key_data, jax.ShapeDtypeStruct(x.shape, x.dtype))
        return words.shape, np.dtype(words.dtype)
    dtype = np.dtype(x.dtype)
    # NumPy does not know half precision of other kinds than its own; single precision holds it.
    return tuple(x.shape), np.dtype(np.float32) if dtype.kind == "V" else dtype


class DrawsStore:
    """The draws of a run on disk.

    Parameters
    ----------
    folder
        The folder of the checkpoint.
    leaves
        The arrays, as :func:`leaves_of` names them.
    chains, draws
        Number of chains, and of the draws of each when the run is finished.
    together
        Whether all chains are advanced together: their draws are then in the same files.
    """

    def __init__(
        self, folder: Path, leaves: Sequence[Leaf], chains: int, draws: int, together: bool
    ) -> None:
        self._folder, self._leaves = folder, tuple(leaves)
        self._chains, self._draws, self._together = chains, draws, together
        self._arrays: dict[Leaf, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_arrays": {}}

    def create(self) -> None:
        """Begin anew, without draws."""
        zarr = _zarr()
        self.remove()
        groups = dict.fromkeys((leaf.store, leaf.group) for leaf in self._leaves)
        for store, name in groups:
            group = zarr.open_group(self._folder / store, mode="a").require_group(name)
            group.attrs["inference_library"] = "sgworld_mcmc"
            chain = self._create(group, "chain", (self._chains,), np.dtype(np.int64), ("chain",))
            chain[:] = np.arange(self._chains)
            self._create(group, "draw", (0,), np.dtype(np.int64), ("draw",))
        for leaf in self._leaves:
            group = zarr.open_group(self._folder / leaf.store, mode="r+")[leaf.group]
            axes = tuple(f"{leaf.name}_dim_{axis}" for axis in range(len(leaf.shape)))
            shape = (self._chains, 0, *leaf.shape)
            self._create(group, leaf.name, shape, leaf.dtype, ("chain", "draw", *axes))

    def remove(self) -> None:
        """Remove all draws."""
        for store in (SHOWN, HIDDEN):
            shutil.rmtree(self._folder / store, ignore_errors=True)
        self._arrays.clear()

    def clean(self) -> None:
        """Remove what a process that was killed has left half written."""
        for store in (SHOWN, HIDDEN):
            for part in (self._folder / store).rglob("*.partial"):
                part.unlink(missing_ok=True)

    def append(self, chain: int | None, start: int, piece: Sequence[np.ndarray]) -> None:
        """Write draws from number ``start`` on.

        Parameters
        ----------
        chain
            The number of the chain; None for all chains.
        start
            Number of the first draw.
        piece
            For each leaf (draws, ...), or (chains, draws, ...) of all chains.
        """
        which = slice(None) if chain is None else chain
        stop = start + np.shape(piece[0])[0 if chain is not None else 1]
        for leaf, values in zip(self._leaves, piece, strict=True):
            array = self._array(leaf)
            if array.shape[1] < stop:
                array.resize((self._chains, stop, *leaf.shape))
            array[which, start:stop] = values
        for store, group in dict.fromkeys((leaf.store, leaf.group) for leaf in self._leaves):
            draw = self._array(Leaf(store, group, "draw", (), np.dtype(np.int64)))
            length = draw.shape[0]
            if length < stop:
                draw.resize((stop,))
                draw[length:stop] = np.arange(length, stop)

    def read(self, leaf: Leaf, made: int, chains: int | None = None, every: int = 1) -> np.ndarray:
        """Return the first ``made`` draws of the first chains, or every so many of them."""
        return self._array(leaf)[: self._chains if chains is None else chains, :made:every]

    def _array(self, leaf: Leaf) -> Any:
        if leaf not in self._arrays:
            store = _zarr().open_group(self._folder / leaf.store, mode="r+")
            self._arrays[leaf] = store[leaf.path]
        return self._arrays[leaf]

    def _create(self, group, name, shape, dtype, axes):
        chains = self._chains if self._together else 1
        count = int(np.prod(shape[2:], dtype=int)) * dtype.itemsize * chains
        length = min(max(1, CHUNK_BYTES // max(count, 1)), max(self._draws, 1))
        chunks = (chains, length, *(max(1, n) for n in shape[2:]))
        if axes == ("chain",):
            chunks = (max(1, self._chains),)
        elif axes == ("draw",):
            chunks = (max(1, min(self._draws, CHUNK_BYTES // 8)),)
        return group.create_array(
            name,
            shape=shape,
            chunks=chunks,
            dtype=dtype,
            dimension_names=axes,
            # Numbers drawn at random hardly become shorter, and the time would be the run's.
            compressors=None,
            fill_value=np.nan if dtype.kind == "f" else dtype.type(0),
        )


def _zarr():
    try:
        import zarr
    except ImportError as error:
        raise ImportError(
            "Draws on disk need zarr: pip install 'sgworld-mcmc[checkpoints]'"
        ) from error
    return zarr
