"""Arrays that are sliced and never read whole: NumPy memory maps, HDF5 datasets, Zarr arrays."""

import os
import weakref
from contextlib import suppress
from typing import Any

import numpy as np

from sgworld_mcmc.streaming.source import Column, Source

__all__ = ["ArraySource", "is_on_disk"]

# The one column of an array.
ALL = ""


def is_on_disk(value: object) -> bool:
    """Return whether a value is an array of rows that lies in a file.

    Examples
    --------
    >>> import tempfile, os
    >>> path = os.path.join(tempfile.mkdtemp(), "y.npy")
    >>> np.save(path, np.arange(5.0))
    >>> is_on_disk(np.load(path, mmap_mode="r")), is_on_disk(np.load(path))
    (True, False)
    """
    if isinstance(value, np.ndarray):
        return value.ndim > 0 and _is_mapped(value)
    kind = type(value)
    named = (kind.__module__.partition(".")[0], kind.__name__)
    return named in (("h5py", "Dataset"), ("zarr", "Array")) and len(_shape(value)) > 0


def _is_mapped(array: np.ndarray) -> bool:
    """Return whether an array's memory is that of a file: also a view of one, or part of it."""
    base = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap) and isinstance(base.base, _mapping()):
            return True
        base = base.base
    return isinstance(base, _mapping())


def _file_of(array: np.ndarray) -> tuple[int, int] | None:
    """Return a file descriptor and the place of the array's first byte; None if it is no map.

    Only contiguous arrays in the machine's byte order can be read past NumPy.
    """
    base = array
    while isinstance(base, np.ndarray) and not (
        isinstance(base, np.memmap) and isinstance(base.base, _mapping())
    ):
        base = base.base
    plain = array.flags.c_contiguous and array.dtype.isnative and hasattr(os, "preadv")
    if base is None or not plain or not isinstance(base, np.memmap) or not base.flags.c_contiguous:
        return None
    if base.mode == "c" or base.filename is None:  # changes of a copy are in memory only
        return None
    try:
        number = os.open(base.filename, os.O_RDONLY)
    except OSError:  # the file is gone, and its pages are still there
        return None
    length = os.fstat(number).st_size
    away = array.__array_interface__["data"][0] - base.__array_interface__["data"][0]
    if length < base.offset + base.nbytes:
        os.close(number)
        # To touch a page of the map that the file has no more would end the process.
        raise ValueError(
            f"The file {str(base.filename)!r} of a memory map has {length} bytes, and the map "
            f"{base.offset + base.nbytes}: it was cut short after the map was made. Restore the "
            "file, or open it anew."
        )
    return number, base.offset + away


def _mapping() -> type:
    import mmap

    return mmap.mmap


def _shape(value: Any) -> tuple[int, ...]:
    try:
        return tuple(value.shape)
    except Exception as error:  # h5py raises ValueError, in words of the HDF5 library
        raise ValueError(
            f"The shape of the {type(value).__module__.partition('.')[0]} array {value!r} cannot "
            f"be read: its file is closed. Keep it open until the run is over. ({error})"
        ) from error


class ArraySource(Source):
    """The rows of one array, read by slices of its leading axis.

    Parameters
    ----------
    array
        A NumPy array or memory map, an HDF5 dataset or a Zarr array, (N, ...).

    Examples
    --------
    >>> source = ArraySource(np.arange(6).reshape(3, 2))
    >>> source.read(1, 3)[""]
    array([[2, 3],
           [4, 5]])
    """

    def __init__(self, array: Any) -> None:
        shape = _shape(array)
        self.size, self.array = int(shape[0]), array
        dtype = np.dtype(array.dtype)
        # A row of h5py or Zarr comes in the machine's byte order only if it is asked for.
        self.columns = {ALL: Column(tuple(map(int, shape[1:])), dtype.newbyteorder("="))}

        self._file = _file_of(array) if isinstance(array, np.ndarray) else None
        if self._file is not None:
            weakref.finalize(self, os.close, self._file[0])

    def read_into(self, start: int, stop: int, out: dict[str, np.ndarray]) -> bool:
        memory, column = out[ALL], self.columns[ALL]
        if self._file is None or memory.dtype != self.array.dtype:
            return False
        # A mapped page that is touched costs an interrupt; reading the file costs only the copy.
        number, begin = self._file
        left = memoryview(memory).cast("B")
        place = begin + start * column.nbytes
        while left:
            done = os.preadv(number, [left], place)
            if done == 0:
                raise OSError(f"the file ends before row {stop}")
            left, place = left[done:], place + done
        return True

    def expect(self, start: int, stop: int) -> None:
        if self._file is not None and hasattr(os, "posix_fadvise"):
            number, begin = self._file
            row = self.columns[ALL].nbytes
            place, length = begin + start * row, (stop - start) * row
            with suppress(OSError):  # a file system that takes no advice can still be read
                os.posix_fadvise(number, place, length, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, stop: int) -> dict[str, Any]:
        # h5py checks ``bool(dataset)``: it is false once the file is closed.
        closed = not isinstance(self.array, np.ndarray) and type(self.array).__name__ == "Dataset"
        if closed and not self.array:
            raise ValueError("the HDF5 file is closed: keep it open until the run is over")
        return {ALL: self.array[start:stop]}
