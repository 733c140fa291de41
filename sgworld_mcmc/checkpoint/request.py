"""What was asked of a run, in words that are the same in another process."""

import dataclasses
import functools
import types
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.data.contents import identity

__all__ = ["asked", "difference", "text_of"]

# The depth to which functions are looked into that a function has closed over.
DEEPEST = 4


def asked(**parts: Any) -> dict[str, str]:
    """Return a text for everything that was asked; mappings are taken apart.

    Examples
    --------
    >>> asked(num_samples=10, settings={"noise": "averaged"})
    {'num_samples': '10', 'noise': "'averaged'"}
    """
    made = {}
    for name, value in parts.items():
        inner = value if isinstance(value, Mapping) else {name: value}
        made |= {str(key): text_of(part) for key, part in inner.items()}
    return made


def difference(then: Mapping[str, str], now: Mapping[str, str]) -> str | None:
    """Return what differs between two requests, in words; None if nothing does."""
    for name in dict.fromkeys([*now, *then]):
        before, after = then.get(name), now.get(name)
        if before != after:
            return f"`{name}`: {before or 'nothing'} then, {after or 'nothing'} now"
    return None


def text_of(value: Any, depth: int = 0) -> str:
    """Return a value as a text; functions by their code, arrays by a fingerprint.

    Examples
    --------
    >>> text_of(lambda x: x + 1) == text_of(lambda x: x + 1), text_of((1, None, 2.5))
    (True, '(1, None, 2.5)')
    """
    inner = functools.partial(text_of, depth=depth + 1)
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return repr(value)
    if isinstance(value, type):
        return value.__qualname__
    if isinstance(value, np.ndarray | jax.Array):
        return _array(value)
    if depth > DEEPEST:
        return type(value).__qualname__
    if isinstance(value, Mapping):
        parts = (f"{key}: {inner(part)}" for key, part in value.items())
        return "{" + ", ".join(parts) + "}"
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(inner, value)) + ")"
    if isinstance(value, functools.partial):
        return f"partial({', '.join(map(inner, (value.func, value.args, value.keywords)))})"
    if isinstance(value, types.MethodType):
        return f"{inner(value.__func__)} of {inner(value.__self__)}"
    if isinstance(value, types.FunctionType):
        return _function(value, inner)
    name = type(value).__qualname__
    if dataclasses.is_dataclass(value):
        fields = (f"{f.name}={inner(getattr(value, f.name))}" for f in dataclasses.fields(value))
        return f"{name}({', '.join(fields)})"
    return name


def _array(value: Any) -> str:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.extended):  # random keys
        return f"{jax.random.key_impl(value)} {np.asarray(jax.random.key_data(value)).tolist()}"
    if value.dtype.hasobject:
        return f"array of objects {value.shape}"
    (number,) = identity({"": value})
    return f"array {value.dtype}{value.shape} {number:016x}"


def _function(value: types.FunctionType, inner) -> str:
    seen = [value.__defaults__, value.__kwdefaults__]
    for cell in value.__closure__ or ():
        try:
            seen.append(cell.cell_contents)
        except ValueError:  # a cell that is still empty
            seen.append(None)
    text = _code(value.__code__) + "".join(inner(x) for x in seen if x is not value)
    return f"{value.__qualname__} {zlib.crc32(text.encode()):08x}"


def _code(code: types.CodeType) -> str:
    """Return what a function does, without names of files and numbers of lines."""
    constants = (_code(x) if isinstance(x, types.CodeType) else repr(x) for x in code.co_consts)
    return f"{code.co_code.hex()}{code.co_names}{''.join(constants)}"
