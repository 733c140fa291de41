"""Tell rounding from rows that depend on each other, where a sum over rows does not add up.

Some models lose digits by cancellation. The variance of features that are nearly equal, computed as
the mean of squares minus the square of the mean (as Flax's normalisations do), may have no digit
left in single precision, and few in double. The log density of such a row is then rounded by far
more than an epsilon, and differently by programs for different numbers of rows. Two measurements
tell this from a model that is no sum over rows.

* *Exchanged halves.* The same program sees the halves a and b of the rows in four arrangements:
  F(a, b) + F(b, a) = F(a, a) + F(b, b) holds for every sum over rows, and each row, at its place,
  is rounded the same in all four. Rows that depend on each other fail this in full sharpness.
* *Moved digits.* The last digits of all numbers are changed at random; how far the log densities
  move is how far they are known.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["rounding_of"]

# Numbers are changed CHANGES times, by at most BITS units of their last place: a single one is
# often rounded away before it meets the cancellation.
CHANGES, BITS = 8, 8
# The error of a sum is taken for at most FACTOR times the largest change, and for no more than the
# share MOST of the log density: an answer that depends on the number of rows, such as a mean in
# place of a sum, is off by a multiple of that.
FACTOR, MOST = 3.0, 0.01


def rounding_of(
    evaluate: Callable, flat: jax.Array, data: tuple, constants: tuple, sharp: dict[str, float]
) -> dict[str, float]:
    """Return how far rounding moves the sums of the sites that pass the exchange of halves.

    Parameters
    ----------
    evaluate
        The function that :func:`sgworld_mcmc.model.additivity.make_evaluation` returns.
    flat
        The point (D,).
    data
        An even number of rows.
    sharp
        By site, the relative error of a sum of well-conditioned terms.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    halves = np.split(np.arange(size), 2)
    pairs = ((0, 1), (1, 0), (0, 0), (1, 1))
    arranged = [
        _terms(evaluate, flat, _rows(data, halves[first], halves[second]), constants)
        for first, second in pairs
    ]
    passed = [name for name, relative in sharp.items() if _exchanges(arranged, name, relative)]
    if not passed:
        return {}
    random = np.random.default_rng(0)
    changed = [
        _terms(evaluate, *jax.tree.map(lambda x: _changed(random, x), (flat, data)), constants)
        for _ in range(CHANGES)
    ]
    found = {}
    for name in passed:
        whole = arranged[0][name]
        moved = np.max([np.abs(x[name] - whole) for x in changed], axis=0).sum()
        # Both sides of the comparison are rounded.
        found[name] = float(min(2 * FACTOR * moved, MOST * np.abs(whole).sum()))
    return found


def _exchanges(arranged: list[dict[str, np.ndarray]], name: str, relative: float) -> bool:
    """Return whether F(a, b) + F(b, a) = F(a, a) + F(b, b), to a relative error."""
    sums = [terms[name].sum() for terms in arranged]
    scale = sum(np.abs(terms[name]).sum() for terms in arranged)
    return bool(abs(sums[0] + sums[1] - sums[2] - sums[3]) <= relative * scale)


def _terms(evaluate: Callable, flat: Any, data: tuple, constants: tuple) -> dict[str, np.ndarray]:
    """Return the terms of all sites, in double precision."""
    whole = jax.device_get(evaluate(flat, data, constants)).whole
    return {name: np.asarray(terms, float) for name, terms in whole.items()}


def _rows(data: tuple, *places: np.ndarray) -> tuple:
    return jax.tree.map(lambda x: x[np.concatenate(places)], data)


def _changed(random: np.random.Generator, x: jax.Array) -> jax.Array:
    """Return an array with the last digits of its numbers changed.

    Whole numbers stay what they are, because they may be codes or counts.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        return x
    values = np.asarray(x)
    step = random.uniform(-BITS, BITS, values.shape) * np.finfo(values.dtype).eps
    moved = (values * (1 + step)).astype(values.dtype)
    return jnp.asarray(np.where(values == np.round(values), values, moved))
