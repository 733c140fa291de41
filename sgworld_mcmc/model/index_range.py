"""Find indices among the data that lie outside of the arrays which they index.

JAX promises nothing about ``a[index]`` where an index is too large: on a CPU the last entry is read
in its place, so that groups that count from one give a model with a group too few and no error. The
trace of a model tells which of its arguments are indices, and of what. NumPy repeats the few
operations between them, since to compile these takes longer than to run them.
"""

import warnings
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Var

from sgworld_mcmc.checks import user_frame

__all__ = ["IndexRead", "check_indices", "index_reads"]

# Entries of an array are read by this operation, under these promises. Indices for which the user
# has asked that they be clipped, or that they give a number in place of an entry, may be any.
READ, MODES = "gather", ("PROMISE_IN_BOUNDS",)
# What is called in a trace is a part of it, under one of these names.
CALLS = ("jit", "pjit", "closed_call")
# What may lie between an argument and an index, from the inputs and the operation's parameters. An
# index that is made in another way is computed, and no column of the data.
OPERATIONS = {
    "add": lambda x, y, **_: x + y,
    "sub": lambda x, y, **_: x - y,
    "mul": lambda x, y, **_: x * y,
    "lt": lambda x, y, **_: x < y,
    "select_n": lambda which, no, yes, **_: np.where(which, yes, no),
    "convert_element_type": lambda x, new_dtype, **_: x.astype(new_dtype),
    "reshape": lambda x, new_sizes, **_: x.reshape(new_sizes),
    "squeeze": lambda x, dimensions, **_: np.squeeze(x, dimensions),
    "concatenate": lambda *parts, dimension, **_: np.concatenate(parts, dimension),
    "slice": lambda x, start_indices, limit_indices, strides, **_: x[
        tuple(map(slice, start_indices, limit_indices, strides or (None,) * x.ndim))
    ],
    "broadcast_in_dim": lambda x, shape, broadcast_dimensions, **_: np.broadcast_to(
        np.expand_dims(x, tuple(set(range(len(shape))) - set(broadcast_dimensions))), shape
    ),
}


class IndexRead(NamedTuple):
    """An array that the model indexes by its arguments.

    Attributes
    ----------
    arguments
        Numbers of the array arguments that make the index.
    shape
        The shape of the array that is indexed.
    axes, sizes
        The axes that are indexed, and the number of entries that are read along each.
    evaluate
        ``evaluate(*arrays)`` returns the (A,) least and the (A,) largest index along each axis,
        from the arguments of these numbers, and how many of them, if not all, were negative.
    """

    arguments: tuple[int, ...]
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    sizes: tuple[int, ...]
    evaluate: Callable


def index_reads(closed: ClosedJaxpr, first: int) -> list[IndexRead]:
    """Return what a trace indexes by its arguments alone.

    Parameters
    ----------
    closed
        The trace of a model.
    first
        The inputs before this one are no array arguments: what depends on them is no index of the
        data.
    """
    jaxpr = closed.jaxpr
    inputs = {variable: number - first for number, variable in enumerate(jaxpr.invars)}
    constants = dict(zip(jaxpr.constvars, closed.consts, strict=True))
    made, reads = {}, []
    for equation, outer in _equations(jaxpr, {}):
        for variable in equation.outvars:
            made[variable] = equation, outer
        if equation.primitive.name == READ and _mode(equation) in MODES:
            read = _read(equation, outer, made, inputs, constants)
            reads.extend([] if read is None else [read])
    return reads


def check_indices(reads: list[IndexRead], arguments: dict[str, Any]) -> None:
    """Warn of indices that are out of range, before anything long is done.

    It is no error: the model may mask what it reads there.

    Parameters
    ----------
    reads
        What :func:`index_reads` has found.
    arguments
        The model's array arguments by name.
    """
    names, arrays = list(arguments), list(arguments.values())
    for read in reads:
        try:
            low, high, negative = read.evaluate(*(arrays[number] for number in read.arguments))
        except (IndexError, TypeError, ValueError):
            continue  # an operation of another version of JAX: what only warns must not stop a run
        who = [names[number] for number in read.arguments]
        said = False
        for axis, size, least, most in zip(read.axes, read.sizes, low, high, strict=True):
            if least < 0 or most + size > read.shape[axis]:
                warnings.warn(_said(who, read.shape, axis, least, most), stacklevel=user_frame())
                said = True
        if negative and not said:
            warnings.warn(_from_the_end(who, read.shape, negative), stacklevel=user_frame())


def _said(names: list[str], shape: tuple[int, ...], axis: int, least: int, most: int) -> str:
    """Say which index is out of range, what that means and what to do."""
    entries, who = shape[axis], " and ".join(f"`{name}`" for name in names) or "an array"
    cure = "Correct it, or say what is meant with array.at[index].get(mode='clip')."
    if least == 1 and most == entries and len(names) == 1:
        cure = f"It counts from one: pass {names[0]} - 1."
    # A negative index has been made to count from the end.
    reach = f"reaches {most}" if most >= entries else f"goes down to {least - entries}"
    return (
        f"The model indexes an array of shape {shape} by {who}, which {reach}: axis {axis} has "
        f"{entries} entries, 0 to {entries - 1}. JAX raises no error there and reads another entry "
        f"in its place: if the model does not mask such rows, its posterior is not the one that "
        f"was meant. {cure}"
    )


def _from_the_end(names: list[str], shape: tuple[int, ...], negative: int) -> str:
    """Say that negative indices count from the end, which is seldom meant."""
    who = " and ".join(f"`{name}`" for name in names) or "an array"
    return (
        f"The model indexes an array of shape {shape} by {who}, which is negative in {negative} "
        "places: JAX counts these from the end, and -1 reads the last entry. If the model does not "
        "mask such rows, its posterior is not the one that was meant. pandas gives missing "
        "categories the code -1: leave them out, or give them a group of their own."
    )


def _equations(jaxpr: Jaxpr, outer: dict) -> Iterator[tuple[Any, dict]]:
    """Yield the operations of a trace and of what it calls, each with its inputs' outer names."""
    for equation in jaxpr.eqns:
        inner = equation.params.get("jaxpr")
        if equation.primitive.name in CALLS and inner is not None and not inner.consts:
            below = {
                name: _outermost(given, outer)
                for name, given in zip(inner.jaxpr.invars, equation.invars, strict=True)
            }
            yield from _equations(inner.jaxpr, below)
            for result, name in zip(equation.outvars, inner.jaxpr.outvars, strict=True):
                outer[result] = _outermost(name, below)
        else:
            yield equation, outer


def _outermost(variable: Any, outer: dict) -> Any:
    while isinstance(variable, Var) and variable in outer:
        variable = outer[variable]
    return variable


def _mode(equation: Any) -> str:
    return getattr(equation.params["mode"], "name", "")


def _read(equation, outer: dict, made: dict, inputs: dict, constants: dict) -> IndexRead | None:
    """Return what an operation reads, if its index comes from arguments in a few operations."""
    operand, index = (_outermost(variable, outer) for variable in equation.invars)
    steps, used = [], []
    is_known = _trace_back(index, made, inputs, constants, steps, used)
    # An index of literals alone is the model's own.
    given = [each for step, _ in steps for each in step.invars if isinstance(each, Var)]
    held = any(variable in constants for variable in given)
    if not is_known or not (used or held):
        return None
    axes = equation.params["dimension_numbers"].start_index_map
    sizes = tuple(equation.params["slice_sizes"][axis] for axis in axes)

    def evaluate(*arrays):
        known, negative = constants | dict(zip(used, arrays, strict=True)), 0

        def value(variable):
            return np.asarray(variable.val if isinstance(variable, Literal) else known[variable])

        for step, outside in steps:
            given = [value(_outermost(variable, outside)) for variable in step.invars]
            result = OPERATIONS[step.primitive.name](*given, **step.params)
            known[step.outvars[0]] = result
            if step.primitive.name == "select_n":
                negative += _count_negative(*given)
        found = value(index).reshape(-1, len(axes))
        return found.min(0), found.max(0), negative

    numbers = tuple(inputs[variable] for variable in used)
    return IndexRead(numbers, operand.aval.shape, axes, sizes, evaluate)


def _count_negative(which: np.ndarray, no: np.ndarray, yes: np.ndarray) -> int:
    """Return how many indices a choice counts from the end; none if these are all, and meant."""
    turned = np.unique(yes - no) if no.dtype.kind == "i" and no.shape == yes.shape else ()
    from_end = len(turned) == 1 and turned[0] > 0 and np.array_equal(which, no < 0)
    return int(np.sum(which)) if from_end and not np.all(which) else 0


def _trace_back(variable, made, inputs, constants, steps: list, used: list) -> bool:
    """Collect the operations that make a variable from arguments; False if it is made otherwise."""
    if isinstance(variable, Literal) or variable in constants:
        return True
    if variable in inputs:
        if inputs[variable] < 0:
            return False
        if variable not in used:
            used.append(variable)
        return True
    if variable not in made or made[variable][0].primitive.name not in OPERATIONS:
        return False
    step, outside = made[variable]
    same = [place for other, place in steps if other is step]
    if same:
        # A function that is called twice has one trace, whose names stand for two values then.
        return same[0] is outside
    before = (_outermost(each, outside) for each in step.invars)
    if not all(_trace_back(each, made, inputs, constants, steps, used) for each in before):
        return False
    steps.append((step, outside))
    return True
