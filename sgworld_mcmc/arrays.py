"""Hand numbers to JAX, and look at its arrays in another shape, without compiling programs.

To compile even the smallest program takes ten milliseconds or more, for every shape and precision.
NumPy does on the host what JAX would compile a program for.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["float_dtype", "from_numpy", "named_leaves", "reshaped"]


def float_dtype() -> np.dtype:
    """Return the precision of JAX's floating-point numbers as it is set now."""
    return jnp.result_type(float)


def from_numpy(x: Any, dtype: Any = None) -> jax.Array:
    """Return numbers as a JAX array.

    Parameters
    ----------
    x
        A number or an array. A JAX array of the right precision is returned as it is.
    dtype
        The precision; None for the present precision of JAX.

    Examples
    --------
    >>> from_numpy([1, 2.5])
    Array([1. , 2.5], dtype=float...)
    """
    if isinstance(x, jax.Array):
        return jnp.asarray(x, dtype)
    x = np.asarray(x)
    # JAX would compile the conversion to another precision.
    dtype = jax.dtypes.canonicalize_dtype(x.dtype if dtype is None else dtype)
    return jnp.asarray(x.astype(dtype, copy=False), dtype)


def named_leaves(tree: Any) -> dict[str, Any]:
    """Return the leaves of a pytree by dotted name.

    Examples
    --------
    >>> named_leaves({"loss": 1.0, "kept": (2.0, {"x": 3.0})})
    {'kept.0': 2.0, 'kept.1.x': 3.0, 'loss': 1.0}
    """
    name = lambda path: jax.tree_util.keystr(path, simple=True, separator=".")  # noqa: E731
    return {name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def reshaped(x: jax.Array, shape: tuple[int, ...], rows: int | None = None) -> jax.Array:
    """Return the first rows in another shape; on a CPU without the copy that XLA would make."""
    unknown = jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended)  # random keys
    if jax.default_backend() != "cpu" or unknown:
        return x[:rows].reshape(shape)
    return jax.device_put(np.asarray(x)[:rows].reshape(shape), may_alias=True)
