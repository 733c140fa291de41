"""Checks of arguments. Each error message names the argument, the cause and the cure."""

import difflib
import numbers
import reprlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "check_choice",
    "check_data",
    "check_finite",
    "check_integer",
    "check_key",
    "check_positive",
    "check_tolerance",
    "user_frame",
]


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``, and suggest the closest one."""
    if isinstance(value, str) and value in choices:
        return
    close = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.4)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"`{name}` must be one of {', '.join(map(repr, choices))}, not {value!r}.{hint}"
    )


def check_integer(name: str, value: object, minimum: int, maximum: int | None = None) -> int:
    """Return ``value`` as an int, and raise unless it is in ``[minimum, maximum]``."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(
            f"`{name}` must be an integer, not {value!r} ({type(value).__name__}). "
            f"Convert it with int(...) if that is what you mean."
        )
    value = int(value)
    if value < minimum or (maximum is not None and value > maximum):
        limits = f"at least {minimum}" if maximum is None else f"between {minimum} and {maximum}"
        raise ValueError(f"`{name}` must be {limits}, not {value}.")
    return value


def check_positive(name: str, value: object, *, zero: bool = False) -> float:
    """Return ``value`` as a finite float above zero, or at zero if ``zero`` is true."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real | np.ndarray | jax.Array):
        raise TypeError(f"`{name}` must be a number, not {value!r} ({type(value).__name__}).")
    if np.ndim(value) != 0:
        raise ValueError(f"`{name}` must be a scalar, not an array of shape {np.shape(value)}.")
    value = float(value)
    if not np.isfinite(value) or value < 0 or (value == 0 and not zero):
        raise ValueError(
            f"`{name}` must be {'zero or positive' if zero else 'positive'} and finite, "
            f"not {value}."
        )
    return value


def check_tolerance(value: object) -> float:
    """Return a tolerance, which must be a fraction: 0.02 for an error of 2 %."""
    value = check_positive("tolerance", value)
    if value >= 1:
        raise ValueError(
            f"`tolerance` is a relative error, and must be below 1, not {value:g}: {value / 100:g} "
            f"stands for {value:g} %."
        )
    return value


def check_key(name: str, value: object) -> None:
    """Raise ``TypeError`` unless ``value`` is a JAX random key, or an array of them."""
    typed = isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)
    raw = getattr(value, "dtype", None) == np.uint32 and np.shape(value)[-1:] == (2,)
    if not (typed or raw):
        raise TypeError(
            f"`{name}` must be a JAX random key such as jax.random.key(0), not "
            f"{reprlib.repr(value)}. It is the first argument; those of the model follow it."
        )


def check_data(data: object) -> int:
    """Return N, the common leading axis of the arrays in the pytree ``data``."""
    leaves = jax.tree_util.tree_leaves_with_path(data)
    if not leaves:
        raise ValueError("`data` holds no array: pass a pytree of arrays with N rows each.")
    sizes = {}
    for path, leaf in leaves:
        if np.ndim(leaf) == 0:
            raise ValueError(
                f"`data{jax.tree_util.keystr(path)}` is a scalar: every array in `data` needs "
                "the observations on its leading axis. Close over constants instead."
            )
        sizes[jax.tree_util.keystr(path)] = np.shape(leaf)[0]
    if len(set(sizes.values())) > 1:
        listing = ", ".join(f"data{key} has {size} rows" for key, size in sizes.items())
        raise ValueError(f"The arrays in `data` differ in their leading axis: {listing}.")
    size = next(iter(sizes.values()))
    if size == 0:
        raise ValueError("`data` has no rows.")
    return size


def check_finite(arrays: dict[str, object]) -> None:
    """Raise ``ValueError`` naming each array with NaN or infinity, and its number of bad rows."""
    problems = []
    for name, array in arrays.items():
        if isinstance(array, jax.core.Tracer) or not np.issubdtype(array.dtype, np.inexact):
            continue
        finite = np.isfinite(np.asarray(array))
        if finite.all():
            continue
        rows = ~finite.reshape(len(finite), -1).all(axis=1) if finite.ndim else ~finite[None]
        first = int(np.argmax(rows))
        problems.append(
            f"`{name}` has NaN or infinity in {int(rows.sum())} of {len(rows)} rows "
            f"(the first is row {first})"
        )
    if problems:
        raise ValueError("; ".join(problems) + ". Remove or impute these rows before sampling.")


def user_frame() -> int:
    """Return the ``stacklevel`` at which a warning names the first line outside of this package."""
    level, frame = 1, sys._getframe(1)
    package = __name__.partition(".")[0]
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        level, frame = level + 1, frame.f_back
    return level
