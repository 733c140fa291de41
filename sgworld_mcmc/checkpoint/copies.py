"""Copy draws and random keys between the device, the host and a disk."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.device_layout import on_this_host

__all__ = ["is_key", "on_host", "written"]


def written(x: Any, place: Any, words: np.ndarray) -> Any:
    """Return an array with draws from a disk written at a place; a NumPy array is changed."""
    if is_key(x):
        impl = jax.random.key_impl(x)
        return x.at[place].set(jax.random.wrap_key_data(words, impl=impl))
    x[place] = words
    return x


def is_key(x: Any) -> bool:
    """Return whether an array is one of random keys."""
    return jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)


def on_host(x: jax.Array, axis: int, start: int, stop: int) -> np.ndarray:
    """Return a copy of draws on the host."""
    if len(x.sharding.device_set) > 1:
        x = on_this_host(x)
    elif is_key(x):
        x = jax.random.key_data(x)
    if isinstance(x, np.ndarray):
        pass
    elif _shares_memory():
        # A view of another array object on the same memory: one of `x` itself would stay with it,
        # and the next block could not write in place.
        x = np.asarray(x.addressable_data(0))
    else:
        # A few lengths only, so that few programs are compiled.
        length = min(1 << (stop - start - 1).bit_length(), x.shape[axis])
        first = min(start, x.shape[axis] - length)
        x = np.asarray(_slice()(x, first, length, axis))
        start, stop = start - first, stop - first
    part = x[(slice(None),) * axis + (slice(start, stop),)]
    return np.array(part, np.float32 if part.dtype.kind == "V" else None)


def _shares_memory() -> bool:
    """Return whether NumPy sees the memory of the device, so that nothing need be copied first."""
    return jax.default_backend() == "cpu"


@cache
def _slice() -> Callable:
    return jax.jit(jax.lax.dynamic_slice_in_dim, static_argnums=(2, 3))
