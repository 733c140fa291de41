"""Checks of the arguments of exact posteriors. Errors name the argument, the cause and the cure."""

import operator

import jax
import jax.numpy as jnp
import numpy as np


def finite_array(name, value, ndim):
    """Copy ``value`` to a finite float64 array.

    Parameters
    ----------
    name : str
        The argument's name, for the error message.
    value : array_like
        Real numbers; booleans and integers are converted.
    ndim : int or tuple of int
        The allowed number or numbers of dimensions.

    Returns
    -------
    numpy.ndarray
        A float64 copy, so that a later change of the caller's array changes nothing here.

    Raises
    ------
    ValueError
        If the values are not numbers, the number of dimensions is wrong, there are no rows, or
        there is NaN or infinity.
    """
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`{name}` must be an array of real numbers: {error}") from error
    if array.ndim not in allowed:
        wanted = " or ".join(f"{n}-d" for n in allowed)
        cure = "reshape it with [:, None]" if array.ndim < min(allowed) else "reshape or ravel it"
        raise ValueError(f"`{name}` has shape {array.shape}; it must be {wanted}: {cure}.")
    if array.ndim and array.size == 0:
        raise ValueError(f"`{name}` is empty (shape {array.shape}); pass at least one row.")
    bad = ~np.isfinite(array)
    if bad.any():
        rows = int(bad.reshape(len(array), -1).any(axis=1).sum()) if array.ndim else 1
        raise ValueError(
            f"`{name}` has NaN or infinite values in {rows} of {len(array) if array.ndim else 1} "
            "rows; drop or impute those rows."
        )
    return array


def fresh(array):
    """Return the numbers of a stored array as a new JAX array, for use inside a model.

    JAX keeps a NumPy array that a model refers to in the precision in which the model was first
    traced, so that the model could not be traced in another precision.
    """
    return jnp.asarray(np.asarray(array).tolist())


def same_rows(**arrays):
    """Raise unless the named arrays have the same number of rows."""
    rows = {name: len(array) for name, array in arrays.items()}
    if len(set(rows.values())) > 1:
        listed = ", ".join(f"`{name}` has {n} rows" for name, n in rows.items())
        raise ValueError(f"{listed}; the arrays must describe the same observations, row by row.")


def whole_numbers(name, array, upper=None):
    """Return ``array`` as int32 after checking that it holds integers from 0 to ``upper``.

    JAX would silently wrap or truncate 64-bit integers in its default mode.
    """
    limit = np.iinfo(np.int32).max if upper is None else upper
    bad = (array < 0) | (array > limit) | (array != np.round(array))
    if bad.any():
        wanted = "0 or 1" if upper == 1 else f"whole numbers from 0 to {limit}"
        first = array[bad][0]
        raise ValueError(
            f"`{name}` must hold {wanted}; {int(bad.sum())} of {array.size} rows do not "
            f"(the first is {first:g}). Recode or drop them."
        )
    return array.astype(np.int32)


def finite_setting(name, value, shape):
    """Broadcast a finite setting, a scalar or an array, to a float64 array of ``shape``."""
    array = finite_array(name, value, tuple(range(len(shape) + 1)))
    if array.shape not in ((), tuple(shape)):
        raise ValueError(f"`{name}` has shape {array.shape}; pass a scalar or shape {shape}.")
    return np.broadcast_to(array, shape).copy()


def positive_setting(name, value, shape=()):
    """Check and broadcast a positive setting, like `finite_setting`; return a scalar as a float."""
    array = finite_setting(name, value, shape)
    if not (array > 0).all():
        raise ValueError(f"`{name}` must be positive, got {np.min(array):g}; pass a value above 0.")
    return float(array) if shape == () else array


def positive_integer(name, value):
    """Return ``value`` as a Python int of at least 1."""
    try:
        number = operator.index(value)
    except TypeError as error:
        raise TypeError(f"`{name}` must be an integer, got {type(value).__name__}.") from error
    if number < 1:
        raise ValueError(f"`{name}` must be at least 1, got {number}.")
    return number


def prng_key(key, caller):
    """Return a single JAX key; None stands for the documented fixed ``jax.random.key(0)``."""
    if key is None:
        return jax.random.key(0)
    dtype = getattr(key, "dtype", None)
    typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
    raw = dtype == np.uint32 and np.ndim(key) == 1
    if (typed and key.shape == ()) or raw:
        return key
    raise TypeError(
        f"`key` must be one JAX key such as jax.random.key(0), got {type(key).__name__}. "
        f"To use your own arrays call {caller}.from_data(...)."
    )
