"""The Hessian of a model with groups, from few products with it, and coordinates from it.

A product with the vector of ones over all groups, in one component, holds a column of every group's
block at once, because groups are not coupled with each other. Products with the unit vectors of
what is shared hold the rest. Two groupings are coupled by the rows that they have in common: each
row adds its own mixed derivative to the pair of its indices (docs/theory.md, section 2.7).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.linalg import eigh

from sgworld_mcmc.coordinates.arrow import Arrow, Segments, join, size_of, split
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.protocols import Feed
from sgworld_mcmc.setup.curvature import FLOOR, dense_scale
from sgworld_mcmc.setup.groups import Structure, row_values
from sgworld_mcmc.setup.influential_rows import Look, powers

__all__ = ["ArrowHessian", "Products", "assemble", "expand_along", "mixed_of_rows", "pairs_of"]
__all__ += ["arrow_scale", "probes_of"]


class ArrowHessian(NamedTuple):
    """A Hessian of the potential in which no two groups of the first grouping are coupled.

    Attributes
    ----------
    blocks
        (G, q, q) blocks A_g of the groups.
    coupling
        (G, q, s) coupling B_g to the shared parameters.
    shared
        (s, s) block of the shared parameters.
    segments
        Where groups and shared parameters lie.
    """

    blocks: np.ndarray
    coupling: np.ndarray
    shared: np.ndarray
    segments: Segments

    def diagonal(self) -> np.ndarray:
        """Return the diagonal (D,)."""
        own = np.diagonal(self.blocks, axis1=1, axis2=2)
        return join(own, np.diagonal(self.shared), self.segments)

    def dense(self) -> np.ndarray:
        """Return the whole matrix (D, D)."""
        dimension = self.blocks.shape[0] * self.blocks.shape[1] + len(self.shared)
        own, rest = split(np.arange(dimension), self.segments)
        made = np.zeros((dimension, dimension))
        made[own[:, :, None], own[:, None, :]] = self.blocks
        made[own[:, :, None], rest] = self.coupling
        made[rest, own[:, :, None]] = self.coupling
        made[np.ix_(rest, rest)] = self.shared
        return made

    def plus(self, other: "ArrowHessian", factor: float = 1.0) -> "ArrowHessian":
        """Return the sum of this Hessian and of another one times a factor."""
        parts = (a + factor * b for a, b in zip(self[:3], other[:3], strict=True))
        return ArrowHessian(*parts, self.segments)

    def product(self, vector: np.ndarray) -> np.ndarray:
        """Return the Hessian times a vector (D,)."""
        grouped, shared = split(vector, self.segments)
        own = (self.blocks @ grouped[..., None])[..., 0] + self.coupling @ shared
        rest = np.einsum("gis,gi->s", self.coupling, grouped) + self.shared @ shared
        return join(own, rest, self.segments)


class Products(NamedTuple):
    """The log density at a point, its gradient, and products with its Hessian.

    Attributes
    ----------
    value
        The log density.
    gradient
        (D,) gradient.
    products
        (P, D) products of the Hessian of the potential with P vectors.
    powers
        (R,) sums of powers of the rows' slopes, by which rows that matter are seen, or None.
    """

    value: jax.Array
    gradient: jax.Array
    products: jax.Array
    powers: jax.Array | None = None


def expand_along(
    log_density: Callable,
    position: jax.Array,
    probes: jax.Array,
    feed: Feed,
    used: jax.Array | int | None = None,
    first: jax.Array | int = 0,
    look: tuple[Look, int] | None = None,
) -> Products:
    """Expand the log density of all rows, or of ``used`` batches, along (P, D) vectors.

    With ``look`` slopes are looked at on the way (:func:`~sgworld_mcmc.setup.one_pass.expand`).
    """

    def estimate(position, rows):
        def gradient(x):
            value, slope = jax.value_and_grad(log_density)(x, rows)
            return slope, (value, slope)

        slope, push, (value, slope) = jax.linearize(gradient, position, has_aux=True)
        sums = None if look is None else powers(log_density, *look, rows)
        return value, slope, jax.vmap(push)(probes), sums

    value, slope, products, sums = epoch_mean(estimate, position, feed, used, first=first)
    return Products(value, slope, -products, sums)


def mixed_of_rows(
    log_likelihood: Callable, position: jax.Array, one: jax.Array, other: jax.Array, rows: tuple
) -> tuple[jax.Array, jax.Array]:
    """Return derivatives of minus the rows' log likelihoods, (n,) each.

    The first is along ``one``, the second the mixed one along both vectors.
    """
    values = row_values(log_likelihood, rows)
    slope = lambda x: jax.jvp(values, (x,), (one,))[1]  # noqa: E731
    first, mixed = jax.jvp(slope, (position,), (other,))
    return -first, -mixed


def probes_of(generator: np.random.Generator, structure: Structure, dimension: int) -> np.ndarray:
    """Return the (P, D) vectors to multiply the Hessian with; the last is random, for a check."""
    ones = [column for grouping in structure.groupings for column in grouping.columns.T]
    probes = np.zeros((len(ones) + len(structure.rest) + 1, dimension))
    for number, places in enumerate([*ones, *structure.rest[:, None]]):
        probes[number, places] = 1
    probes[-1] = generator.choice([-1.0, 1.0], dimension)
    return probes


def pairs_of(structure: Structure) -> list[tuple[int, int, int, int]]:
    """Return (a, j, b, k) for component j of grouping a and k of b, for all pairs a < b."""
    groupings = structure.groupings
    return [
        (a, j, b, k)
        for b in range(len(groupings))
        for a in range(b)
        for j in range(groupings[a].columns.shape[1])
        for k in range(groupings[b].columns.shape[1])
    ]


def assemble(
    structure: Structure, products: np.ndarray, mixed: list[np.ndarray], dimension: int
) -> ArrowHessian:
    """Return the Hessian from products with :func:`probes_of` and mixed derivatives of the rows.

    Parameters
    ----------
    products
        (P, D) products, as the vectors of :func:`probes_of` have them.
    mixed
        For each of :func:`pairs_of` the (N,) derivatives of :func:`mixed_of_rows`, or the (G_a,
        G_b) sums of them over pairs of groups.
    """
    segments = structure.segments
    groups, inner, size = size_of(segments)
    _, places = split(np.arange(dimension), segments)
    column = np.full(dimension, -1)
    column[places] = np.arange(size)
    blocks, coupling = np.zeros((groups, inner, inner)), np.zeros((groups, inner, size))
    shared = np.zeros((size, size))
    products = iter(products)
    for j in range(inner):
        blocks[:, :, j] = split(next(products), segments)[0]
    for grouping in structure.groupings[1:]:
        own = column[grouping.columns]
        for k in range(own.shape[1]):
            product = next(products)
            for j in range(own.shape[1]):
                shared[own[:, j], own[:, k]] = product[grouping.columns[:, j]]
    for place in structure.rest:
        grouped, rest = split(next(products), segments)
        coupling[:, :, column[place]] = grouped
        shared[:, column[place]] = shared[column[place], :] = rest
    for (a, j, b, k), sums in zip(pairs_of(structure), mixed, strict=True):
        other = column[structure.groupings[b].columns[:, k]]
        if a == 0:
            coupling[:, j, other] = sums
        else:
            own = column[structure.groupings[a].columns[:, j]]
            shared[np.ix_(own, other)] = sums
            shared[np.ix_(other, own)] = sums.T
    blocks = (blocks + blocks.swapaxes(1, 2)) / 2
    return ArrowHessian(blocks, coupling, (shared + shared.T) / 2, segments)


def arrow_scale(hessian: ArrowHessian) -> tuple[Arrow, int]:
    """Return K about the origin, and the number of directions in which the Hessian is not positive.

    Eigenvalues of the blocks and of the Schur complement count by their absolute value, and the
    smallest are raised to a floor, as in :func:`sgworld_mcmc.setup.curvature.dense_scale`. For a
    positive definite Hessian K K^T is its inverse (docs/theory.md, B21). The spread is left out:
    it takes as long as all the rest (:meth:`~sgworld_mcmc.coordinates.arrow.Arrow.spread_out`).
    """
    blocks, coupling = hessian.blocks, hessian.coupling
    values, vectors = np.linalg.eigh(blocks)
    top = np.abs(values).max(-1, keepdims=True)
    negative = int((values < FLOOR * top).sum())
    values = np.maximum(np.abs(values), (FLOOR if negative == 0 else 1e-6) * top)
    roots = vectors / np.sqrt(values)[:, None, :]
    groups, inner, size = coupling.shape
    whitened = (roots.swapaxes(1, 2) @ coupling).reshape(groups * inner, size)
    root, indefinite = _root(hessian.shared - whitened.T @ whitened)
    matrix = -(roots @ whitened.reshape(groups, inner, size))
    nothing = np.zeros(groups * inner + size)
    return Arrow(nothing, roots, matrix, root, nothing, hessian.segments), negative + indefinite


def _root(hessian: np.ndarray) -> tuple[np.ndarray, int]:
    """Return L with L L^T the inverse of the matrix, or that of a repaired one if it is not convex.

    A Cholesky factor takes a tenth of the time of all eigenvectors.
    """
    units = np.sqrt(np.maximum(np.abs(np.diagonal(hessian)), np.finfo(float).tiny))
    scaled = hessian / units[:, None] / units[None, :]
    root, indefinite = _inverse_root(scaled), 0
    if root is None and np.isfinite(scaled).all():
        raised, indefinite = _raised(scaled)
        root = _inverse_root(raised)
    if root is None:
        repaired = dense_scale(hessian)
        return repaired.coordinates.scale, repaired.indefinite
    return root / units[:, None], indefinite


def _inverse_root(matrix: np.ndarray) -> np.ndarray | None:
    """Return L with L L^T the inverse of a matrix, None if it is not safely positive definite."""
    try:
        lower = np.linalg.cholesky(matrix)
    except np.linalg.LinAlgError:
        return None
    if not np.min(np.diagonal(lower)) > FLOOR**0.5:
        return None
    return np.linalg.inv(lower).T


def _raised(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """Repair a matrix with few negative eigenvalues as ``dense_scale`` does, and count them.

    Only their eigenvectors are computed: on the way to the center of a hierarchy they are one or
    two of thousands.
    """
    top = np.abs(matrix).sum(1).max()  # an upper limit of the largest
    values, vectors = eigh(matrix, subset_by_value=(-np.inf, FLOOR * top), driver="evr")
    change = np.maximum(np.abs(values), 1e-6 * top) - values
    return matrix + (vectors * change) @ vectors.T, len(values)


def row_sums(index: np.ndarray, other: np.ndarray, sizes: tuple[int, int], values: np.ndarray):
    """Return the sums of rows' values by pairs of groups."""
    known = (index >= 0) & (other >= 0)
    pair = index[known].astype(np.int64) * sizes[1] + other[known]
    return np.bincount(pair, values[known], sizes[0] * sizes[1]).reshape(sizes)


def along_rows(function: Callable, feed: Feed) -> jax.Array:
    """Return the values of a function of some rows, batch by batch, in their order."""
    flat = lambda x: x.reshape(-1, *x.shape[2:])  # noqa: E731
    values = jax.tree.map(flat, jax.lax.map(function, feed.main))
    if feed.extra is None:
        return values
    rest = function(jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), feed.extra))
    return jax.tree.map(lambda a, b: jnp.concatenate([a, jnp.atleast_1d(b)]), values, rest)
