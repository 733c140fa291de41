"""The rows of the data in random order, and cut into batches."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.types import PRNGKey

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.minibatch import Batches

__all__ = ["cut", "generator_of", "head", "shuffle", "to_single"]


def generator_of(rng_key: PRNGKey) -> np.random.Generator:
    """NumPy's generator, seeded with a JAX key: for the random numbers of the set-up.

    Each function of ``jax.random`` costs a third of a second to compile for every shape, and a
    permutation of a million rows a second to run on a CPU.
    """
    return np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).ravel().tolist())


def shuffle(generator: np.random.Generator, data: tuple) -> tuple:
    """Copies of the data leaves with their rows in one random order."""
    order = generator.permutation(jax.tree.leaves(data)[0].shape[0])
    return jax.tree.map(lambda x: _take(x, order), data)


def _take(x: Any, order: np.ndarray) -> jax.Array:
    if isinstance(x, np.ndarray):
        return jnp.asarray(x[order])
    return jnp.take(x, order, axis=0)


def cut(data: tuple, count: int) -> Batches:
    """Cut shuffled rows into ``count`` batches whose sizes differ by at most one."""
    size = jax.tree.leaves(data)[0].shape[0]
    length = size // count
    main = jax.tree.map(lambda x: x[: count * length].reshape(count, length, *x.shape[1:]), data)
    if size % count == 0:
        return Batches(main, None)
    return Batches(main, jax.tree.map(lambda x: x[count * length :, None], data))


def head(batches: Batches, rows: int) -> Batches:
    """The first ``rows`` rows of each batch: smaller batches for estimates."""
    return Batches(_program("head")(batches.main, rows=rows), None)


def to_single(data: tuple) -> tuple:
    """The arrays in single precision where they are in double."""
    return _program("single")(data)


def _head(data, *, rows):
    return jax.tree.map(lambda x: x[:, :rows], data)


def _single(data):
    return jax.tree.map(lambda x: x.astype(_single_type(x.dtype)), data)


def _single_type(dtype):
    with jax.enable_x64(False):
        return jax.dtypes.canonicalize_dtype(dtype)


@cache
def _program(name: str):
    # One program for all leaves, made when first needed: each takes longer to compile than to run.
    if name == "head":
        return quick_jit(_head, work="little", static_argnames="rows")
    return quick_jit(_single, work="little")
