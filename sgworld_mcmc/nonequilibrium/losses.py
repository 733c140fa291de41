"""Sum losses and their derivatives over the examples, in chunks and in float64.

`example_loss(position, example)` is the loss of one example; its *mean* over the data is the loss
L. Derivatives of L are sums over chunks of rows, so that memory is bounded by a chunk's per-example
gradients (some tens of MB) plus a float64 copy of the data, not by N x D. JAX's global precision
does not matter.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from sgworld_mcmc.checks import check_data, check_integer, check_positive

__all__ = ["loss_hessian"]

# Largest number of entries in a (rows, D) array of per-example gradients: 8 MB in float64.
_CHUNK_ENTRIES = 2**20


def loss_hessian(example_loss: Callable, position, data) -> Float64[np.ndarray, "D D"]:
    """Compute the Hessian of the mean loss in float64, by Hessian-vector products.

    Parameters
    ----------
    example_loss : callable
        ``example_loss(position, example) -> scalar``; its mean over the data is the loss.
    position : array (D,)
        Flat position.
    data : pytree of arrays
        Arrays with the leading axis N; an example is one row of every array.

    Returns
    -------
    numpy.ndarray
        (D, D) float64 Hessian, symmetrised.

    Examples
    --------
    >>> import numpy as np
    >>> loss = lambda w, x: 0.5 * (w @ x) ** 2
    >>> print(loss_hessian(loss, np.zeros(2), np.array([[1.0, 0.0], [1.0, 2.0]])))
    [[1. 1.]
     [1. 2.]]
    """
    position, data, size = prepare(example_loss, position, data)
    with jax.enable_x64(True):
        hessian = np.asarray(_hessian(example_loss, position, data, size))
    return (hessian + hessian.T) / 2


def prepare(example_loss, position, data):
    """Check the three arguments; return position and data as float64 NumPy arrays, and N."""
    if not callable(example_loss):
        raise TypeError(
            f"`example_loss` must be a function (position, example) -> scalar, not "
            f"{type(example_loss).__name__}."
        )
    position = check_position("position", position)
    size = check_data(data)
    data = jax.tree.map(_to_float64, data)
    for path, leaf in jax.tree_util.tree_leaves_with_path(data):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            row = int(np.argmin(np.isfinite(leaf).reshape(size, -1).all(axis=1)))
            raise ValueError(
                f"`data{jax.tree_util.keystr(path)}` has NaN or infinity, first in row {row}: "
                "remove or impute such rows."
            )
    with jax.enable_x64(True):
        example = jax.tree.map(lambda x: x[0], data)
        result = jax.eval_shape(example_loss, position, example)
    if getattr(result, "shape", None) != ():
        raise ValueError(
            "`example_loss(position, example)` must return a scalar for one example (a row of "
            f"every array in `data`), not {result}. Its mean over the data is the loss."
        )
    return position, data, size


def check_position(name, position):
    """Return a flat, finite position as a float64 NumPy array; raise if it is not."""
    position = np.asarray(position)
    if position.ndim != 1:
        raise ValueError(
            f"`{name}` must be a flat array (D,), not of shape {position.shape}: use "
            "jax.flatten_util.ravel_pytree, and unravel inside `example_loss`."
        )
    position = position.astype(np.float64)
    if not np.isfinite(position).all():
        bad = np.flatnonzero(~np.isfinite(position))[:5].tolist()
        raise ValueError(f"`{name}` has NaN or infinity at coordinates {bad}.")
    return position


def check_batches(size, batch_size, learning_rate=1.0):
    """Check and return (batch size, number of batches M = ceil(N / B), learning rate)."""
    batch_size = check_integer("batch_size", batch_size, 1, size)
    return batch_size, -(-size // batch_size), check_positive("learning_rate", learning_rate)


def chunk_rows(size, dim):
    """Return the number of rows in a chunk, which bounds the per-example gradients."""
    return max(1, min(size, _CHUNK_ENTRIES // max(dim, 1)))


def chunked_sum(function: Callable, data, rows: int):
    """Sum ``function(rows of data)`` over chunks, inside traced code.

    ``function`` must return the sum over the rows that it gets, as a pytree. Reverse passes
    recompute it instead of storing its intermediate values, so that memory stays bounded.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    count, rest = divmod(size, rows)
    if count == 1 and not rest:
        return function(data)
    function = jax.checkpoint(function)
    main = jax.tree.map(lambda x: x[: count * rows].reshape(count, rows, *x.shape[1:]), data)
    if count == 1:
        total = function(jax.tree.map(lambda x: x[0], main))
    else:
        zero = jax.eval_shape(function, jax.tree.map(lambda x: x[0], main))
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zero)
        total, _ = jax.lax.scan(
            lambda t, chunk: (jax.tree.map(jnp.add, t, function(chunk)), None), zero, main
        )
    if rest:
        tail = function(jax.tree.map(lambda x: x[count * rows :], data))
        total = jax.tree.map(jnp.add, total, tail)
    return total


def mean_loss(example_loss, position, data, size):
    """Return the loss L, inside traced code."""
    rows = chunk_rows(size, position.shape[0])

    def sum_of(chunk):
        return jnp.sum(jax.vmap(example_loss, (None, 0))(position, chunk))

    return chunked_sum(sum_of, data, rows) / size


def hessian_columns(function, position, size):
    """Return the (D, D) Hessian of a traced function of N rows, some columns at a time."""
    dim = position.shape[0]
    columns = max(1, min(dim, 8 * _CHUNK_ENTRIES // min(_CHUNK_ENTRIES, size * dim)))
    gradient = jax.grad(function)
    return jax.lax.map(
        lambda v: jax.jvp(gradient, (position,), (v,))[1],
        jnp.eye(dim, dtype=position.dtype),
        batch_size=columns,
    )


@partial(jax.jit, static_argnums=(0, 3))
def _hessian(example_loss, position, data, size):
    return hessian_columns(lambda p: mean_loss(example_loss, p, data, size), position, size)


@partial(jax.jit, static_argnums=0)
def _gradients(example_loss, position, rows):
    return jax.vmap(jax.grad(example_loss), (None, 0))(position, rows)


def gradient_moments(example_loss, position, data, size):
    """Return the mean (D,) and covariance (D, D), divisor N, of the examples' gradients.

    The caller must have enabled 64-bit JAX.
    """
    dim = position.shape[0]
    rows = chunk_rows(size, dim)
    shift, total, products = None, np.zeros(dim), np.zeros((dim, dim))
    for start in range(0, size, rows):
        chunk = jax.tree.map(lambda x, s=start: x[s : s + rows], data)
        gradients = np.asarray(_gradients(example_loss, position, chunk))
        # A shift near the mean keeps the difference of products from cancelling.
        shift = gradients.mean(axis=0) if shift is None else shift
        gradients = gradients - shift
        total += gradients.sum(axis=0)
        products += gradients.T @ gradients
    offset = total / size
    return shift + offset, products / size - np.outer(offset, offset)


def _to_float64(array):
    array = np.asarray(array)
    return array.astype(np.float64) if np.issubdtype(array.dtype, np.floating) else array
