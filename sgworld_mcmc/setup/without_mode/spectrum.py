"""Find how curvature and batch noise are spread over the curvatures, by Lanczos quadrature.

With v a vector of random signs, E[v f(H) v] is the trace of f(H), and with v the deviation of a
batch's gradient from the mean it is the sum of C_ii f(lambda_i) over the eigenvectors of H. A few
Lanczos steps from v give nodes and weights for all f at once, from products of H with vectors
(Golub & Meurant 2010; Ubaru, Chen & Saad 2017; docs/theory.md, K11).
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["LanczosRun", "Spectrum", "lanczos_runs", "make_spectrum"]

# Lanczos steps, which is also the number of nodes of each vector.
STEPS = 16
# The rows are cut into this many batches, or fewer if they are few, whose gradients show the noise.
PIECES = 8
# Vectors of random signs, and combinations of the batches' deviations, for each position.
SIGNS, DEVIATIONS = 2, 3
# A run ends when what is left of its vector is smaller than this, in units of the curvature.
SPENT = 1e-5
# Nodes are merged into this many classes of curvature.
CLASSES = 12


class LanczosRun(NamedTuple):
    """The coefficients of Lanczos runs, (P, V, ...) for P positions and V vectors.

    Attributes
    ----------
    diagonal, beside
        (P, V, S) and (P, V, S - 1) entries of the tridiagonal matrices.
    length
        (P, V) squared lengths of the vectors: those of random signs first.
    squares
        (P, D) variances of the gradient of single rows, in units of that of all rows: N times the
        variance of a row's contribution.
    """

    diagonal: jax.Array
    beside: jax.Array
    length: jax.Array
    squares: jax.Array


class Spectrum(NamedTuple):
    """Classes of curvature in the sampler's coordinates.

    Attributes
    ----------
    curvature
        (C,) curvatures lambda > 0, increasing.
    weight
        (C,) fraction of the dimensions that have this curvature. They add up to less than one if
        there are directions without positive curvature.
    noise
        (C,) sum over the directions of this curvature, divided by D, of N times the variance of a
        row's contribution to the gradient: batches of B rows have N / B times it.
    """

    curvature: np.ndarray
    weight: np.ndarray
    noise: np.ndarray

    @property
    def largest(self) -> float:
        """The largest curvature."""
        return float(self.curvature[-1])

    @property
    def typical(self) -> float:
        """The median curvature of the directions that have a positive one."""
        total = np.cumsum(self.weight)
        return float(self.curvature[np.searchsorted(total, total[-1] / 2)])


def lanczos_runs(
    rng_key: jax.Array, target: Callable, positions: jax.Array, rows: tuple, size: int
) -> LanczosRun:
    """Run Lanczos from random vectors at (P, D) positions.

    Parameters
    ----------
    target
        ``target(z, rows)``, the log density estimated from a mean over rows.
    rows
        The rows that are used.
    size
        Number of rows N of the whole data.
    """
    gradient = jax.grad(target)
    used = jax.tree.leaves(rows)[0].shape[0]
    count = min(PIECES, used)
    length = used // count
    pieces = jax.tree.map(lambda x: x[: length * count].reshape(count, length, *x.shape[1:]), rows)

    def at(carry, inputs):
        position, key = inputs
        signs_key, mix_key = jax.random.split(key)
        each = jax.lax.map(lambda piece: gradient(position, piece), pieces)
        # The variance of the mean of n of N rows, times n / N: that of the sum of N rows, over N.
        factor = np.sqrt(count / max(count - 1, 1) * length / size)
        away = (each - each.mean(0)) * factor
        signs = jax.random.rademacher(signs_key, (SIGNS, position.size), position.dtype)
        mixed = jax.random.rademacher(mix_key, (DEVIATIONS, count), position.dtype)
        vectors = jnp.concatenate([signs, mixed @ away / np.sqrt(count)])
        product = lambda v: -jax.jvp(lambda z: gradient(z, rows), (position,), (v,))[1]  # noqa: E731
        made = _lanczos(jax.vmap(product), vectors)
        return carry, (*made, (away**2).mean(0))

    _, found = jax.lax.scan(at, (), (positions, jax.random.split(rng_key, len(positions))))
    return LanczosRun(*found)


def _lanczos(multiply: Callable, vectors: jax.Array):
    """Return (V, S) diagonals, (V, S - 1) entries beside them, and (V,) squared lengths.

    The vectors are not made orthogonal to all earlier ones: copies of a node share its weight.
    """
    length = jnp.sum(vectors**2, axis=1)
    tiny = jnp.finfo(vectors.dtype).tiny
    unit = vectors / jnp.sqrt(jnp.maximum(length, tiny))[:, None]

    def step(carry, _):
        before, here, beside = carry
        moved = multiply(here) - beside[:, None] * before
        diagonal = jnp.sum(moved * here, axis=1)
        moved = moved - diagonal[:, None] * here
        norm = jnp.linalg.norm(moved, axis=1)
        # Where nothing but rounding is left, all that the vector has a part in has been found.
        left = norm > SPENT * (jnp.abs(diagonal) + beside)
        following = jnp.where(left[:, None], moved / jnp.maximum(norm, tiny)[:, None], 0)
        norm = jnp.where(left, norm, 0)
        return (here, following, norm), (diagonal, norm)

    start = jnp.zeros_like(unit), unit, jnp.zeros_like(length)
    _, (diagonal, beside) = jax.lax.scan(step, start, None, length=STEPS)
    return diagonal.T, beside[:-1].T, length


def make_spectrum(found: LanczosRun, least: float = 1e-2) -> Spectrum:
    """Return the classes of curvature from Lanczos runs.

    Parameters
    ----------
    least
        Directions with a curvature below ``least`` times the typical one count as if they had that:
        what bends them is beyond the second order.
    """
    diagonal, beside, length, squares = (np.asarray(x, float) for x in found)
    dimension = squares.shape[1]
    nodes, weights, noises = [], [], []
    positions, vectors = length.shape
    for p in range(positions):
        for v in range(vectors):
            matrix = np.diag(diagonal[p, v])
            matrix += np.diag(beside[p, v], 1) + np.diag(beside[p, v], -1)
            if not (np.isfinite(matrix).all() and np.isfinite(length[p, v])):
                raise ValueError(
                    "The curvature of the log density is not finite where the chains are: look for "
                    "overflow, log(0) or a square root of zero in the model, or give `init_params`."
                )
            values, axes = np.linalg.eigh(matrix)
            share, zero = axes[0] ** 2, np.zeros(len(values))
            is_sign = v < SIGNS
            nodes.append(values)
            weights.append(share / (SIGNS * positions) if is_sign else zero)
            scale = length[p, v] / dimension / (DEVIATIONS * positions)
            noises.append(zero if is_sign else share * scale)
    nodes, weights, noises = (np.concatenate(x) for x in (nodes, weights, noises))
    positive = nodes > 0
    typical = _median(nodes[positive], weights[positive])
    nodes = np.maximum(nodes, least * typical)
    edges = np.geomspace(nodes.min() * 0.999, nodes.max() * 1.001, CLASSES + 1)
    which = np.digitize(nodes, edges) - 1
    curvature, weight, noise = [], [], []
    for number in range(CLASSES):
        inside = which == number
        total = weights[inside].sum() + noises[inside].sum()
        if total > 0:
            mass = weights[inside] / max(weights.sum(), 1e-300)
            mass = mass + noises[inside] / max(noises.sum(), 1e-300)
            curvature.append(np.exp(np.sum(mass * np.log(nodes[inside])) / mass.sum()))
            weight.append(weights[inside].sum())
            noise.append(noises[inside].sum())
    return Spectrum(np.array(curvature), np.array(weight), np.array(noise))


def _median(values: np.ndarray, weights: np.ndarray) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, total[-1] / 2)])
