"""Find the center and the coordinates of streamed rows with thousands of latents by group.

The part of the rows that is in memory knows the groups, the shape of the posterior and roughly its
place. What it does not know is the height, the slope and the curvature of all rows at one point,
which one pass over the file gives: a quadratic that is added to the log density of the part makes
it that of all rows to second order about that point (the surrogate likelihood of Jordan, Lee and
Yang, 2019, doi.org/10.1080/01621459.2018.1429274). The search of
:mod:`sgworld_mcmc.setup.arrow_search` runs on the sum, and each pass is made where the last search
has ended, until it moves no more.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.coordinates.arrow import Arrow
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import first_batches, generator_of, head
from sgworld_mcmc.progress import stage
from sgworld_mcmc.setup.arrow_hessian import ArrowHessian
from sgworld_mcmc.setup.arrow_rows import ArrowExpansion, ArrowRows
from sgworld_mcmc.setup.arrow_search import CLOSE, ArrowCenter, ArrowSearch
from sgworld_mcmc.setup.checked_model import MANY_NUMBERS
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_by_group import RADII, fit_of
from sgworld_mcmc.setup.few_products import FewProducts
from sgworld_mcmc.setup.find_posterior import FIRST_ROWS
from sgworld_mcmc.setup.groups import Structure, find_structure
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives, NotFinite, WholeData

__all__ = ["StreamedGroups", "fit_streamed_by_group"]

# Passes over the file at most, each about the center to which the last one has led.
PASSES = 8
# Hessians of the blocks of the file are looked at along this many draws.
PROBES = 8


class StreamedGroups(NamedTuple):
    """Coordinates by group of streamed rows.

    Attributes
    ----------
    fit
        The coordinates.
    structure
        The groups, with the index of the rows of the part.
    blocks
        Derivatives of the log density at the center, from each block of the file.
    """

    fit: CoordinateFit
    structure: Structure
    blocks: BlockDerivatives | None


def fit_streamed_by_group(
    seed: np.ndarray,
    functions: SetUpFunctions,
    feed: FixedPartition,
    constants: tuple,
    initial: np.ndarray | None,
    whole: WholeData,
) -> StreamedGroups | None:
    """Return coordinates by group; None without one grouping of the latents, or without a center.

    Parameters
    ----------
    seed
        Integers that decide everything random here.
    feed
        A random part of the rows, in batches of the set-up.
    initial
        (S, D) points from which to search, or None.
    whole
        All rows.
    """
    dimension = functions.model.dimension
    if feed.size * dimension >= MANY_NUMBERS and feed.num_batches > 1:
        # A network's parameters go by no group, and each candidate costs a pass over the part.
        some = head(first_batches(feed, 1), FIRST_ROWS)
        if find_structure(generator_of(seed), functions, some, constants) is None:
            return None
    structure = find_structure(generator_of(seed), functions, feed, constants)
    few = FewProducts.of(structure, dimension)
    if few is None:
        return None
    part = ArrowRows(functions, feed, constants, structure)
    alone = ArrowSearch(part._replace(share=feed.size / whole.rows.size), generator_of(seed), False)
    part.compile_ahead(Arrow.blank(structure.segments))
    random = generator_of(np.append(seed, 1))
    starts = [] if initial is None else [np.asarray(initial[0], float)]
    starts += [radius * random.standard_normal(part.dimension) for radius in RADII]
    for start in starts:
        stage("searching the center on a part")
        rough = alone.center(start)
        if rough is not None and rough.converged and not rough.indefinite:
            break
    else:
        return None
    search = WholeSearch(seed, few, part, whole)
    found = search.center(rough.coordinates.scaled(alone.rows.share**0.5))
    if found is None:
        return None
    whole.groups = search
    return StreamedGroups(fit_of(found), structure, search.blocks)


class WholeSearch:
    """The search for the center of all rows, and the derivatives there.

    Parameters
    ----------
    seed
        Integers that decide which draws are averaged over: the same ones in every search.
    few
        The vectors with which the Hessian is multiplied.
    part
        The rows in memory, which stand for all of them.
    whole
        All rows.
    """

    def __init__(
        self, seed: np.ndarray, few: FewProducts, part: ArrowRows, whole: WholeData
    ) -> None:
        self._seed, self._few, self._part, self._whole = seed, few, part, whole
        self.structure, self.count = part.structure, part.count
        self.blocks: BlockDerivatives | None = None
        self._vectors = np.zeros((PROBES, part.dimension))
        self._last: tuple[bytes, ArrowExpansion | None] = b"", None

    def center(self, coordinates: Arrow) -> ArrowCenter | None:
        """Return the center, from a first guess of the coordinates; None if it is not found."""
        self._look_along(coordinates)
        # What the part says of a group of few rows is far off: each group's mode comes first.
        x = ArrowSearch(self, None, False).given_the_rest(coordinates.center, self.count)
        for _ in range(PASSES):
            here = self._surrogate(x)
            if here is None:
                return None
            search = ArrowSearch(here, generator_of(self._seed), False)
            found = search.averaged(search.given_the_rest(x, here.count))
            if found is None or not found.converged or found.indefinite or found.mean:
                return None
            coordinates, start = found.coordinates, x
            self._look_along(coordinates)
            x = np.asarray(coordinates.center, float)
            if np.abs(coordinates.solve(x - start)).max() < CLOSE:
                # Value, slope and curvature are exact where the pass was made.
                return search.at(start)
        return None

    def at(self, center: np.ndarray, coordinates: Arrow) -> ArrowCenter | None:
        """Return what the density of all rows is like around a center, from one pass."""
        self._look_along(coordinates)
        here = self._surrogate(center)
        return None if here is None else ArrowSearch(here, generator_of(self._seed)).at(center)

    def expand(self, x: np.ndarray, used: int) -> ArrowExpansion | None:
        """Expand the log density of all rows, by one pass; None if its Hessian is no arrow."""
        key = np.asarray(x, float).tobytes()
        if key != self._last[0]:
            stage("gradient and Hessian of all rows")
            try:
                made, self.blocks = self._whole.expansion_by_group(x, self._few, self._vectors)
            except NotFinite:
                made = None
            self._last = key, made
            stage("searching the center")
        return self._last[1]

    def _look_along(self, coordinates: Arrow) -> None:
        """Let the next passes multiply the Hessians of blocks with draws of these coordinates."""
        random = generator_of(np.append(self._seed, 2))
        self._vectors = coordinates.apply(random.standard_normal(self._vectors.shape))

    def _surrogate(self, x: np.ndarray) -> "Surrogate | None":
        """Return a log density that is that of all rows about a point; None if there is none."""
        made = self.expand(x, self.count)
        own = None if made is None else self._part.expand(x, self.count)
        if own is None:
            return None
        hessian = made.hessian.plus(own.hessian, -1.0)
        return Surrogate(
            self._part, x, made.value - own.value, made.gradient - own.gradient, hessian
        )


class Surrogate(NamedTuple):
    """The log density of a part that stands for all rows, plus a quadratic about a point.

    It takes the place of :class:`~sgworld_mcmc.setup.arrow_rows.ArrowRows`.

    Attributes
    ----------
    part
        The rows in memory.
    point
        (D,) the point x0.
    value, gradient, hessian
        By how much the log density, its gradient and the potential's Hessian of all rows exceed
        those of the part at x0.
    """

    part: ArrowRows
    point: np.ndarray
    value: float
    gradient: np.ndarray
    hessian: ArrowHessian

    @property
    def structure(self) -> Structure:
        """The groups."""
        return self.part.structure

    @property
    def dimension(self) -> int:
        """Dimension D of the position."""
        return self.part.dimension

    @property
    def count(self) -> int:
        """Number of batches of the part, all of which are always used."""
        return self.part.count

    def expand(self, x: np.ndarray, used: int) -> ArrowExpansion | None:
        """Expand the log density; None if the part's Hessian is no arrow there."""
        made = self.part.expand(x, used)
        if made is None:
            return None
        change = x - self.point
        turned = self.hessian.product(change)
        return ArrowExpansion(
            made.value + self.value + change @ (self.gradient - turned / 2),
            made.gradient + self.gradient - turned,
            made.hessian.plus(self.hessian),
        )

    def averages(
        self, coordinates: Arrow, gradient: np.ndarray, draws: np.ndarray, used: int
    ) -> tuple[float, np.ndarray]:
        """Return the means over draws of log density and gradient (D,), in the coordinates.

        ``gradient`` is that at the coordinates' center.
        """
        change = coordinates.to_model(draws) - self.point
        turned = np.stack([self.hessian.product(each) for each in change])
        added = self.gradient - turned
        own = gradient - self.gradient + self.hessian.product(coordinates.center - self.point)
        value, mean = self.part.averages(coordinates, own, draws, used)
        value += self.value + np.mean(np.sum(change * (self.gradient - turned / 2), axis=1))
        return value, mean + coordinates.pull_back(added.mean(0))
