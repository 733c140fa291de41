"""The files that are shuffled: ``.npy``, HDF5 and Zarr, opened and created."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Created", "Opened", "open_inputs", "outputs_of"]

NPY, HDF5, ZARR = (".npy",), (".h5", ".hdf5"), (".zarr",)


class Opened(NamedTuple):
    """An array of rows in a file.

    Attributes
    ----------
    file, name
        Number of the file, and the array's name there (``""`` for a file of one array).
    array
        What is sliced.
    """

    file: int
    name: str
    array: Any

    @property
    def dtype(self) -> np.dtype:
        """Type of the numbers, in the machine's byte order."""
        return np.dtype(self.array.dtype).newbyteorder("=")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of what one row has."""
        return tuple(self.array.shape[1:])

    @property
    def row_bytes(self) -> int:
        """Number of bytes of a row."""
        return int(np.prod(self.shape, dtype=int)) * self.dtype.itemsize


class Created:
    """The copies, written from beginning to end.

    Parameters
    ----------
    arrays
        For each opened array the one to write to.
    paths
        The files.
    closing
        Functions that complete the files.
    """

    def __init__(self, arrays: list, paths: list[Path], closing: list[Callable]) -> None:
        self._arrays, self._paths, self._closing = arrays, paths, closing

    def write(self, place: int, start: int, rows: np.ndarray) -> None:
        """Write rows of an array."""
        self._arrays[place][start : start + len(rows)] = rows

    def close(self) -> list[Path]:
        """Complete the files and return their paths."""
        for close in self._closing:
            close()
        return self._paths


def open_inputs(paths: list[Path]) -> list[Opened]:
    """Return the arrays of rows in files; raise unless they have one length."""
    if not paths:
        raise ValueError("Name the files to shuffle.")
    found = []
    for number, path in enumerate(paths):
        for name, array in _arrays(path).items():
            if not np.dtype(array.dtype).hasobject:
                found.append(Opened(number, name, array))
    longest = max((x.array.shape[0] for x in found), default=0)
    if longest == 0:
        raise ValueError(f"There are no rows in {', '.join(map(str, paths))}.")
    rows = [x for x in found if x.array.shape[0] == longest]
    for number, path in enumerate(paths):
        if not any(x.file == number for x in rows):
            lengths = [x.array.shape[0] for x in found if x.file == number]
            raise ValueError(
                f"{path} has {max(lengths, default=0)} rows, and another file {longest}: files "
                "that are shuffled together have the same rows."
            )
    return rows


def outputs_of(paths: list[Path], opened: list[Opened], out: Path) -> Created:
    """Create the copies, with everything that is not rows copied."""
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        raise ValueError(f"Two of the files have the same name: {sorted(names)}.")
    arrays, closing = [None] * len(opened), []
    for number, path in enumerate(paths):
        target = out / path.name
        if target.exists():
            raise ValueError(f"{target} exists: name another folder, or remove it.")
        own = {x.name: place for place, x in enumerate(opened) if x.file == number}
        if path.suffix in NPY:
            one = opened[own[""]]
            made = np.lib.format.open_memmap(
                target, "w+", one.dtype, (one.array.shape[0], *one.shape)
            )
            arrays[own[""]] = made
            closing.append(made.flush)
            continue
        group, close = _group(target, "w")
        closing.append(close)
        source, done = _group(path, "r")
        _copy_attributes(source, group)
        for name, array in _arrays(path).items():
            made = _like(group, name, array, path.suffix in HDF5)
            _copy_attributes(array, made)
            if name in own:
                arrays[own[name]] = made
            else:
                made[...] = array[...]
        done()
    return Created(arrays, [out / name for name in names], closing)


def _arrays(path: Path) -> dict[str, Any]:
    """Return the arrays of a file by name."""
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.suffix in NPY:
        array = np.load(path, mmap_mode="r")
        return {"": array} if array.ndim else {}
    if path.suffix in HDF5:
        import h5py

        group, found = _group(path, "r")[0], {}
        group.visititems(lambda n, x: found.update({n: x} if isinstance(x, h5py.Dataset) else {}))
    elif path.suffix in ZARR:
        import zarr

        group, found = _group(path, "r")[0], {}
        if isinstance(group, zarr.Array):
            raise ValueError(f"{path} is a single Zarr array: put it into a group.")
        found = {name: x for name, x in group.members(None) if isinstance(x, zarr.Array)}
    else:
        raise ValueError(
            f"{path} is none of .npy, {', '.join(HDF5)} and {', '.join(ZARR)}, which can be "
            "shuffled. Parquet files: write their columns to one of these first."
        )
    return {name: x for name, x in found.items() if x.ndim}


def _group(path: Path, mode: str) -> tuple[Any, Callable]:
    """Return the root group of an HDF5 or Zarr file, and the function that closes it."""
    package = "h5py" if path.suffix in HDF5 else "zarr"
    try:
        if package == "h5py":
            import h5py

            file = h5py.File(path, mode)
            return file, file.close if mode == "w" else lambda: None
        import zarr

        return zarr.open(str(path), mode="r") if mode == "r" else zarr.group(
            str(path)
        ), lambda: None
    except ImportError as error:
        raise ImportError(
            f"{path} is read through {package}: pip install 'sgworld-mcmc[streaming]'."
        ) from error


def _like(group: Any, name: str, array: Any, hdf5: bool) -> Any:
    """Return a new array of the same shape, type, chunks and compression."""
    if hdf5:
        return group.create_dataset(
            name,
            array.shape,
            array.dtype,
            chunks=array.chunks,
            compression=array.compression,
            compression_opts=array.compression_opts,
        )
    return group.create_array(
        name,
        shape=array.shape,
        dtype=array.dtype,
        chunks=array.chunks,
        compressors=array.compressors,
    )


def _copy_attributes(source: Any, target: Any) -> None:
    for name, value in source.attrs.items():
        target.attrs[name] = value
