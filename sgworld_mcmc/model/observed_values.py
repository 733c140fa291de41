"""Check the observed values against the support of their distributions, before a run.

NumPyro gives values outside of the support a density of zero, at all parameters. What a trace of
the model says about an observed site is enough to find them: nothing is compiled, and NumPy looks
at the values once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.distributions import (
    CategoricalLogits,
    CategoricalProbs,
    MaskedDistribution,
    constraints,
)

__all__ = ["ObservedValues", "check_observed", "observed_values"]


# The support of a multinomial distribution.
COUNTS = type(constraints.multinomial(1))


class ObservedValues(NamedTuple):
    """The values of an observed site that are an array argument, and where they must lie.

    Attributes
    ----------
    argument
        Which of the array arguments holds the values.
    family
        Name of the distribution.
    support
        Its support. Bounds that are an argument, such as a number of trials, are given as
        :class:`OfArgument`.
    """

    argument: int
    family: str
    support: Any


class OfArgument(NamedTuple):
    """A bound that is an array argument."""

    index: int


def observed_values(name: str, site: dict, arguments: Sequence) -> ObservedValues | None:
    """Return where the values of an observed site must lie; None if a trace does not tell.

    Parameters
    ----------
    name, site
        A site of a trace.
    arguments
        The model's array arguments in this trace.

    Raises
    ------
    ValueError
        If the shapes of distribution and values do not belong together.
    """
    value, fn = site["value"], site["fn"]
    _check_shapes(name, fn, np.shape(value))
    argument, base = _place(value, arguments), fn
    while hasattr(base, "base_dist") and not isinstance(base, MaskedDistribution):
        base = base.base_dist
    # The values of rows that are masked are of no importance.
    if argument is None or isinstance(base, MaskedDistribution):
        return None
    support = fn.support
    while hasattr(support, "base_constraint"):
        support = support.base_constraint
    bounded = hasattr(support, "lower_bound") or hasattr(support, "upper_bound")
    if not (bounded or support in (constraints.boolean, constraints.simplex)):
        return None
    bounds, structure = jax.tree.flatten(support)
    bounds = [_bound(bound, arguments) for bound in bounds]
    if any(bound is None for bound in bounds):
        return None
    family = type(base).__name__.removesuffix("Probs").removesuffix("Logits")
    return ObservedValues(argument, family, structure.unflatten(bounds))


def check_observed(observed: dict[str, ObservedValues], arguments: dict[str, Any]) -> None:
    """Raise ``ValueError`` if observed values lie outside of the support of their distribution.

    Parameters
    ----------
    observed
        What :func:`observed_values` says about the observed sites, by name.
    arguments
        The model's array arguments by name.
    """
    names, arrays = list(arguments), list(arguments.values())
    for site, known in observed.items():
        name, values = names[known.argument], np.asarray(arrays[known.argument])
        # Flattening would take a bound apart that is given as an argument.
        bounds, structure = jax.tree.flatten(known.support, is_leaf=_is_argument)
        of_arguments = any(map(_is_argument, bounds))
        bounds = [np.asarray(arrays[b.index]) if _is_argument(b) else b for b in bounds]
        inside = np.asarray(structure.unflatten(bounds)(values))
        if known.support is constraints.simplex:
            # Shares of zero are in the support, where the density is zero or infinite.
            inside = inside & (values > 0).all(axis=-1)
        if inside.all():
            continue
        first = tuple(np.argwhere(~inside)[0])
        # A vector, such as counts with a given sum, is judged as one value.
        event = values.shape[values.ndim - known.support.event_dim :]
        value = np.broadcast_to(values, inside.shape + event)[first]
        where = _range(known.support, of_arguments)
        row = f" in row {first[0]}" if first else ""
        raise ValueError(
            f"Site {site!r} observes values of `{name}` that its distribution, {known.family}, "
            f"cannot have: {int((~inside).sum())} of {inside.size} are not {where} (the first is "
            f"{value}{row}). {_cure(name, known, where, values)}"
        )


def _check_shapes(name: str, fn: Any, shape: tuple[int, ...]) -> None:
    batch = shape[: len(shape) - fn.event_dim]
    try:
        both = np.broadcast_shapes(fn.batch_shape, batch)
    except ValueError:
        cure = ""
        classes = isinstance(fn, CategoricalProbs | CategoricalLogits)
        if classes and shape[:-1] == fn.batch_shape:  # one-hot
            cure = ". A Categorical observes the numbers of the classes: pass y.argmax(-1)"
        raise ValueError(
            f"site {name!r} observes values of shape {shape}, and its distribution has the shape "
            f"{fn.batch_shape}: both need a value for each row{cure}"
        ) from None
    larger = int(np.prod(both)) > max(int(np.prod(batch)), int(np.prod(fn.batch_shape)))
    if larger and len(both) > 1 and both[-1] == both[-2]:
        raise ValueError(
            f"site {name!r} observes values of shape {shape}, and its distribution has the shape "
            f"{fn.batch_shape}: together they have the shape {both}, every row against every other "
            "one. Leave the axis of length 1 out, for instance with y[:, 0]"
        )


def _place(value: Any, arguments: Sequence) -> int | None:
    return next((i for i, argument in enumerate(arguments) if value is argument), None)


def _bound(bound: Any, arguments: Sequence) -> Any:
    """Return a bound that is known before the run; None if it is not."""
    if not isinstance(bound, jax.core.Tracer):
        return bound
    place = _place(bound, arguments)
    return None if place is None else OfArgument(place)


def _is_argument(bound: Any) -> bool:
    return isinstance(bound, OfArgument)


def _range(support: Any, of_arguments: bool) -> str:
    """Say in words where the values must lie."""
    if support is constraints.boolean:
        return "0 or 1"
    if support is constraints.simplex:
        return "shares above zero that sum to one"
    if isinstance(support, COUNTS):
        total = support.upper_bound
        return f"counts that sum to {'their totals' if of_arguments or np.ndim(total) else total}"
    what = "whole numbers" if support.is_discrete else "numbers"
    lower, upper = (getattr(support, side, None) for side in ("lower_bound", "upper_bound"))
    if of_arguments or np.ndim(lower) or np.ndim(upper):
        return f"{what} within their bounds"
    if upper is None:
        strict = isinstance(support, type(constraints.positive) | type(constraints.greater_than(0)))
        return f"{what} {'above' if strict else 'of at least'} {lower}"
    if lower is None:
        return f"{what} up to {upper}"
    return f"{what} from {lower} to {upper}"


def _cure(name: str, known: ObservedValues, where: str, values: np.ndarray) -> str:
    low, high = values.min(), values.max()
    if known.support is constraints.simplex and low > 0:
        return f"Divide each by its sum: {name} / {name}.sum(-1, keepdims=True)."
    if known.support is constraints.simplex:
        return "Give shares of zero a small value, and divide each by its sum."
    if isinstance(known.support, COUNTS):
        sums = values.sum(axis=-1)
        return (
            f"Their sums range from {sums.min()} to {sums.max()}: correct them, or pass these as "
            "`total_count`."
        )
    if "bounds" not in where and known.support.is_discrete:
        boolean = known.support is constraints.boolean
        lower = 0 if boolean else int(known.support.lower_bound)
        upper = 1 if boolean else getattr(known.support, "upper_bound", None)
        if upper is not None and low == lower + 1 and high == upper + 1:
            return f"They count from {low}: pass {name} - 1."
        if boolean and (low, high) == (-1, 1):
            return f"Pass ({name} + 1) / 2."
    return f"They range from {low} to {high}: correct them, or choose another distribution."
