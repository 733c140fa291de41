"""The steps of the search for the mode, each of which calls a compiled function."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import head, is_large, minibatches
from sgworld_mcmc.device_layout import is_spread
from sgworld_mcmc.progress import count_rows, is_counting
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.curvature import (
    DENSE_DIMENSION,
    PROBES,
    Scale,
    dense_scale,
    diagonal_probes,
    diagonal_scale,
)
from sgworld_mcmc.setup.descent import Search
from sgworld_mcmc.setup.few_products import FewProducts
from sgworld_mcmc.setup.influential_rows import are_very_many, look_about
from sgworld_mcmc.setup.one_pass import Expansion
from sgworld_mcmc.setup.portions import mean_of_portions

__all__ = ["ModeSearch", "finite_loss"]

# Up to this dimension, all starts are followed to their modes.
SEVERAL_DIMENSION = 200
# Rows in a minibatch of Adam.
ADAM_ROWS = 512
# Number of starting points, and of candidates for each of them.
STARTS, TRIES = 4, 10
# Half widths of the uniform distribution from which searches start; the first one is NumPyro's.
RADII = (2.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
# A search has arrived at a mode if a further step promises fewer nats than this.
SETTLED = 1e-3
# Largest numbers of Hessians in a search and of gradients of L-BFGS.
ROUNDS, BUDGET = 8, 300
# Number of steps of the variational fit, and of the minibatches that it uses of a feed of few.
GAUSSIAN_STEPS, GAUSSIAN_BATCHES = 3000, 64


class ModeSearch(NamedTuple):
    """A model and its data, in the precision of the set-up.

    Attributes
    ----------
    functions
        The model's compiled functions.
    feed
        The rows in batches, from :func:`sgworld_mcmc.setup.coordinates_from_mode.set_up_feed`.
    constants
        The other arrays.
    generator
        Source of all random numbers; None if only steps without any are called.
    tilt
        (D,) a gradient that steps add to that of the log density, or None.
    few
        The products that hold the whole Hessian where parameters go by group, or None.
    """

    functions: SetUpFunctions
    feed: FixedPartition
    constants: tuple
    generator: np.random.Generator | None = None
    tilt: np.ndarray | None = None
    few: FewProducts | None = None

    @property
    def dimension(self) -> int:
        """Dimension D of the position."""
        return self.functions.model.dimension

    @property
    def dense(self) -> bool:
        """Whether the whole Hessian is used, and not its diagonal only."""
        return self.dimension <= DENSE_DIMENSION

    def descend(self, start, coordinates, used: int, limit: int, newton: bool) -> Search:
        """Make Newton steps with K K^T, or L-BFGS steps, on the first ``used`` batches."""
        start, coordinates, tilt = jax.tree.map(from_numpy, (start, coordinates, self.tilt))
        search = self.functions.descend(
            start, coordinates, self.feed, self.constants, used, limit, tilt, newton=newton
        )
        if is_counting():
            count_rows(int(search.evaluations) * self._rows(used))
        return search

    def _rows(self, used: int) -> float:
        """Return how many rows the first ``used`` batches have."""
        return used / self.feed.num_batches * self.feed.size

    def expand(self, position, used: int, about: Coordinates | None = None) -> Expansion:
        """Return log density, gradient and Hessian from one pass over the first batches.

        Where there are many rows, their slopes ``about`` a point are looked at on the way.
        """
        rows, look = self._rows(used), None
        if about is not None and are_very_many(rows):
            look = look_about(about)
        position = from_numpy(position)
        feed, constants, few = self.feed, self.constants, self.few

        def summed(portion):
            portion_in_numpy = lambda *batches: jax.tree.map(  # noqa: E731
                lambda x: np.asarray(x, float), portion(*batches)
            )
            if is_large(rows):
                return mean_of_portions(portion_in_numpy, used, alone=is_spread(feed))
            return portion_in_numpy(0, used)

        def products(first, number):
            probes = from_numpy(few.probes)
            return self.functions.products(position, probes, feed, constants, number, first, None)

        def whole(first, number):
            return self.functions.expansion(position, feed, constants, number, first, look)

        if few is not None:
            count_rows(rows * len(few.probes))
            made = few.expansion(summed(products))
            if made is not None:
                return made
        count_rows(rows)
        return summed(whole)

    def quasi_newton(self, start, used: int) -> Search:
        """Search by L-BFGS, which needs no Hessian."""
        return self.descend(start, self._unit(Diagonal), used, BUDGET, False)

    def evaluate(self, position, used: int) -> Search:
        """Return the loss and its gradient at a position, as a search that makes no step."""
        unit = self._unit(Dense if self.dense else Diagonal)
        return self.descend(position, unit, used, 1, self.dense)

    def _unit(self, kind: type[Coordinates]) -> Coordinates:
        """Return coordinates in which K is the identity."""
        return kind.from_covariance(np.zeros(self.dimension), np.ones(self.dimension))

    def value(self, position) -> float:
        """Return minus the log density of the first batch, or infinity where it is not finite."""
        return finite_loss(self.evaluate(position, 1))

    def gradient(self, position) -> np.ndarray:
        """Return the (D,) gradient of the log density of all rows."""
        search = self.evaluate(position, self.feed.num_batches)
        return -self.feed.size * np.asarray(search.gradient, float)

    def curvature(self, position, used: int) -> tuple[jax.Array | None, Scale]:
        """Return the Hessian (None if only its diagonal is used) and its preconditioner."""
        functions, position = self.functions, from_numpy(position)
        if self.dense:
            if is_large(self.feed.size) or self.few is not None:
                # This function is compiled for the search on growing parts anyway.
                hessian = self.expand(position, used).hessian
            else:
                count_rows(self._rows(used))
                hessian = functions.hessian(position, self.feed, self.constants, used)
            return hessian, dense_scale(hessian)
        count_rows(self.feed.size * min(self.dimension, PROBES))
        probes = from_numpy(diagonal_probes(self.generator, self.dimension))
        diagonal = functions.diagonal(probes, position, self.feed, self.constants)
        return None, diagonal_scale(diagonal)

    def refine(self, position, used: int, rounds: int) -> tuple[Search, jax.Array | None, Scale]:
        """Make Newton steps; renew the Hessian, or |Hessian|, until it no longer matters."""
        for _ in range(rounds):
            hessian, scaled = self.curvature(position, used)
            search = self.descend(position, scaled.coordinates, used, 15, True)
            change = np.asarray(search.position) - np.asarray(position)
            moved = scaled.coordinates.distance(change)
            position = search.position
            arrived = moved < 0.1 and float(search.gain) < SETTLED
            if arrived or not np.isfinite(moved):
                break
        return search, hessian, scaled

    def initial_points(self) -> np.ndarray:
        """Return (S, D) points of the initialisation strategy; the default needs no model."""
        if self.functions.strategy is not None:
            rows = jax.tree.map(lambda x: x[0, :ADAM_ROWS], self.feed.main)
            seeds = self.generator.integers(2**32, size=(STARTS, TRIES), dtype=np.uint32)
            return np.asarray(self.functions.initial(seeds, rows, self.constants))
        directions = self.generator.uniform(-1, 1, (STARTS, self.dimension))
        # The origin is one of them: often the only point where nothing overflows.
        directions[-1] = 0
        for direction in directions:
            # The start moves towards the origin while the density is not finite, as that of
            # exp(beta * 2000) may be.
            radii = (r for r in RADII if np.isfinite(self.value(r * direction)))
            direction *= next(radii, 0.0)
        return directions

    def modes(self, initial: np.ndarray) -> list[Search]:
        """Search on the first batch of rows from (S, D) initial points; return where it ends.

        Newton steps alone are enough if they lead from several points all to one mode. Else Adam
        makes the first steps.
        """
        if self.dense and 1 < len(initial) and self.dimension <= SEVERAL_DIMENSION:
            found = [self.refine(start, 1, ROUNDS) for start in initial]
            if _agree(found):
                return [search for search, _, _ in found]
        count = self.feed.num_batches
        orders = self.generator.integers(0, count, (len(initial), 250 if count == 1 else 500))
        some = head(self.feed, ADAM_ROWS)
        count_rows(orders.size * ADAM_ROWS)
        ends = self.functions.adam(
            from_numpy(initial), orders.astype(np.int32), some, self.constants
        )
        # Adam's learning rate is too large for some scales: a search then stays where it was.
        pairs = zip(np.asarray(ends), initial, strict=True)
        starts = sorted((min(pair, key=self.value) for pair in pairs), key=self.value)
        if self.dense:
            some = starts if self.dimension <= SEVERAL_DIMENSION else starts[:1]
            found = [self.refine(start, 1, ROUNDS)[0] for start in some]
            if min(float(search.gain) for search in found) < 1.0:
                return found
        return [self.quasi_newton(start, 1) for start in starts]

    def nearest(self, point) -> Search:
        """Search on the first batch of rows, from one point to the mode where that leads."""
        if self.dense:
            return self.refine(np.asarray(point, float), 1, ROUNDS)[0]
        return self.quasi_newton(np.asarray(point, float), 1)

    def finish(self, position) -> tuple[Search, jax.Array | None, Scale]:
        """Search from a mode of the first batch to that of all rows; return the curvature too."""
        count = self.feed.num_batches
        if not self.dense:
            position = self.quasi_newton(position, count).position
        elif count > 1:
            _, scaled = self.curvature(position, min(count, 4))
            position = self.descend(position, scaled.coordinates, count, 40, True).position
        return self.refine(position, count, ROUNDS if self.dense else 1)

    def gaussian(self, start: np.ndarray, dense: bool = True) -> tuple[jax.Array, jax.Array]:
        """Return mean and Cholesky factor of the Gaussian fitted to the posterior.

        If it is not ``dense``, its coordinates are independent: their standard deviations (D,) are
        returned in place of the factor.
        """
        some = minibatches(self.feed, ADAM_ROWS, GAUSSIAN_BATCHES)
        order = self.generator.integers(0, some.num_batches, GAUSSIAN_STEPS).astype(np.int32)
        seed = np.uint32(self.generator.integers(2**32))
        count_rows(GAUSSIAN_STEPS * ADAM_ROWS)
        return self.functions.gaussian(
            seed, from_numpy(start), order, some, self.constants, dense=dense
        )


def _agree(found: list[tuple[Search, jax.Array | None, Scale]]) -> bool:
    """Return whether all searches ended at one mode with a positive definite Hessian."""
    first, _, scaled = found[0]
    return all(
        float(search.gain) < SETTLED
        and own.indefinite == 0
        and scaled.coordinates.distance(np.asarray(search.position) - np.asarray(first.position))
        < 0.1
        for search, _, own in found
    )


def finite_loss(search: Search) -> float:
    """Return the loss at the end of a search, or infinity where it is not finite."""
    loss = float(search.loss)
    return loss if np.isfinite(loss) else np.inf
