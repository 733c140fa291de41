"""Find out whether a model may be evaluated in double precision if the user works in single.

JAX keeps one copy of every NumPy array that a traced function closes over, in the precision in
which it was first traced (0.10 and 0.12: the copy is looked up by the array's identity). A model
that closes over 64-bit NumPy arrays can therefore be traced in one precision only, all others in
both. Such arrays are found in two ways together: by walking through the objects that the model
refers to, and by looking at the constants of its traces.
"""

import functools
import types
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

__all__ = ["closes_over_numpy"]

# The walk goes this many references deep, and stops after this many objects.
DEPTH = 6
MOST = 5000


def closes_over_numpy(model: Callable, function: Callable, *args: Any) -> bool:
    """Return whether a model refers to 64-bit NumPy arrays that outlive a trace.

    Parameters
    ----------
    model
        The model as the user wrote it.
    function, args
        A function that calls the model, and arguments to trace it with.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> def make(weights):
    ...     return lambda x: jnp.sum(weights * x)
    >>> model = make(np.ones(3))
    >>> closes_over_numpy(model, model, jnp.ones(3))
    True
    >>> model = make(jnp.ones(3))
    >>> closes_over_numpy(model, model, jnp.ones(3))
    False
    """
    if any(_is_wide(value) for value in _referred(model)):
        return True
    # Arrays made during the call are new ones in each of two traces. The first trace must stay
    # alive, so that no identity is used again.
    traces = [jax.make_jaxpr(lambda *x: function(*x))(*args) for _ in range(2)]
    first, second = ({id(value) for value in _constants(trace)} for trace in traces)
    return bool(first & second)


def _is_wide(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype in (np.float64, np.int64, np.uint64)


def _referred(model: Callable) -> Iterator[Any]:
    """Yield the objects that a function refers to by closure, default, global or attribute."""
    seen, stack = set(), [(model, 0)]
    while stack and len(seen) < MOST:
        value, depth = stack.pop()
        if id(value) in seen or isinstance(value, types.ModuleType | type | str | bytes):
            continue
        seen.add(id(value))
        yield value
        if depth < DEPTH and not isinstance(value, np.ndarray | jax.Array):
            stack += [(child, depth + 1) for child in _children(value)]


def _children(value: Any) -> list:
    if isinstance(value, types.MethodType):
        return [value.__func__, *_attributes(value.__self__, _names(value.__func__.__code__))]
    if isinstance(value, functools.partial):
        return [value.func, *value.args, *value.keywords.values()]
    if isinstance(value, types.FunctionType):
        cells = [cell.cell_contents for cell in value.__closure__ or () if _is_filled(cell)]
        defaults = [*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values()]
        names = _names(value.__code__)
        return [*cells, *defaults, *(value.__globals__[n] for n in names if n in value.__globals__)]
    if isinstance(value, dict):
        return list(value.values())
    if isinstance(value, list | tuple | set | frozenset):
        return list(value)
    return list(getattr(value, "__dict__", {}).values())


def _attributes(owner: Any, names: set[str]) -> list:
    """Return the attributes of ``owner`` that a method may mean by these names.

    There are none if the method names :func:`sgworld_mcmc.exact.checks.fresh`: NumPy arrays that
    it hands to that function do not stay in the trace.
    """
    if "fresh" in names:
        return []
    attributes = [vars(owner)[name] for name in names if name in getattr(owner, "__dict__", {})]
    methods = [getattr(owner, name) for name in names if hasattr(type(owner), name)]
    return attributes + [method for method in methods if isinstance(method, types.MethodType)]


def _is_filled(cell) -> bool:
    try:
        return cell.cell_contents is not None
    except ValueError:
        return False


def _names(code: types.CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names |= _names(constant)
    return names


def _constants(closed) -> Iterator[np.ndarray]:
    """Yield the NumPy arrays with an axis among the constants of a closed jaxpr."""
    for value in closed.consts:
        if isinstance(value, np.ndarray) and value.ndim:
            yield value
    yield from _literals(closed.jaxpr)


def _literals(jaxpr) -> Iterator[np.ndarray]:
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            value = getattr(variable, "val", None)
            if isinstance(value, np.ndarray) and value.ndim:
                yield value
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(parameter, "consts"):
                yield from _constants(parameter)
            elif hasattr(parameter, "eqns"):
                yield from _literals(parameter)
