"""Find the center and the coordinates of a posterior with latents by group.

The highest point of such a posterior is no good center: with thousands of latents the
hyperparameters lie many standard deviations away from it. The Gaussian that is closest to the
posterior has a center c at which the gradient vanishes on average over its draws,
E grad U(c + K z) = 0, and c <- c - K K^T E grad U finds it in a few steps (docs/theory.md, B23).
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.arrow import Arrow, split
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import first_batches, is_large
from sgworld_mcmc.devices import is_spread
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.setup.arrow_hessian import (
    ArrowHessian,
    arrow_scale,
    assemble,
    pairs_of,
    probes_of,
    row_sums,
)
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.groups import Structure
from sgworld_mcmc.setup.portions import mean_of_portions

__all__ = ["ArrowCenter", "ArrowSearch"]

# Largest number of gradients on the way to the groups' mode.
TURNS = 12
# A part of the rows is enough for the first steps if it has this many rows for each parameter.
ROWS_FOR_EACH = 20
# The arrow reproduces a product with the Hessian to this precision, or it is not used.
PRECISION = 1e-4
# Pairs of opposite draws over which the gradient is averaged, and the largest number of averages.
PAIRS, AVERAGES = 8, 25
# Pairs of draws over which the Hessian is averaged where that at the center will not do, and over
# which it is averaged to find that out.
SPREAD, LOOK = 2, 1
# The Hessian at the center will not do if another gives a parameter a standard deviation that
# differs by more than this in its logarithm.
UNLIKE = 0.1
# The center has been found if an average moves no parameter by more standard deviations than the
# first number; up to the second it will do.
EXACT, CLOSE = 0.1, 0.5
# A step is too long if it loses more nats of the bound than this; it is shortened at most so far.
SLACK, SHORTEST = 0.3, 1e-3


class ArrowCenter(NamedTuple):
    """A center, and the log density around it.

    Attributes
    ----------
    coordinates
        The coordinates about the center.
    gradient
        (D,) gradient of the log density there.
    indefinite
        Number of directions in which the potential is not convex.
    moved
        Standard deviations by which a further step would move the parameter that it moves most.
    converged
        Whether that is little.
    mean
        Whether the coordinates come from a mean Hessian over the posterior: that at the center is
        not convex, or not like it.
    """

    coordinates: Arrow
    gradient: np.ndarray
    indefinite: int
    moved: float
    converged: bool
    mean: bool = False


class ArrowExpansion(NamedTuple):
    """Value, gradient (D,) and the potential's Hessian of the log density at a point."""

    value: float
    gradient: np.ndarray
    hessian: ArrowHessian


class ArrowSearch(NamedTuple):
    """A model with groups and its data, in the precision of the set-up.

    Attributes
    ----------
    functions, feed, constants
        As in :class:`~sgworld_mcmc.setup.mode_search.ModeSearch`.
    structure
        The groups.
    generator
        Source of random numbers.
    averages
        Whether coordinates may come from a mean Hessian although that at the center is convex. With
        a few rows in each of thousands of groups, the determinant of the groups' blocks says more
        about what they share than the highest point does.
    """

    functions: SetUpFunctions
    feed: FixedPartition
    constants: tuple
    structure: Structure
    generator: np.random.Generator
    averages: bool = True

    @property
    def dimension(self) -> int:
        """Dimension D of the position."""
        return self.functions.model.dimension

    def center(self, start: np.ndarray) -> ArrowCenter | None:
        """Return the center of the posterior; None if it is not found.

        Parameters
        ----------
        start
            (D,) position with a finite log density.
        """
        few, count, mean = self._first(), self.feed.num_batches, False
        x = self.given_the_rest(start, few)
        if few < count:
            rough = self.averaged(x, few)
            x, mean = (x, False) if rough is None else (rough.coordinates.center, rough.mean)
        return self.averaged(x, count, mean and self.averages)

    def given_the_rest(self, x: np.ndarray, used: int) -> np.ndarray:
        """Return the mode of the parameters by group, given those that go by no grouping."""
        best, step, length = -np.inf, np.zeros_like(x), 1.0
        for _ in range(TURNS):
            made = self.expand(x + length * step, used)
            if made is None or made.value < best:
                length *= 0.3
                continue
            x, best = x + length * step, made.value
            coordinates = _of_groups(made.hessian, self.structure)
            pulled = coordinates.pull_back(made.gradient)
            step, length = coordinates.apply(pulled), 1.0
            if np.abs(pulled).max() < CLOSE:
                break
        return x

    def at(self, center: np.ndarray, mean: bool = False) -> ArrowCenter | None:
        """Return what the density is like around a center, which stays where it is.

        Its Hessian is that at the center, or a mean one.
        """
        used = self.feed.num_batches
        made = self.expand(center, used)
        if made is None:
            return None
        coordinates, indefinite = arrow_scale(made.hessian)
        coordinates = replace(coordinates, center=center)
        if mean:
            coordinates, indefinite = self._wider(
                coordinates, indefinite, self._draws()[:SPREAD], used
            )
        return ArrowCenter(coordinates.spread_out(), made.gradient, indefinite, 0.0, True, mean)

    def _draws(self) -> np.ndarray:
        return self.generator.standard_normal((PAIRS, self.dimension))

    def averaged(self, center: np.ndarray, used: int, mean: bool = False) -> ArrowCenter | None:
        """Move a center to where the mean gradient over draws vanishes; None if it leads nowhere.

        With ``mean``, the coordinates come from a mean Hessian. Without, they do where that at the
        center is not convex, or not like it once the center has been found.
        """
        found = self._moved(center, used, mean)
        if found is None or found.mean or not self.averages or self._will_do(found, used):
            return found
        better = self._moved(found.coordinates.center, used, True)
        return better if better is not None and better.converged else found

    def _moved(self, center: np.ndarray, used: int, mean: bool) -> ArrowCenter | None:
        """Move a center as :meth:`averaged` does.

        The draws are the same at every center, so that their noise does not hide what a step gains
        of the evidence's lower bound.
        """
        half = self._draws()
        draws = np.concatenate([half, -half])
        last, length, best, step = None, 1.0, -np.inf, None
        for number in range(AVERAGES + 1):
            made = self.expand(center, used)
            bound = -np.inf
            if made is not None:
                gradient = made.gradient
                coordinates, indefinite = arrow_scale(made.hessian)
                coordinates = replace(coordinates, center=np.asarray(center, float))
                wider = mean or indefinite > 0
                if wider:
                    coordinates, indefinite = self._wider(
                        coordinates, indefinite, half[:SPREAD], used
                    )
                values, shift = self._averages(coordinates, gradient, draws, used)
                bound = values + coordinates.log_volume()
            if not (np.isfinite(bound) and bound >= best - SLACK):
                # Close to the center the bound and the mean gradient need not agree.
                if last is None or length < SHORTEST or last.converged:
                    break
                length *= 0.3
                center = last.coordinates.to_model(length * step)
                continue
            moved = float(np.abs(shift).max())
            last = ArrowCenter(coordinates, gradient, indefinite, moved, moved < CLOSE, wider)
            best, step, length = bound, shift, 1.0
            if moved < EXACT or number == AVERAGES:
                break
            center = coordinates.to_model(shift)
        return last and last._replace(coordinates=last.coordinates.spread_out())

    def _wider(
        self, coordinates: Arrow, indefinite: int, half: np.ndarray, used: int
    ) -> tuple[Arrow, int]:
        """Return coordinates from the mean Hessian over some draws, and those opposite to them.

        The Gaussian closest to the posterior has the mean Hessian's inverse as its covariance.
        """
        chosen = np.concatenate([half, -half])
        found = [self.expand(coordinates.to_model(z), used) for z in chosen]
        found = [made.hessian for made in found if made is not None]
        if not found:
            return coordinates, indefinite
        segments = found[0].segments
        parts = (np.mean(part, axis=0) for part in zip(*(h[:3] for h in found), strict=True))
        made, indefinite = arrow_scale(ArrowHessian(*parts, segments))
        return replace(made, center=coordinates.center), indefinite

    def _will_do(self, found: ArrowCenter, used: int) -> bool:
        """Return whether the Hessian at the center is much like a mean one."""
        wider, indefinite = self._wider(found.coordinates, 0, self._draws()[:LOOK], used)
        if indefinite:
            return True
        ratio = wider.spread_out().deviations() / found.coordinates.spread_out().deviations()
        _, shared = split(np.abs(np.log(ratio)), wider.segments)
        return bool(shared.max(initial=0) < UNLIKE)

    def expand(self, x: np.ndarray, used: int) -> "ArrowExpansion | None":
        """Expand the log density of the first batches; None if its Hessian is no arrow."""
        probes = probes_of(np.random.default_rng(0), self.structure, self.dimension)
        rows = used / self.feed.num_batches * self.feed.size
        count_rows(rows * len(probes))
        position, vectors = from_numpy(x), from_numpy(probes)

        def portion(first, number):
            found = self.functions.products(
                position, vectors, self.feed, self.constants, number, first
            )
            return jax.tree.map(lambda part: np.asarray(part, float), found)

        if is_large(rows):
            made = mean_of_portions(portion, used, alone=is_spread(self.feed))
        else:
            made = portion(0, used)
        if not all(np.isfinite(part).all() for part in made):
            return None
        hessian = assemble(
            self.structure, made.products[:-1], self._mixed(position, used), self.dimension
        )
        # Errors are compared in units of the blocks' own standard deviations.
        units = np.sqrt(np.maximum(np.abs(hessian.diagonal()), np.finfo(float).tiny))
        missed = (made.products[-1] - hessian.product(probes[-1])) / units
        whole = made.products[-1] / units
        if not np.linalg.norm(missed) <= PRECISION * np.linalg.norm(whole):
            return None
        return ArrowExpansion(float(made.value), made.gradient, hessian)

    def _mixed(self, position, used: int) -> list[np.ndarray]:
        """Return what the rows of the first batches couple two groupings by, for all pairs."""
        pairs, groupings = pairs_of(self.structure), self.structure.groupings
        if not pairs:
            return []
        feed = first_batches(self.feed, used)
        sums, factor = [], self.feed.size / feed.size
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
            sums.append(factor * row_sums(index, second, sizes, np.asarray(values, float)))
        return sums

    def _averages(self, coordinates: Arrow, gradient, draws, used) -> tuple[float, np.ndarray]:
        """Return the means over draws of log density and gradient (D,), in the coordinates."""
        part = min(used, self._part())
        count_rows((len(draws) + (part < used)) * part / self.feed.num_batches * self.feed.size)
        coordinates_now = jax.tree.map(from_numpy, coordinates)

        def averages(positions):
            found = self.functions.values(
                from_numpy(positions), coordinates_now, self.feed, self.constants, part
            )
            values, gradients = (np.asarray(x, float) for x in found)
            return values.mean(), gradients.mean(0)

        value, mean = averages(draws)
        if part < used:
            # A part of the rows tells how the gradient changes, and all of them what it is.
            mean = mean - averages(0 * draws[:1])[1] + coordinates.pull_back(gradient)
        return value, mean

    def _first(self) -> int:
        """Return how many batches the first steps need."""
        rows = max(ROWS_FOR_EACH * self.dimension, self.feed.size / 8)
        return int(
            min(np.ceil(rows / self.feed.size * self.feed.num_batches), self.feed.num_batches)
        )

    def _part(self) -> int:
        """Return in how many batches the change of the gradient is averaged at most."""
        rows = max(2 * ROWS_FOR_EACH * self.dimension, 2**20)
        return int(np.ceil(rows / self.feed.size * self.feed.num_batches))


def _of_groups(hessian: ArrowHessian, structure: Structure) -> Arrow:
    """Return K for steps of the parameters by group alone."""
    size = hessian.shared.shape[0]
    fixed = _places_of_rest(hessian, structure)
    shared, coupling = hessian.shared.copy(), hessian.coupling.copy()
    shared[fixed, :] = shared[:, fixed] = 0
    shared[fixed, fixed] = 1
    coupling[:, :, fixed] = 0
    coordinates, _ = arrow_scale(hessian._replace(shared=shared, coupling=coupling))
    moves = np.ones(size)
    moves[fixed] = 0
    return replace(coordinates, root=coordinates.root * moves[:, None])


def _places_of_rest(hessian: ArrowHessian, structure: Structure) -> np.ndarray:
    """Return the numbers, among the shared parameters, of those that go by no grouping."""
    dimension = hessian.blocks.shape[0] * hessian.blocks.shape[1] + len(hessian.shared)
    _, places = split(np.arange(dimension), hessian.segments)
    return np.flatnonzero(np.isin(places, structure.rest))
