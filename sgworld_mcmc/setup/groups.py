"""Find which latent sites hold a value for each group of rows, and the group of every row.

Nothing is assumed about a model's arguments. If row i touches the entries of a site at one index g
only, the derivatives of its log likelihood along w, w t and w t^2, where the numbers t_g tell the
indices apart, are c, c t_g and c t_g^2: their ratio is t_g. A row that touches several indices
shows it, because the three are then not in geometric progression (docs/theory.md, B22).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.arrow import Segments, size_of
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.progress import count_rows, stage

__all__ = ["Grouping", "Structure", "find_structure", "row_values", "slopes_of_rows"]

# Structure is looked for above this dimension, in axes of at least this many entries. It is used if
# at least this part of all parameters goes by group, and if at most SHARED parameters do not.
SMALLEST, FEWEST_GROUPS, LEAST_PART, SHARED = 300, 10, 0.5, 1500
# Derivatives are taken at a random point this far from the origin, or nearer if they are not finite
# there.
RADII = (0.3, 0.03, 0.0)
# Directions that are tried where several parameters of a group may cancel in a row's derivative.
CHOICES = 3
# If less than this part of the rows seem to belong to several groups at one point, so many more
# points are looked at.
DOUBTFUL, POINTS = 0.02, 3
# What stands for the index of a row that belongs to no group, or to several.
NONE, SEVERAL = -1, -2


class Grouping(NamedTuple):
    """A division of the rows into groups, and the parameters that go by it.

    Attributes
    ----------
    index
        (N,) int32 group of each row, in the order of the rows; -1 for rows without one.
    columns
        (G, q) int64 places of the groups' parameters in the flat position.
    """

    index: np.ndarray
    columns: np.ndarray


class Structure(NamedTuple):
    """How the parameters of a model go by group.

    Attributes
    ----------
    groupings
        The groupings, that with the most parameters first.
    segments
        Where the first grouping's parameters lie in the flat position.
    rest
        (s0,) places of the parameters that belong to no grouping.
    """

    groupings: tuple[Grouping, ...]
    segments: Segments
    rest: np.ndarray

    @property
    def alike(self) -> list[np.ndarray]:
        """Places (G,) of the parameters that are alike: a component of all groups, for each one."""
        return [places for grouping in self.groupings for places in grouping.columns.T]

    @property
    def first(self) -> Grouping:
        """The grouping with the most parameters."""
        return self.groupings[0]


def find_structure(
    generator: np.random.Generator, functions: Any, feed: FixedPartition, constants: tuple
) -> Structure | None:
    """Find the groupings of a model's latent sites, or None if there is no large one.

    Parameters
    ----------
    generator
        Source of the random point and directions.
    functions
        The model's :class:`~sgworld_mcmc.setup.compiled_functions.SetUpFunctions`.
    feed, constants
        The rows in batches, and the other arrays.
    """
    model = functions.model
    candidates = _candidates(model.latents, model.shapes)
    if model.dimension <= SMALLEST or not candidates:
        return None
    stage("looking for groups")
    found: dict[tuple[int, int], list] = {}
    for start, shape in candidates:
        index = _index(generator, functions, feed, constants, start, shape)
        if index is not None:
            _add(found, index, start, shape)
    groupings = sorted(
        (list(parts) for parts in found.values()), key=lambda parts: -sum(map(_count, parts))
    )
    if not groupings:
        return None
    segments = _segments(model, [(start, shape) for _, start, shape in groupings[0]])
    groups, inner, shared = size_of(segments)
    if groups * inner < LEAST_PART * model.dimension or shared > SHARED:
        return None
    made = tuple(_grouping(parts) for parts in groupings)
    own = np.concatenate([grouping.columns.ravel() for grouping in made])
    return Structure(made, segments, np.setdiff1d(np.arange(model.dimension), own))


def slopes_of_rows(
    log_likelihood: Callable, position: jax.Array, tangents: jax.Array, rows: tuple
) -> jax.Array:
    """Return the (T, n) derivatives of n rows' log likelihoods along (T, D) directions."""
    values = row_values(log_likelihood, rows)
    return jax.vmap(lambda v: jax.jvp(values, (position,), (v,))[1])(tangents)


def row_values(log_likelihood: Callable, rows: tuple) -> Callable:
    """Return the function from a position to the (n,) log likelihoods of single rows."""
    single = jax.tree.map(lambda x: x[:, None], rows)
    return lambda position: jax.vmap(lambda row: log_likelihood(position, row))(single)


def touched(
    log_likelihood: Callable,
    position: jax.Array,
    tangents: jax.Array,
    rows: tuple,
    groups: jax.Array | int,
) -> tuple[jax.Array, jax.Array]:
    """Return the (n,) indices that the rows touch.

    Parameters
    ----------
    tangents
        (K, 3, D) directions w, w t and w t^2 with t_g = (g + 1) / G, for K choices of w. The terms
        of a row's derivative may cancel for one w, so that the rest is rounding: each row is judged
        by the w for which it is largest.
    groups
        Number of indices G.

    Returns
    -------
    index, infinite
        The index is :data:`NONE` where a row touches none and :data:`SEVERAL` where it seems to
        touch several. The last is the number of rows whose derivatives are not finite.
    """
    slopes = slopes_of_rows(log_likelihood, position, tangents.reshape(-1, len(position)), rows)
    slopes = slopes.reshape(*tangents.shape[:2], -1)
    best = jnp.argmax(jnp.abs(slopes[:, 0]), axis=0)
    zeroth, first, second = jnp.take_along_axis(slopes, best[None, None], axis=0)[0]
    precise = 1e4 * jnp.finfo(zeroth.dtype).eps
    finite = jnp.isfinite(zeroth) & jnp.isfinite(first) & jnp.isfinite(second)
    size = jnp.maximum(jnp.abs(zeroth), jnp.maximum(jnp.abs(first), jnp.abs(second)))
    none = size == 0
    place = first / jnp.where(zeroth == 0, 1, zeroth) * groups - 1
    index = jnp.round(place)
    one = jnp.abs(second * zeroth - first**2) <= precise * zeroth**2
    one &= (jnp.abs(place - index) < 0.1) & (index >= 0) & (index < groups)
    index = jnp.where(none, NONE, jnp.where(one, index, SEVERAL))
    return index.astype(jnp.int32), jnp.sum(~finite)[None]


def _candidates(latents, shapes) -> list[tuple[int, tuple[int, int, int]]]:
    """Return the sites' axes that may go by group: where a site starts, and its shape around it."""
    result, start = [], 0
    for name in latents:
        shape = shapes[name]
        for axis, groups in enumerate(shape):
            if groups >= FEWEST_GROUPS:
                before, after = int(np.prod(shape[:axis])), int(np.prod(shape[axis + 1 :]))
                result.append((start, (before, groups, after)))
        start += int(np.prod(shape))
    return result


def _index(generator, functions, feed, constants, start, shape) -> np.ndarray | None:
    """Return the (N,) index that each row touches along one axis of a site, or None."""
    dimension, groups = functions.model.dimension, shape[1]
    t = (np.arange(groups) + 1.0) / groups
    choices = 1 if shape[0] * shape[2] == 1 else CHOICES
    tangents = np.zeros((choices, 3, dimension))
    for tangent in tangents:
        weights = generator.uniform(0.5, 1.5, (shape[0], 1, shape[2]))
        for power in range(3):
            tangent[power, start : start + np.prod(shape)] = np.ravel(
                weights * t[:, None] ** power + np.zeros(shape)
            )
    direction = generator.standard_normal(dimension)

    def look(position):
        arguments = from_numpy(position), from_numpy(tangents)
        return functions.touched(*arguments, feed, constants, groups)

    for radius in RADII:
        count_rows(feed.size)
        found, infinite = look(radius * direction)
        if int(infinite) == 0:
            break
    else:
        return None
    index = np.array(found)
    for _ in range(POINTS):
        # Where a row's slope is the difference of equal terms, such as y - exp(0), it is rounding,
        # which seems to belong to several: another point tells.
        doubtful = index == SEVERAL
        if not 0 < doubtful.mean() < DOUBTFUL:
            break
        direction = generator.standard_normal(dimension)
        count_rows(feed.size)
        found, infinite = look(radius * direction)
        if int(infinite):
            break
        index[doubtful] = np.asarray(found)[doubtful]
    return None if (index == SEVERAL).any() or (index == NONE).all() else index


def _add(found: dict, index: np.ndarray, start: int, shape: tuple) -> None:
    """Add a site's axis to the grouping that it agrees with, or to a new one.

    A site belongs to one grouping only, the first that is found.
    """
    for parts in found.values():
        if any(place == start for _, place, _ in parts):
            return
    for parts in found.values():
        other, _, (_, groups, _) = parts[0]
        both = (other >= 0) & (index >= 0)
        if groups == shape[1] and both.any() and (other == index)[both].all():
            merged = np.where(other >= 0, other, index)
            parts[0] = (merged, *parts[0][1:])
            parts.append((merged, start, shape))
            return
    found[start, shape[1]] = [(index, start, shape)]


def _count(part) -> int:
    return int(np.prod(part[2]))


def _grouping(parts: list) -> Grouping:
    columns = [
        np.moveaxis(start + np.arange(np.prod(shape)).reshape(shape), 1, 0).reshape(shape[1], -1)
        for _, start, shape in sorted(parts, key=lambda part: part[1])
    ]
    return Grouping(parts[0][0], np.concatenate(columns, axis=1))


def _segments(model, grouped: list) -> Segments:
    """Return the stretches of the flat position, given those that go by group."""
    segments, here = [], 0
    for start, shape in sorted(grouped):
        if start > here:
            segments.append((start - here,))
        segments.append(tuple(int(n) for n in shape))
        here = start + int(np.prod(shape))
    if here < model.dimension:
        segments.append((model.dimension - here,))
    return tuple(segments)
