"""Passes over all rows of a file: the gradient of the log density, and its Hessian.

Rows are read in order, by a thread, while earlier ones are added up. All sums are exact: every row
counts once, whatever the number of rows, and all calls have the same shapes.
"""

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.progress import count_rows, fraction
from sgworld_mcmc.setup.arrow_hessian import Products
from sgworld_mcmc.setup.arrow_rows import ArrowExpansion
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.few_products import FewProducts
from sgworld_mcmc.setup.influential_rows import MATTERS, Look
from sgworld_mcmc.setup.one_pass import Expansion
from sgworld_mcmc.streaming.grid import BLOCKS, FEWEST_CHUNKS
from sgworld_mcmc.streaming.read_ahead import ReadAhead
from sgworld_mcmc.streaming.rows import Rows, Speed

__all__ = ["BlockDerivatives", "NotFinite", "WholeData"]

# Rows are added up in batches of this many, and read in pieces of so many bytes.
BATCH_ROWS, PIECE_BYTES = 5000, 2**25
# A piece is added up in this many portions, each of which is a block of the file.
PORTIONS = 8


class BlockDerivatives(NamedTuple):
    """Derivatives of the log density at one point, estimated from each block of the file.

    Attributes
    ----------
    rows
        Number of rows of a block.
    gradients
        (K, D) gradients.
    products
        (K, P, D) products of the Hessians of the potential with P vectors.
    """

    rows: int
    gradients: np.ndarray
    products: np.ndarray


class NotFinite(ValueError):
    """The log density of some rows is not finite."""


class WholeData:
    """All rows of a file, which are never in memory together.

    Parameters
    ----------
    functions
        The model's compiled functions.
    rows
        The rows.
    constants
        The other arrays, in the precision of the set-up.
    """

    def __init__(self, functions: SetUpFunctions, rows: Rows, constants: tuple) -> None:
        self.functions, self.rows, self.constants = functions, rows, constants
        wide = PIECE_BYTES // max(rows.row_bytes, 1) // PORTIONS
        # A portion is as long as a block of the run will be, whose noise is measured.
        length = max(1, min(wide, rows.size // (BLOCKS * FEWEST_CHUNKS)))
        self.batch = min(BATCH_ROWS, length)
        self.portion = length // self.batch
        self.count = self.portion * PORTIONS
        self.passes, self.checked = 0, False
        self.speed = Speed()
        self.few: FewProducts | None = None
        # The search for coordinates by group, which may be asked for another center.
        self.groups: Any = None
        self._known: dict[bytes, Any] = {}

    def gradient(self, position: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the log density and its (D,) gradient, from one pass over the rows."""
        key = np.asarray(position, float).tobytes()
        if key in self._known:
            return self._known[key][:2]
        dimension = self.functions.model.dimension
        unit = Dense.from_covariance(np.zeros(dimension), np.eye(dimension))

        def evaluate(feed, first, number):
            at, coordinates = jax.tree.map(from_numpy, (np.asarray(position)[None], unit))
            made = self.functions.values(at, coordinates, feed, self.constants, number)
            value, slope = (np.asarray(x[0], float) for x in made)
            return value, slope

        value, slope = self._total(evaluate, whole=True)[0]
        self._known = {key: (float(value), slope)}
        return float(value), slope

    def expansion(
        self,
        position: np.ndarray,
        vectors: np.ndarray | None = None,
        look: Look | None = None,
    ) -> tuple[Expansion, BlockDerivatives | None]:
        """Return value, gradient and Hessian from one pass over the rows.

        Where parameters go by group (``few``), they come from few products with the Hessian, as
        long as these reproduce it.

        Parameters
        ----------
        position
            (D,) the point.
        vectors
            (P, D) vectors; their products with the Hessians of the blocks are returned too.
        look
            Where slopes of the rows are looked at, or None.
        """
        few, point = self.few, np.asarray(position)

        def evaluate(feed, first, number):
            if few is None:
                given = feed, self.constants, number, first, look
                made = self.functions.expansion(from_numpy(point), *given)
            else:
                given = from_numpy(few.probes), feed, self.constants, number, first, None, look
                made = self.functions.products(from_numpy(point), *given)
            return jax.tree.map(lambda x: np.asarray(x, float), tuple(made))

        def keep(made):
            _, slope, second, _ = made
            if few is None:
                return slope, vectors @ second
            hessian = few.hessian(second)
            return slope, np.stack([hessian.product(vector) for vector in vectors])

        total, kept = self._total(evaluate, keep=None if vectors is None else keep)
        found = Expansion(*total) if few is None else few.expansion(Products(*total))
        if found is None:  # rows of the file do not keep to the groups of its part
            self.few = None
            return self.expansion(position, vectors, look and look._replace(tangents=None))
        key = np.asarray(position, float).tobytes()
        self._known = {key: (float(found.value), found.gradient, found.hessian)}
        return found, self._blocks(kept)

    def _blocks(self, kept: list) -> BlockDerivatives | None:
        if not kept:
            return None
        gradients, products = zip(*kept, strict=True)
        return BlockDerivatives(self.portion * self.batch, np.array(gradients), np.array(products))

    def expansion_by_group(
        self, position: np.ndarray, few: FewProducts, vectors: np.ndarray
    ) -> tuple[ArrowExpansion | None, BlockDerivatives | None]:
        """Return the same as :meth:`expansion`, with a Hessian that is never a whole matrix.

        The first value is None if the rows do not keep to the groups.
        """
        point, probes = np.asarray(position), from_numpy(few.probes)

        def evaluate(feed, first, number):
            given = probes, feed, self.constants, number, first, None, None
            made = self.functions.products(from_numpy(point), *given)
            return jax.tree.map(lambda x: np.asarray(x, float), tuple(made))

        def keep(made):
            hessian = few.hessian(made[2])
            return made[1], np.stack([hessian.product(vector) for vector in vectors])

        (value, gradient, products, _), kept = self._total(evaluate, keep)
        self._known = {np.asarray(position, float).tobytes(): (float(value), gradient)}
        return few.by_group(value, gradient, products), self._blocks(kept)

    def influences(self, look: Look) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return numbers, slopes and directions (k,) of the rows that matter, from one pass."""
        found = []
        with ReadAhead(self._pieces, depth=1) as pieces:
            for start, feed, number, tail in pieces:
                parts = [(start, feed, number * self.batch)]
                if tail is not None:
                    padded, _, length = tail
                    parts.append((start + number * self.batch, padded, length))
                for first, rows, length in parts:
                    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows.main)
                    made = self.functions.influences(look, flat, self.constants)
                    slopes, directions = (np.asarray(x)[:length] for x in made)
                    places = np.flatnonzero(~(slopes <= MATTERS))
                    found.append((first + places, slopes[places], directions[places]))
                fraction((start + number * self.batch) / self.rows.size)
        count_rows(self.rows.size)
        self.passes += 1
        numbers, slopes, directions = (np.concatenate(x) for x in zip(*found, strict=True))
        return numbers, slopes.astype(float), directions

    def hessian(self, position: np.ndarray) -> np.ndarray:
        """Return the (D, D) Hessian of the potential; the gradient is then known too."""
        known = self._known.get(np.asarray(position, float).tobytes(), ())
        return known[2] if len(known) == 3 else self.expansion(position)[0].hessian

    def _total(
        self, evaluate: Callable, keep: Callable | None = None, whole: bool = False
    ) -> tuple[Any, list]:
        """Return the sum over all rows, and what is kept of each portion.

        ``evaluate(feed, first, number)`` is a mean over batches of an estimate from each batch.
        With ``whole`` it is called for whole pieces only.
        """
        size, batch = self.rows.size, self.batch
        precise = bool(jax.config.jax_enable_x64)
        total, kept, done = None, [], 0
        threads = ThreadPoolExecutor(os.cpu_count() if jax.default_backend() == "cpu" else 1)

        def portion(inputs):
            feed, first, number = inputs
            with jax.enable_x64(precise):
                return number, evaluate(feed, first, number)

        try:
            with ReadAhead(self._pieces, depth=1) as pieces:
                for start, feed, number, tail in pieces:
                    each = number if whole else self.portion
                    parts = [
                        (feed, first, min(each, number - first))
                        for first in range(0, number, max(each, 1))
                    ]
                    # One thread alone traces the user's model: NumPyro's handlers know no other.
                    alone = 0 if done else 1
                    begun = [portion(part) for part in parts[:alone]]
                    for count, made in chain(begun, threads.map(portion, parts[alone:])):
                        total = _add(total, made, count * batch / size)
                        if keep is not None and count == self.portion:
                            kept.append(keep(made))
                    if tail is not None:
                        # The rows that fill no batch come with copies of the first of them, whose
                        # share is known from a batch of copies only. (The prior's shares add up.)
                        padded, copies, length = tail
                        total = _add(total, portion((padded, 0, 1))[1], batch / size)
                        total = _add(total, portion((copies, 0, 1))[1], (length - batch) / size)
                        done += length
                    self._check(total, start)
                    done += number * batch
                    fraction(done / size)
        finally:
            threads.shutdown(wait=False, cancel_futures=True)
        count_rows(size)
        self.passes, self.checked = self.passes + 1, True
        return self.rows.total(total), kept

    def _check(self, total: Any, start: int) -> None:
        if not np.isfinite(total[0]):
            last = min(start + self.count * self.batch, self.rows.size) - 1
            raise NotFinite(
                f"The log density of the rows {start} to {last} is not finite at the mode of a "
                "random part of the rows. Look for values outside of the support of their "
                "distribution among them, or for rows far from all others."
            )

    def _pieces(self) -> Iterator[tuple]:
        """Yield (first row, feed, number of full batches, what is left) of piece after piece."""
        length = self.count * self.batch
        spent = 0.0
        for start, stop in self.rows.pieces(length):
            begin = time.perf_counter()
            memory = self.rows.empty(length)
            self.rows.read(start, stop, memory)
            if not self.checked:
                self.rows.check_finite(start, tuple(x[: stop - start] for x in memory))
            spent += time.perf_counter() - begin
            number, left = divmod(stop - start, self.batch)
            tail = None
            if left:
                rest = tuple(x[number * self.batch : stop - start] for x in memory)
                tail = (*self._padded(rest, memory), left)
            yield start, self._feed(memory), number, tail
        self.speed = Speed(self.rows.size, spent)

    def _padded(self, rest: tuple, memory: tuple) -> tuple[FixedPartition, FixedPartition]:
        """Return the rows with copies of the first one up to a batch, and copies alone."""
        padded, copies = self.rows.empty(len(memory[0])), self.rows.empty(len(memory[0]))
        for x, a, b in zip(rest, padded, copies, strict=True):
            a[:], b[:] = x[0], x[0]
            a[: len(x)] = x
        return self._feed(padded), self._feed(copies)

    def _feed(self, memory: tuple) -> FixedPartition:
        shape = (self.count, self.batch)
        with jax.enable_x64(self.rows.double):
            put = lambda x: jax.device_put(x.reshape(*shape, *x.shape[1:]), may_alias=True)  # noqa: E731
            return FixedPartition(tuple(map(put, memory)))


def _add(total: Any, made: Any, weight: float) -> Any:
    scaled = jax.tree.map(lambda x: weight * x, made)
    return scaled if total is None else jax.tree.map(np.add, total, scaled)
