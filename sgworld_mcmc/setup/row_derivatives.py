"""Derivatives of single rows at the center, and the batches' derivatives that they add up to.

A row touches one group of each grouping. Its log likelihood is a function of k numbers only: the q
parameters of its group in each grouping, and the s parameters without a group. Its first and
second derivatives along them come from directions in which all groups move together.
"""

from collections.abc import Callable
from itertools import combinations
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.arrow import Arrow, split
from sgworld_mcmc.gradients.batch_expansions import BatchExpansions, Crossing, GroupBlocks
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.setup.groups import Structure

__all__ = ["RowDerivatives", "batch_expansions", "count_numbers", "row_derivatives"]

# The parts are added in double precision. What a fault leaves out is of order one.
ROUNDING = 1e-3


class RowDerivatives(NamedTuple):
    """Derivatives of the potentials of N rows along k directions, in single precision.

    The directions are the parameters of each grouping, one by one for all groups together, and then
    the parameters without a group.

    Attributes
    ----------
    first
        k arrays (N,) of first derivatives.
    second
        k lists of k arrays (N,): second derivatives.
    """

    first: list[np.ndarray]
    second: list[list[np.ndarray]]


def count_numbers(structure: Structure, size: int) -> int:
    """Return how many numbers the derivatives of all rows are."""
    k = sum(grouping.columns.shape[1] for grouping in structure.groupings) + len(structure.rest)
    return size * (k + k * (k + 1) // 2)


def row_derivatives(functions, center, feed, constants, structure: Structure) -> RowDerivatives:
    """Return the derivatives at the center.

    Parameters
    ----------
    functions, feed, constants
        The model's :class:`~sgworld_mcmc.setup.compiled_functions.SetUpFunctions` and its data, in
        the precision of the set-up.
    center
        (D,) center.
    """
    parts = [places for grouping in structure.groupings for places in grouping.columns.T]
    directions = np.zeros((len(parts) + len(structure.rest), len(center)))
    for direction, places in zip(directions, [*parts, *structure.rest[:, None]], strict=True):
        direction[places] = 1
    number = len(directions)
    first, second = [None] * number, [[None] * number for _ in range(number)]
    with jax.enable_x64(functions.model.precise):
        position = from_numpy(np.asarray(center))
        vectors = [from_numpy(direction) for direction in directions]
        for a in range(number):
            for b in range(a, number):
                count_rows(feed.size)
                found = functions.mixed(position, vectors[a], vectors[b], feed, constants)
                first[a], mixed = (np.asarray(x, np.float32) for x in found)
                second[a][b] = second[b][a] = mixed
    return RowDerivatives(first, second)


def batch_expansions(
    rows: RowDerivatives,
    structure: Structure,
    coordinates: Arrow,
    gradient: np.ndarray,
    batches: np.ndarray,
    factor: float,
) -> BatchExpansions:
    """Return the derivatives of M batches at the center, as NumPy arrays.

    What the rows' derivatives leave of those of the whole density is the prior's part.

    Parameters
    ----------
    coordinates, gradient
        Coordinates with K K^T the inverse Hessian of the potential of all rows, and the (D,)
        gradient of the log density.
    batches
        (M, L) numbers of the rows of each batch, N where a batch has one row less than others.
    factor
        The factor before the sum over the rows of a batch: M, if all rows are in one.

    Raises
    ------
    RuntimeError
        If the batches' Hessians do not add up to K^-T K^-1, which the sampler takes for their sum.
    """
    size, count = len(rows.first[0]), len(batches)
    batch = np.full(size + 1, count)
    batch[batches] = np.arange(count)[:, None]
    weights = factor * (batches < size).sum(1) / size

    def sums(values, index=None, groups=1):
        """Return the estimates (M, groups) from batches of sums over rows less weights x total."""
        known = slice(None) if index is None else index >= 0
        own = 0 if index is None else index[known]
        cells = np.bincount(
            batch[:size][known] * groups + own, values[known], (count + 1) * groups
        ).reshape(count + 1, groups)
        return factor * cells[:count] - weights[:, None] * cells.sum(0)

    shared = range(len(rows.first) - len(structure.rest), len(rows.first))
    whole, across, rest = _hessian_parts(coordinates, structure)
    slopes = weights[:, None] * gradient
    groups, start = [], 0
    for grouping, part in zip(structure.groupings, whole, strict=True):
        number, inner = grouping.columns.shape
        matrix = weights[:, None, None, None] * part
        for j in range(inner):
            first, second = rows.first[start + j], rows.second[start + j]
            slopes[:, grouping.columns[:, j]] -= sums(first, grouping.index, number)
            for k, b in enumerate([*range(start, start + inner), *shared]):
                matrix[:, :, j, k] += sums(second[b], grouping.index, number)
        groups.append(GroupBlocks(grouping.columns, matrix[..., :inner], matrix[..., inner:]))
        start += inner
    matrix = weights[:, None, None] * rest
    for j, a in enumerate(shared):
        slopes[:, structure.rest[j]] -= sums(rows.first[a])[:, 0]
        for k, b in enumerate(shared):
            matrix[:, j, k] += sums(rows.second[a][b])[:, 0]
    crossings = tuple(_crossings(rows, structure, across, batches, factor))
    places = [*(grouping.columns.ravel() for grouping in structure.groupings), structure.rest]
    order = np.argsort(np.concatenate(places))
    made = BatchExpansions(slopes, tuple(groups), crossings, matrix, structure.rest, order)
    if (batch[:size] < count).all():  # pilots may leave out a few rows
        _check_sum(made, coordinates, count / factor)
    return made


def _check_sum(made: BatchExpansions, coordinates: Arrow, scale: float) -> None:
    """Raise an error unless K^T (mean Hessian of the batches) K is the identity.

    What is missing here is missing in every epoch: the draws would have another posterior at any
    step size, and nothing else would show it. One random direction tells with probability one.
    """
    direction = np.random.default_rng(0).normal(size=len(made.order))
    product = scale * made.mean_product(coordinates.apply(direction))
    error = np.abs(coordinates.pull_back(product) - direction).max()
    if not error < ROUNDING:
        raise RuntimeError(
            "The second derivatives of the minibatches do not add up to those of all rows (by "
            f"{error:.1e} of a standard deviation along a random direction), and Taylor gradients "
            "would sample another posterior. This is a fault of sgworld_mcmc, please report it "
            'with the model; gradient="plain" does without these derivatives.'
        )


def _crossings(rows: RowDerivatives, structure: Structure, across, batches, factor):
    """Yield the rows' matrices between the parameters of two groupings, for all pairs of them.

    The rows of two groups share evenly what their sum leaves of the whole Hessian there: all, if
    that is a mean over the posterior and not the one at the center.
    """
    size, absent = len(rows.first[0]), batches == len(rows.first[0])
    chosen = np.minimum(batches, size - 1)
    widths = [grouping.columns.shape[1] for grouping in structure.groupings]
    starts = np.concatenate([[0], np.cumsum(widths)])
    for a, b in combinations(range(len(widths)), 2):
        one, other = (structure.groupings[number].index[chosen] for number in (a, b))
        first, second = (structure.groupings[number].index for number in (a, b))
        both = np.flatnonzero((first >= 0) & (second >= 0))
        known = np.zeros((size, widths[a], widths[b]))
        for j in range(widths[a]):
            for k in range(widths[b]):
                known[:, j, k] = rows.second[starts[a] + j][starts[b] + k]
        pairs = first[both].astype(np.int64) * (second.max() + 1) + second[both]
        _, where, cell, number = np.unique(pairs, True, True, True)
        left = across(a, b, first[both[where]], second[both[where]])
        for j, k in np.ndindex(left.shape[1:]):
            rest = left[:, j, k] - np.bincount(cell, known[both, j, k])
            known[both, j, k] += (rest / number)[cell]
        values = factor * known[chosen]
        values[absent | (one < 0) | (other < 0)] = 0
        yield Crossing(np.maximum(one, 0), np.maximum(other, 0), values)


def _hessian_parts(
    coordinates: Arrow, structure: Structure
) -> tuple[list, Callable[..., np.ndarray], np.ndarray]:
    """Return parts of the Hessian K^-T K^-1: (G, q, q + s) for each grouping, and (s, s).

    They are the blocks of the groups and their coupling to the s parameters without a group, and
    the block of these. The second result is a function of the numbers of two groupings and n groups
    in each, which returns the (n, q, r) blocks between them.
    """
    roots = np.linalg.inv(np.asarray(coordinates.blocks))
    blocks = roots.swapaxes(1, 2) @ roots
    coupling = -blocks @ coordinates.coupling
    groups, inner, size = coupling.shape
    root = np.linalg.inv(np.asarray(coordinates.root))
    flat = (groups * inner, size)
    matrix = coordinates.coupling.reshape(flat)
    shared = root.T @ root - matrix.T @ coupling.reshape(flat)
    _, places = split(np.arange(groups * inner + size), coordinates.segments)
    column = np.full(groups * inner + size, -1)
    column[places] = np.arange(size)
    rest = column[structure.rest]
    parts = [np.concatenate([blocks, coupling[:, :, rest]], axis=2)]
    for grouping in structure.groupings[1:]:
        own = column[grouping.columns]
        among = shared[own[:, :, None], own[:, None, :]]
        parts.append(np.concatenate([among, shared[own[:, :, None], rest]], axis=2))

    def across(a, b, one, other):
        right = column[structure.groupings[b].columns[other]]
        if a == 0:
            return coupling[one[:, None, None], np.arange(inner)[:, None], right[:, None, :]]
        left = column[structure.groupings[a].columns[one]]
        return shared[left[:, :, None], right[:, None, :]]

    return parts, across, shared[np.ix_(rest, rest)]
