"""What the rows say of a posterior with latents by group: its log density, gradient and Hessian."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.arrow import Arrow
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import first_batches, is_large
from sgworld_mcmc.device_layout import is_spread
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.setup.arrow_hessian import (
    ArrowHessian,
    assemble,
    pairs_of,
    probes_of,
    row_sums,
)
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.groups import Structure
from sgworld_mcmc.setup.portions import mean_of_portions

__all__ = ["DRAWS", "ArrowExpansion", "ArrowRows", "is_assembled"]

# Gradients are computed at so many positions together.
DRAWS = 16
# A part of the rows is enough for the first steps if it has this many rows for each parameter.
ROWS_FOR_EACH = 20
# The arrow reproduces a product with the Hessian to this precision, or it is not used.
PRECISION = 1e-4


def is_assembled(hessian: ArrowHessian, probe: np.ndarray, product: np.ndarray) -> bool:
    """Return whether a Hessian reproduces its product with a random vector."""
    # Errors are compared in units of the blocks' own standard deviations.
    units = np.sqrt(np.maximum(np.abs(hessian.diagonal()), np.finfo(float).tiny))
    missed = (product - hessian.product(probe)) / units
    return bool(np.linalg.norm(missed) <= PRECISION * np.linalg.norm(product / units))


class ArrowExpansion(NamedTuple):
    """Value, gradient (D,) and the potential's Hessian of the log density at a point."""

    value: float
    gradient: np.ndarray
    hessian: ArrowHessian


class ArrowRows(NamedTuple):
    """A model with groups and its data, in the precision of the set-up.

    The first batches, where they are asked for, count as if there were no others: the posterior
    given a part of the rows has its center near that given all of them. If the part stood for all
    rows, each group's mean would have the noise of few rows and the weight of many, and the
    groups' standard deviation would come out far too large.

    Attributes
    ----------
    functions, feed, constants
        As in :class:`~sgworld_mcmc.setup.mode_search.ModeSearch`.
    structure
        The groups.
    share
        Which part of all rows these are, if they count as if there were no others; 1 if they stand
        for all rows.
    """

    functions: SetUpFunctions
    feed: FixedPartition
    constants: tuple
    structure: Structure
    share: float = 1.0

    @property
    def dimension(self) -> int:
        """Dimension D of the position."""
        return self.functions.model.dimension

    @property
    def count(self) -> int:
        """Number of all batches."""
        return self.feed.num_batches

    def first(self) -> int:
        """Return how many batches the first steps need."""
        rows = max(ROWS_FOR_EACH * self.dimension, self.feed.size / 8)
        return int(min(np.ceil(rows / self.feed.size * self.count), self.count))

    def part(self) -> int:
        """Return in how many batches the change of the gradient is averaged at most."""
        rows = max(2 * ROWS_FOR_EACH * self.dimension, 2**20)
        return int(np.ceil(rows / self.feed.size * self.count))

    def compile_ahead(self, coordinates: Arrow) -> None:
        """Begin to compile what a search needs first, for coordinates like these."""
        nothing = np.zeros((DRAWS, self.dimension))
        programs = self.functions.programs
        arguments = self._product_arguments(nothing[0], self._probes(), 0, 0, 0.0)
        programs["products"].compile(*arguments)
        programs["values"].compile(*self.value_arguments(coordinates, nothing, 0, 0.0))

    def _probes(self) -> np.ndarray:
        return probes_of(np.random.default_rng(0), self.structure, self.dimension)

    def _product_arguments(
        self, x: np.ndarray, probes: np.ndarray, number: int, first: int, weight: float
    ) -> tuple:
        """Return the arguments of ``functions.products`` at a point, for some batches."""
        vectors = from_numpy(probes)
        batches = np.int32(number), np.int32(first)
        return from_numpy(x), vectors, self.feed, self.constants, *batches, from_numpy(weight)

    def expand(self, x: np.ndarray, used: int) -> ArrowExpansion | None:
        """Expand the log density of the first batches; None if its Hessian is no arrow."""
        probes = self._probes()
        weight, rows = self.share * used / self.count, used / self.count * self.feed.size
        count_rows(rows * len(probes))
        position = from_numpy(x)

        def portion(first, number):
            found = self.functions.products(
                *self._product_arguments(x, probes, number, first, weight)
            )
            return jax.tree.map(lambda part: np.asarray(part, float), found)

        if is_large(rows):
            made = mean_of_portions(portion, used, alone=is_spread(self.feed))
        else:
            made = portion(0, used)
        if not all(np.isfinite(part).all() for part in made[:3]):
            return None
        hessian = assemble(
            self.structure, made.products[:-1], self._mixed(position, used), self.dimension
        )
        if not is_assembled(hessian, probes[-1], made.products[-1]):
            return None
        return ArrowExpansion(float(made.value), made.gradient, hessian)

    def _mixed(self, position, used: int) -> list[np.ndarray]:
        """Return what the rows of the first batches couple two groupings by, for all pairs."""
        pairs, groupings = pairs_of(self.structure), self.structure.groupings
        if not pairs:
            return []
        feed = first_batches(self.feed, used)
        sums = []
        for a, j, b, k in pairs:
            one, other = np.zeros((2, self.dimension))
            one[groupings[a].columns[:, j]] = 1
            other[groupings[b].columns[:, k]] = 1
            count_rows(feed.size)
            _, values = self.functions.mixed(
                position, from_numpy(one), from_numpy(other), feed, self.constants
            )
            sizes = len(groupings[a].columns), len(groupings[b].columns)
            index, second = groupings[a].index[: feed.size], groupings[b].index[: feed.size]
            sums.append(row_sums(index, second, sizes, np.asarray(values, float)))
        return sums

    def value_arguments(
        self, coordinates: Arrow, positions: np.ndarray, part: int, weight: float
    ) -> tuple:
        """Return the arguments of ``functions.values`` for positions (S, D) and some batches."""
        return (
            from_numpy(positions),
            jax.tree.map(from_numpy, coordinates),
            self.feed,
            self.constants,
            np.int32(part),
            from_numpy(weight),
        )

    def gradients(self, coordinates: Arrow, positions: np.ndarray) -> np.ndarray:
        """Return the (S, D) gradients of the log density of all rows, in the coordinates."""
        made = []
        for begin in range(0, len(positions), DRAWS):
            some = positions[begin : begin + DRAWS]
            # The program of the search is for so many positions.
            whole = np.concatenate([some, np.repeat(some[:1], DRAWS - len(some), axis=0)])
            arguments = self.value_arguments(coordinates, whole, self.count, 1.0)
            made.append(np.asarray(self.functions.values(*arguments)[1], float)[: len(some)])
        return np.concatenate(made)

    def averages(
        self, coordinates: Arrow, gradient: np.ndarray, draws: np.ndarray, used: int
    ) -> tuple[float, np.ndarray]:
        """Return the means over draws of log density and gradient (D,), in the coordinates.

        ``gradient`` is that of these rows at the center.
        """
        part, weight = min(used, self.part()), self.share * used / self.count
        count_rows((len(draws) + (part < used)) * part / self.count * self.feed.size)

        def means(positions):
            found = self.functions.values(
                *self.value_arguments(coordinates, positions, part, weight)
            )
            values, gradients = (np.asarray(x, float) for x in found)
            return values.mean(), gradients.mean(0)

        value, mean = means(draws)
        if part < used:
            # A part of the rows tells how the gradient changes, and all of them what it is.
            mean = mean - means(0 * draws[:1])[1] + coordinates.pull_back(gradient)
        return value, mean
