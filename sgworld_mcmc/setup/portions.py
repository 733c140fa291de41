"""Average over many rows portion by portion, in several threads.

XLA spreads only large operations over the processors of a computer, and those on one batch are
small. What several threads of Python ask for runs at the same time.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from sgworld_mcmc.protocols import ArrayTree

__all__ = ["mean_of_portions"]

# The number of portions does not depend on the computer, so that the sums are the same everywhere.
PORTIONS = 16


def mean_of_portions(function: Callable, count: int, *, alone: bool = False) -> ArrayTree:
    """Return the mean over ``count`` batches from the means over portions of them.

    Parameters
    ----------
    function
        Function of the first batch and the number of batches of a portion. It returns their mean, a
        pytree of NumPy arrays.
    count
        Number of batches.
    alone
        Whether one portion is made at a time.

    Examples
    --------
    >>> squares = np.arange(100.0) ** 2
    >>> float(mean_of_portions(lambda first, number: squares[first : first + number].mean(), 100))
    3283.5
    """
    edges = np.linspace(0, count, min(PORTIONS, count) + 1).astype(int).tolist()
    precise = bool(jax.config.jax_enable_x64)  # threads do not inherit it

    def portion(first: int, last: int) -> ArrayTree:
        with jax.enable_x64(precise):
            made = function(first, last - first)
        return jax.tree.map(lambda x: x * ((last - first) / count), made)

    # The first portion compiles the function, which all threads would do otherwise.
    total = portion(*edges[:2])
    # Without `with`, which would wait for all portions after Ctrl-C.
    threads = ThreadPoolExecutor(1 if alone or jax.default_backend() != "cpu" else os.cpu_count())
    try:
        for made in threads.map(portion, edges[1:-1], edges[2:]):
            total = jax.tree.map(np.add, total, made)
    finally:
        threads.shutdown(wait=False, cancel_futures=True)
    return total
