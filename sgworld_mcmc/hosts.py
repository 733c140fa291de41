"""What the processes of a run on several hosts say to each other, beside the loop itself.

Every process runs the same program with its own rows. They must take the same decisions, so what
one of them alone knows (a file, a clock, a sum over its rows) is told to all. Values travel
pickled, exact to the bit, through JAX's own collectives; only processes of one run talk so.
"""

import pickle
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ["HostLost", "all_of", "from_first", "is_of_lost_host", "own_rows", "summed"]


# Words in the errors of the libraries by which processes talk, whose types are not their own.
WORDS = ("Gloo", "NCCL", "heartbeat", "coordination service", "Connection reset", "UNAVAILABLE")


class HostLost(RuntimeError):
    """Another process of the run has ended, or cannot be reached any more."""


def is_of_lost_host(error: Exception) -> bool:
    """Return whether an error of JAX says that a process cannot be reached."""
    return any(word in str(error) for word in WORDS)


def own_rows(size: int) -> slice:
    """Return which of N rows this process opens in a run on several hosts.

    Parameters
    ----------
    size
        Number of rows N of all processes together.

    Returns
    -------
    slice
        The rows of this process: parts of nearly equal length, in the order of the processes.

    Examples
    --------
    >>> own_rows(10)  # of one process
    slice(0, 10, None)
    """
    number, count = jax.process_index(), jax.process_count()
    return slice(number * size // count, (number + 1) * size // count)


def all_of(value: Any) -> list[Any]:
    """Return the values of all processes, in their order; all of them must call this."""
    if jax.process_count() == 1:
        return [value]
    text = np.frombuffer(pickle.dumps(value), np.uint8)
    lengths = multihost_utils.process_allgather(np.array([len(text)], np.int32)).ravel()
    # Few lengths, so that few programs are compiled.
    padded = np.zeros(1 << int(lengths.max() - 1).bit_length(), np.uint8)
    padded[: len(text)] = text
    found = np.asarray(multihost_utils.process_allgather(padded)).reshape(len(lengths), -1)
    return [pickle.loads(x[:n].tobytes()) for x, n in zip(found, lengths, strict=True)]


def from_first(function: Callable[[], Any]) -> Any:
    """Return what a function returns in the first process, in all of them.

    Raises
    ------
    Exception
        What it raises there, in all of them.
    """
    found = None
    if jax.process_index() == 0:
        try:
            found = True, function()
        except Exception as error:
            found = False, error
    whole, value = all_of(found)[0]
    if not whole:
        raise value
    return value


def summed(tree: Any) -> Any:
    """Return the sums over all processes of NumPy arrays, the same to the bit in all of them."""
    first, *others = all_of(tree)
    for other in others:
        first = jax.tree.map(np.add, first, other)
    return first
