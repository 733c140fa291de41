"""What the arrays of a run hold: are they finite, and are they still the same as before?

Both questions are answered in one pass over the memory, block by block. A block stays in the
processor's cache between the questions, and no temporary array is longer than a block.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.checks import check_finite

__all__ = ["examine", "fingerprint", "identity"]

# A block has so many words of eight bytes, seen as a square of this side.
SIDE = 256
WORDS = SIDE * SIDE
MASK = 2**64 - 1
# Consecutive blocks count by powers of this odd number.
FACTOR = 0x9E3779B97F4A7C15
# Columns count by odd numbers and rows by even ones: their sum, by which a single word counts, is
# odd, so that the change of any one word changes the fingerprint.
_random = np.random.default_rng(20).integers(2**62, size=(2, SIDE), dtype=np.uint64)
COLUMNS, ROWS = 2 * _random[0] + np.uint64(1), 2 * _random[1]


def examine(arrays: dict[str, Any]) -> tuple[int | None, ...]:
    """Raise ``ValueError`` unless all arrays are finite, and return their fingerprints.

    Parameters
    ----------
    arrays
        NumPy and JAX arrays by the name that a message calls them.

    Returns
    -------
    tuple
        A number for each NumPy array, whose elements can be changed in place; None for each JAX
        array, whose elements cannot.
    """
    prints, wrong = [], {}
    for name, array in arrays.items():
        finite, value = _look(array)
        prints.append(value)
        if not finite:
            wrong[name] = array
    check_finite(wrong)
    return tuple(prints)


def fingerprint(arrays: dict[str, Any]) -> tuple[int | None, ...]:
    """The fingerprints that :func:`examine` returned for these arrays, if they are unchanged."""
    return tuple(
        _look(array, finite=False)[1] if isinstance(array, np.ndarray) else None
        for array in arrays.values()
    )


def identity(arrays: dict[str, Any]) -> tuple[int | None, ...]:
    """Return a fingerprint of every array, JAX's too: the same in another process."""
    return fingerprint({name: np.asarray(array) for name, array in arrays.items()})


def _look(array: Any, finite: bool = True) -> tuple[bool, int | None]:
    """Whether an array is finite (True if nobody asks), and the fingerprint of a NumPy array."""
    # Arrays of Python objects are refused later: no model can be traced with them.
    fixed = not isinstance(array, np.ndarray) or array.dtype.hasobject
    finite = finite and np.issubdtype(array.dtype, np.inexact)
    if fixed and not finite:
        return True, None
    if fixed and jax.default_backend() != "cpu":
        return bool(jnp.isfinite(array).all()), None
    whole, value, factor = True, 0, 1
    for block in _blocks(np.asarray(array)):
        whole = whole and (not finite or _is_finite(block))
        if not fixed:
            value = (value + factor * _block_print(block)) & MASK
            factor = factor * FACTOR & MASK
    return whole, None if fixed else value


def _blocks(array: np.ndarray) -> Iterator[np.ndarray]:
    """The elements of an array in the order of its memory, in blocks of one dimension.

    Only an array with gaps in its memory is copied, and that block by block.
    """
    length = max(1, 8 * WORDS // max(array.itemsize, 1))
    if array.flags.f_contiguous and not array.flags.c_contiguous:
        array = array.T
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        for start in range(0, flat.size, length):
            yield flat[start : start + length]
        return
    rows = max(1, length // max(array[:1].size, 1))
    for start in range(0, len(array), rows):
        yield from _blocks(np.ascontiguousarray(array[start : start + rows]))


def _is_finite(block: np.ndarray) -> bool:
    # A sum is cheaper than a look at each element, and NaN and infinity do not leave it.
    with np.errstate(all="ignore"):
        if np.isfinite(block.sum()):
            return True
    return bool(np.isfinite(block).all())


def _block_print(block: np.ndarray) -> int:
    """A weighted sum of the words of a block, modulo 2^64, from its rows' and columns' sums."""
    memory = block.view(np.uint8)
    words = memory[: memory.size // 8 * 8].view(np.uint64)
    if memory.size != 8 * WORDS:
        padded = np.zeros(8 * WORDS, np.uint8)
        padded[: memory.size] = memory
        words = padded.view(np.uint64)
    square = words.reshape(SIDE, SIDE)
    return int((COLUMNS * square.sum(0) + ROWS * square.sum(1)).sum())
