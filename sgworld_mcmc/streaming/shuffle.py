"""Write shuffled copies of files of rows that do not fit in memory.

Two passes, each of which reads and writes in long runs. The first deals the rows into parts, each
row to a part at random; the second shuffles each part in memory and writes it behind the last. All
orders are equally likely. Files that belong together get the same order.
"""

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sgworld_mcmc.memory import available_memory, readable
from sgworld_mcmc.streaming.arrays import ALL, ArraySource
from sgworld_mcmc.streaming.shuffle_files import Created, Opened, open_inputs, outputs_of

__all__ = ["shuffle_files"]

# Rows are read so many bytes at a time; a part has at most this many bytes, and at most this part
# of the free memory (it is there twice, as it was read and as it is written).
PIECE_BYTES, PART_BYTES, PART_OF_MEMORY = 2**25, 2**29, 1 / 8
# All parts of all arrays are open at a time: this many files at most.
MOST_FILES = 512


def shuffle_files(
    paths: Sequence[str | Path],
    out: str | Path,
    seed: int = 0,
    progress: Callable[[str, float], None] | None = None,
    part_bytes: int | None = None,
) -> list[Path]:
    """Write shuffled copies of aligned files.

    Parameters
    ----------
    paths
        ``.npy`` files, HDF5 files (``.h5``, ``.hdf5``) and Zarr stores (folders ending in
        ``.zarr``). All arrays in them whose leading axis is the longest one, the rows, are brought
        into one common random order; other arrays of HDF5 and Zarr files are copied.
    out
        Folder for the copies, which have the names of the files. It is made if it is not there.
    seed
        Decides the order.
    progress
        Function that is told the pass and the fraction of it that is done.
    part_bytes
        Largest size of a part, in bytes; None takes up to 512 MB and an eighth of the free memory.

    Returns
    -------
    list of Path
        The copies.

    Raises
    ------
    ValueError
        If a file has an unknown form, arrays have different numbers of rows, or a copy would be
        written over a file.
    OSError
        If the disk has not the room: the copies take as much as the files, and so do the parts,
        which are removed at the end.

    Examples
    --------
    >>> folder = Path(tempfile.mkdtemp())
    >>> np.save(folder / "X.npy", np.arange(20).reshape(10, 2))
    >>> np.save(folder / "y.npy", np.arange(10))
    >>> _ = shuffle_files([folder / "X.npy", folder / "y.npy"], folder / "shuffled")
    >>> X, y = (np.load(folder / "shuffled" / name) for name in ("X.npy", "y.npy"))
    >>> bool((X[:, 0] == 2 * y).all()), bool((y == np.arange(10)).all()), sorted(y.tolist())
    (True, False, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    """
    tell = progress or (lambda name, done: None)
    out = Path(out)
    opened = open_inputs([Path(path) for path in paths])
    size = opened[0].array.shape[0]
    row_bytes = sum(x.row_bytes for x in opened)
    out.mkdir(parents=True, exist_ok=True)
    total = size * row_bytes
    free = shutil.disk_usage(out).free
    if 2.05 * total > free:
        raise OSError(
            f"To shuffle {readable(total)} takes {readable(2 * total)} on the disk of {out}, and "
            f"{readable(free)} are free there."
        )
    created = outputs_of([Path(path) for path in paths], opened, out)
    most = part_bytes or min(PART_BYTES, int(PART_OF_MEMORY * available_memory()))
    count = max(1, min(MOST_FILES // len(opened), -(-total // most)))
    folder = Path(tempfile.mkdtemp(prefix=".parts-", dir=out))
    try:
        generator = np.random.default_rng(seed)
        _deal(opened, size, row_bytes, folder, count, generator, tell)
        _join(opened, created, folder, count, generator, tell)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return created.close()


def _deal(
    opened: list[Opened],
    size: int,
    row_bytes: int,
    folder: Path,
    count: int,
    generator: np.random.Generator,
    tell: Callable,
) -> None:
    """Append every row to a part that is drawn at random."""
    sources = [ArraySource(x.array) for x in opened]
    files = [
        [open(folder / f"{part}-{place}", "wb") for place in range(len(opened))]
        for part in range(count)
    ]
    length = max(1, PIECE_BYTES // row_bytes)
    try:
        for start in range(0, size, length):
            stop = min(start + length, size)
            parts = generator.integers(0, count, stop - start)
            order = np.argsort(parts, kind="stable")
            edges = np.searchsorted(parts[order], np.arange(count + 1))
            for place, source in enumerate(sources):
                rows = np.ascontiguousarray(np.asarray(source.read(start, stop)[ALL])[order])
                for part in range(count):
                    rows[edges[part] : edges[part + 1]].tofile(files[part][place])
            tell("dealing rows", stop / size)
    finally:
        for several in files:
            for file in several:
                file.close()


def _join(
    opened: list[Opened],
    created: Created,
    folder: Path,
    count: int,
    generator: np.random.Generator,
    tell: Callable,
) -> None:
    """Write the rows of part after part, each in random order."""
    done, size = 0, opened[0].array.shape[0]
    for part in range(count):
        order: Any = None
        for place, one in enumerate(opened):
            path = folder / f"{part}-{place}"
            rows = np.fromfile(path, one.dtype).reshape(-1, *one.shape)
            order = generator.permutation(len(rows)) if order is None else order
            created.write(place, done, rows[order])
            path.unlink()
        done += len(order)
        tell("shuffling parts", done / size)
