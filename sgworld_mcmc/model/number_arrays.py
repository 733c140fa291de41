"""NumPy arrays as JAX can take them; what no model can compute with is refused by name."""

from typing import Any

import jax
import numpy as np

__all__ = ["check_values", "does_not_fit", "usable_array", "without_wide_integers"]

CURES = {
    "O": "Convert it to numbers, for instance with .astype(float), or to integer codes with "
    "numpy.unique(..., return_inverse=True)",
    "U": "Pass integer codes in their place: numpy.unique(..., return_inverse=True)[1]",
    "S": "Pass integer codes in their place: numpy.unique(..., return_inverse=True)[1]",
    "M": "Pass numbers, for instance days: (t - t.min()) / numpy.timedelta64(1, 'D')",
    "m": "Pass numbers, for instance days: t / numpy.timedelta64(1, 'D')",
}
KINDS = {
    "O": "Python objects",
    "U": "strings",
    "S": "byte strings",
    "M": "dates",
    "m": "time differences",
    "V": "raw bytes",
}


def usable_array(name: str, array: np.ndarray) -> Any:
    """Return an array of numbers as JAX can take it, without a copy wherever possible.

    Parameters
    ----------
    name
        The name of the argument, for messages.
    array
        Any NumPy array. One of numbers in the machine's byte order is returned as it is, a memory
        map too.

    Returns
    -------
    numpy.ndarray or dict
        A structured array becomes a dict of its fields, so that ``data["x"]`` means the same in the
        model.

    Raises
    ------
    TypeError, ValueError
        If the array holds no numbers, or has masked elements.

    Examples
    --------
    >>> usable_array("y", np.array(["a", "b"]))
    Traceback (most recent call last):
    TypeError: `y` is an array of strings (<U1), which a model cannot compute with. ...
    """
    if isinstance(array, np.ma.MaskedArray):
        hidden = int(np.ma.getmaskarray(array).sum()) if array.dtype.names is None else 1
        if hidden:
            raise ValueError(
                f"`{name}` is a masked array with {hidden} masked elements, which JAX would use "
                f"like all others. Remove these rows, or give the values and the mask as two "
                f"arguments, {name}.filled(0) and numpy.ma.getmaskarray({name}), and mask them in "
                "the model with numpyro.handlers.mask."
            )
        array = array.data
    if isinstance(array, np.matrix):  # slices of a matrix always have two axes
        array = np.asarray(array)
    if array.dtype.names is not None:
        fields = {field: array[field] for field in array.dtype.names}
        return {field: usable_array(f"{name}[{field!r}]", x) for field, x in fields.items()}
    check_values(name, array.dtype)
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "fc" and array.itemsize > (8 if array.dtype.kind == "f" else 16):
        return array.astype(np.float64 if array.dtype.kind == "f" else np.complex128)
    return array


def without_wide_integers(array: np.ndarray) -> np.ndarray:
    """Return an array whose integers JAX would wrap as floating point numbers, others as they are.

    JAX keeps 32 bits of an integer unless ``jax_enable_x64`` is set, and says nothing of others.
    """
    narrow = jax.dtypes.canonicalize_dtype(array.dtype)
    return array.astype(np.float64) if does_not_fit(array, narrow).any() else array


def does_not_fit(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Return which integers of an array another integer type has no room for.

    Examples
    --------
    >>> does_not_fit(np.array([7, 2**31]), np.dtype(np.int32))
    array([False,  True])
    """
    if array.dtype.kind not in "iu" or array.itemsize <= dtype.itemsize or array.size == 0:
        return np.zeros(1, bool)
    room = np.iinfo(dtype)
    if room.min <= array.min() and array.max() <= room.max:
        return np.zeros(1, bool)
    return (array < room.min) | (array > room.max)


def check_values(name: str, dtype: np.dtype) -> None:
    """Raise ``TypeError`` if an array of this type holds no numbers; the message says the cure."""
    kind = dtype.kind
    if kind in KINDS and dtype.type.__module__ == "numpy":
        cure = CURES.get(kind, "Pass arrays of numbers")
        raise TypeError(
            f"`{name}` is an array of {KINDS[kind]} ({dtype}), which a model cannot compute with. "
            f"{cure}."
        )
