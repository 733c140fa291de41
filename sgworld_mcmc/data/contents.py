"""Check that the arrays of a run are finite, and find out whether they have changed since.

One pass over the memory does both, block by block. A block stays in the processor's cache between
the two, and no temporary array is longer than a block.
"""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.checks import check_finite

__all__ = ["examine", "fingerprint", "identity"]

# A block has WORDS words of eight bytes, seen as a square of this side.
SIDE = 256
WORDS = SIDE * SIDE
MASK = 2**64 - 1
# Consecutive blocks are weighted with powers of this odd number.
FACTOR = 0x9E3779B97F4A7C15
# An odd number with many bits.
MIX = np.uint64(0xBF58476D1CE4E5B9)
# Columns are weighted with odd numbers and rows with even ones. The weight of a single word is the
# sum of the two and odd, so that the change of any one word changes the fingerprint.
_random = np.random.default_rng(20).integers(2**62, size=(2, SIDE), dtype=np.uint64)
COLUMNS, ROWS = 2 * _random[0] + np.uint64(1), 2 * _random[1]


def examine(arrays: dict[str, Any]) -> tuple[int | None, ...]:
    """Raise ``ValueError`` unless all arrays are finite, and return their fingerprints.

    Parameters
    ----------
    arrays
        NumPy and JAX arrays by the name that a message gives them.

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
    """Return the fingerprints of arrays: those of :func:`examine` if they have not changed."""
    return tuple(
        _look(array, finite=False)[1] if isinstance(array, np.ndarray) else None
        for array in arrays.values()
    )


def identity(arrays: dict[str, Any]) -> tuple[int | None, ...]:
    """Return a fingerprint of every array, also of JAX's, which is the same in other processes."""
    return fingerprint({name: np.asarray(array) for name, array in arrays.items()})


def _look(array: Any, finite: bool = True) -> tuple[bool, int | None]:
    """Return whether an array is finite (True if not asked), and a NumPy array's fingerprint."""
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
    """Yield the elements of an array in the order of its memory, in blocks of one dimension.

    Only an array with gaps in its memory is copied, one block after the other.
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
    # A sum is cheaper than a look at each element, and it is not finite if an element is not.
    with np.errstate(all="ignore"):
        if np.isfinite(block.sum()):
            return True
    return bool(np.isfinite(block).all())


def _block_print(block: np.ndarray) -> int:
    """Return a weighted sum of a block's words, modulo 2^64, from sums of rows and columns."""
    memory = block.view(np.uint8)
    words = memory[: memory.size // 8 * 8].view(np.uint64)
    if memory.size != 8 * WORDS:
        padded = np.zeros(8 * WORDS, np.uint8)
        padded[: memory.size] = memory
        words = padded.view(np.uint64)
    # Mixed first (each step can be undone, so that different words stay different): the high bits,
    # a sign for instance, then count with all bits of the weights.
    words = words * MIX
    words ^= words >> np.uint64(32)
    square = words.reshape(SIDE, SIDE)
    return int((COLUMNS * square.sum(0) + ROWS * square.sum(1)).sum())
