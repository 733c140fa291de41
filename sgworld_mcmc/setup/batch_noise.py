"""Measure the noise of batches of rows that are dealt by group.

Such batches are much more alike than batches of random rows, and how much depends on their size:
the noise of single rows does not tell. The batches of a partition are dealt as they will be in the
run, at several sizes, and a part of them is looked at (docs/theory.md, section 2.7).
"""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.dealing import even_size
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.in_memory import random_order, take_rows
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.row_noise import RowNoise, batch_factor, weighted
from sgworld_mcmc.theory.shrinkage import pool_parts

__all__ = ["BatchNoise", "batch_ladder", "compile_ahead", "measure_batches"]

# A batch has at least this many rows, and at least so many for each parameter: the work on the
# parameters of a step costs as much as that on some rows.
SMALLEST, FOR_EACH = 256, 1.0
# Sizes of batches grow by this factor, up to this part of the rows, and are at most so many.
GROWTH, LARGEST, SIZES = 3, 1 / 4, 4
# Noise is measured at this many draws, at each of them on batches of about so many rows together,
# but on at least FEWEST batches.
DRAWS, ROWS, FEWEST = 8, 2**17, 4
# Batches move pilot chains if their noise widens no parameter by more than this, at a step of one.
QUIET = 0.03


class BatchNoise(NamedTuple):
    """The noise of batches of several sizes.

    Attributes
    ----------
    sizes
        Sizes of the batches, increasing.
    noises
        For each size the :class:`~sgworld_mcmc.setup.row_noise.RowNoise` of rows from which random
        batches of that size would have the noise that was measured.
    """

    sizes: tuple[int, ...]
    noises: tuple[RowNoise, ...]

    def at(self, batch_size: int) -> RowNoise | None:
        """Return the noise of the rows for batches of this size, None if it was not measured.

        Smaller batches have more noise than batches of random rows would have in proportion, so
        that the noise for the next smaller size is an upper limit.
        """
        smaller = [n for s, n in zip(self.sizes, self.noises, strict=True) if s <= batch_size]
        return smaller[-1] if smaller else None

    def quiet(self, size: int, kind: str) -> int:
        """Return the smallest size on the ladder with little noise, or the largest size."""
        least = batch_ladder(size, len(self.noises[0].mean[kind]))[0]
        for batch_size, noise in zip(self.sizes, self.noises, strict=True):
            quiet = np.max(noise.mean[kind]) * batch_factor(batch_size, size) / 2 < QUIET
            if batch_size >= least and quiet:
                return batch_size
        return self.sizes[-1]


def batch_ladder(size: int, dimension: int, batch_size: int | None = None) -> tuple[int, ...]:
    """Return the sizes of batches of which the noise is measured, a given one among them.

    Examples
    --------
    >>> batch_ladder(100_000, 1007)
    (1000, 2500, 8334, 25000)
    """
    first = int(min(max(SMALLEST, FOR_EACH * dimension), LARGEST * size))
    sizes = [even_size(first * GROWTH**power, size) for power in range(SIZES)]
    count = 1 if batch_size is None else -(-size // batch_size)
    given = {-(-size // count)} if count > 1 else set()
    return tuple(sorted({each for each in sizes if each <= LARGEST * size} | given))


def measure_batches(
    generator: np.random.Generator,
    posterior: Posterior,
    positions: np.ndarray,
    curvatures: np.ndarray | None,
    batch_size: int | None = None,
) -> BatchNoise:
    """Measure the noise at some of the positions (S, D), for all sizes of :func:`batch_ladder`.

    Parameters
    ----------
    curvatures
        (N,) curvature of each row, by which rows of a group are dealt; None for batches of random
        rows.
    batch_size
        A size that is measured in any case.
    """
    size, dimension = posterior.size, posterior.fit.dimension
    ladder = batch_ladder(size, dimension, batch_size)
    number = min(DRAWS, len(positions))
    chosen = positions[np.linspace(0, len(positions) - 1, number).astype(int)]
    y = posterior.coordinates.along(chosen)
    parts = posterior.parts()
    noises, shape = [], _shape(size, ladder)
    length = shape[1]
    for wanted in ladder:
        count, each, number = _looked_at(size, wanted)
        if curvatures is None:
            order = random_order(generator, size)
        else:
            order = deal_by_group(generator, posterior.structure.first.index, curvatures, count)
        pieces = max(each // length, 1)
        rows = order[: number * each].reshape(number, each)[:, : pieces * length]
        found = _moments(posterior, chosen, rows.reshape(-1, length), pieces, number, shape[0])
        # The realised variance over all M batches, from a part of them: (1 - 1/M) times what is
        # found, over 1/B - 1/N, with B = N/M.
        scale = size / count
        noises.append(_summary(jax.tree.map(lambda x: scale * x, found), y, parts))  # noqa: B023
    return BatchNoise(ladder, tuple(noises))


def compile_ahead(
    functions: SetUpFunctions, coordinates: Coordinates, rows: tuple, constants: tuple
) -> None:
    """Begin to compile what :func:`measure_batches` runs, for coordinates and rows like these."""
    dtype, dimension = float_dtype(), functions.model.dimension
    size = functions.model.size
    shape = _shape(size, batch_ladder(size, dimension))

    def alike(x):
        return jax.ShapeDtypeStruct(shape + x.shape[1:], jax.dtypes.canonicalize_dtype(x.dtype))

    functions.programs["batch_moments"].compile(
        coordinates.cast(dtype),
        jax.ShapeDtypeStruct((DRAWS, dimension), dtype),
        jax.tree.map(lambda x: alike(x), rows),
        constants,
        np.int32(0),
        np.int32(0),
        dtype.type(1),
    )


def _looked_at(size: int, batch_size: int) -> tuple[int, int, int]:
    """Return the number of batches, the rows of each, and how many batches are looked at."""
    count = -(-size // batch_size)
    each = size // count
    return count, each, max(min(count, ROWS // each, ROWS // SMALLEST), min(count, FEWEST))


def _shape(size: int, ladder: tuple[int, ...]) -> tuple[int, int]:
    """Return the most parts of batches that are looked at together, and the rows of each."""
    sizes = [_looked_at(size, batch_size)[1:] for batch_size in ladder]
    length = sizes[0][0]
    return max(number * max(each // length, 1) for each, number in sizes), length


def _moments(
    posterior: Posterior, draws, order: np.ndarray, pieces: int, number: int, most: int
) -> dict:
    """Return the (S, Q) variances over ``number`` batches, each of ``pieces`` parts."""
    dtype = float_dtype()
    # All sizes share one compiled program: the rows that it is given have one shape.
    filled = np.concatenate([order, np.repeat(order[:1], most - len(order), axis=0)])
    rows = take_rows(posterior.rows, filled.ravel())
    rows = jax.tree.map(lambda x: x.reshape(filled.shape + x.shape[1:]), rows)
    count_rows(len(draws) * order.size)
    found = posterior.functions.batch_moments(
        posterior.coordinates.cast(dtype),
        from_numpy(draws, dtype),
        rows,
        posterior.constants,
        np.int32(pieces),
        np.int32(number),
        dtype.type(posterior.temperature),
    )
    return jax.tree.map(lambda x: np.asarray(x, float), found)


def _summary(measured: dict[str, dict], y: np.ndarray, parts) -> RowNoise:
    """Return means over the draws, with the estimates for the parameters of a site pooled.

    The largest of thousands of estimates is mostly noise (docs/theory.md, B16).
    """
    center, mean, tail = {}, {}, {}
    weights = y**2 / np.maximum((y**2).sum(0), np.finfo(float).tiny)
    for kind in GRADIENTS:
        values = measured["draw"][kind]
        center[kind] = measured["center"][kind].mean(0)
        error = values.std(0, ddof=1) / len(values) ** 0.5
        mean[kind] = _upper(values.mean(0), error, parts)
        tail[kind] = _upper(*weighted(values, weights), parts)
    return RowNoise(center, mean, tail, measured["coupling"])


def _upper(value: np.ndarray, error: np.ndarray, parts) -> np.ndarray:
    """Return pooled estimates plus their standard errors."""
    value, error = pool_parts(value, error, parts)
    return np.maximum(value, 0) + error
