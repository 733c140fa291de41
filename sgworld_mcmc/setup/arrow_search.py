"""Find the center and the coordinates of a posterior with latents by group.

The highest point of such a posterior is no good center: with thousands of latents the
hyperparameters lie many standard deviations away from it. The Gaussian that is closest to the
posterior has a center c at which the gradient vanishes on average over its draws,
E grad U(c + K z) = 0, and c <- c - K K^T E grad U finds it in a few steps (docs/theory.md, B23).
"""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.coordinates.arrow import Arrow, split
from sgworld_mcmc.setup.anderson import Anderson
from sgworld_mcmc.setup.arrow_hessian import ArrowHessian, arrow_scale
from sgworld_mcmc.setup.arrow_rows import DRAWS, ArrowExpansion, ArrowRows
from sgworld_mcmc.setup.groups import Structure

__all__ = ["ArrowCenter", "ArrowSearch"]

# Largest number of gradients on the way to the groups' mode.
TURNS = 12
# Pairs of opposite draws over which the gradient is averaged, and the largest number of averages.
PAIRS, AVERAGES = DRAWS // 2, 25
# Pairs of draws over which the Hessian is averaged where that at the center will not do, and over
# which it is averaged to find that out.
SPREAD, LOOK = 2, 1
# The Hessian at the center will not do if another gives a parameter a standard deviation that
# differs by more than this in its logarithm.
UNLIKE = 0.1
# Half of the way to a new mean Hessian is taken where all of it would change one so much, and less
# of it where one would shrink by more than the second number.
LONG, LONGEST = 0.5, 1.5
# The center has been found if an average moves no parameter by more standard deviations than the
# first number; up to the second it will do.
EXACT, CLOSE = 0.25, 0.5
# A step is too long if it loses more nats of the bound than this; it is shortened at most so far.
SLACK, SHORTEST = 0.3, 1e-3
# Steps are mixed with the last ones once none moves a parameter by more standard deviations.
MIXED = 10.0


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
    hessian
        That mean Hessian, or None.
    """

    coordinates: Arrow
    gradient: np.ndarray
    indefinite: int
    moved: float
    converged: bool
    mean: bool = False
    hessian: ArrowHessian | None = None


class ArrowSearch(NamedTuple):
    """The search for the center of a posterior with latents by group.

    Attributes
    ----------
    rows
        The model and its data.
    generator
        Source of random numbers.
    averages
        Whether coordinates may come from a mean Hessian although that at the center is convex. With
        a few rows in each of thousands of groups, the determinant of the groups' blocks says more
        about what they share than the highest point does.
    """

    rows: ArrowRows
    generator: np.random.Generator
    averages: bool = True

    def center(self, start: np.ndarray) -> ArrowCenter | None:
        """Return the center of the posterior; None if it is not found.

        Parameters
        ----------
        start
            (D,) position with a finite log density.
        """
        few = self.rows.first()
        x = self.given_the_rest(start, few)
        rough = self._moved(x, few, False, CLOSE)
        x = x if rough is None else rough.coordinates.center
        if few < self.rows.count:
            x = self.given_the_rest(x, self.rows.count)
        return self.averaged(x, rough)

    def given_the_rest(self, x: np.ndarray, used: int) -> np.ndarray:
        """Return the mode of the parameters by group, given those that go by no grouping."""
        best, step, length = -np.inf, np.zeros_like(x), 1.0
        for _ in range(TURNS):
            made = self.rows.expand(x + length * step, used)
            if made is None or made.value < best:
                length *= 0.3
                continue
            x, best = x + length * step, made.value
            coordinates = _of_groups(made.hessian, self.rows.structure)
            pulled = coordinates.pull_back(made.gradient)
            step, length = coordinates.apply(pulled), 1.0
            if np.abs(pulled).max() < CLOSE:
                break
        return x

    def at(self, center: np.ndarray, width: Arrow | None = None) -> ArrowCenter | None:
        """Return what the density is like around a center, which stays where it is.

        Its Hessian is that at the center, or a mean one over draws of the ``width`` of some
        coordinates.
        """
        used, mean = self.rows.count, width is not None
        made = self.rows.expand(center, used)
        if made is None:
            return None
        coordinates, indefinite = arrow_scale(made.hessian)
        coordinates = replace(width if mean else coordinates, center=center)
        if mean:
            half = self._draws(SPREAD)
            coordinates, indefinite, *_ = self._wider(coordinates, indefinite, half, used)
        return ArrowCenter(coordinates.spread_out(), made.gradient, indefinite, 0.0, True, mean)

    def _draws(self, number: int = PAIRS) -> np.ndarray:
        """Return draws (``number``, D), one of each pair, with mean squares of one.

        Both those of the mean Hessian and the others have them in every parameter. A curvature
        that grows as exp(2 z) would otherwise hang on the largest z of a few.
        """
        draws = self.generator.standard_normal((number, self.rows.dimension))
        for some in np.split(draws, range(SPREAD, number, number)):
            some /= np.sqrt(np.mean(some**2, axis=0))
        return draws

    def averaged(self, center: np.ndarray, rough: ArrowCenter | None = None) -> ArrowCenter | None:
        """Move a center to where the mean gradient over draws vanishes; None if it leads nowhere.

        The coordinates come from a mean Hessian where that at the center is not convex, or not
        like it: over draws of the width that a ``rough`` search has found, if it needed one.
        """
        width = rough if rough is not None and rough.mean else None
        here, used = self.at(center) if self.averages else None, self.rows.count
        mean = here is not None and not here.indefinite and not self._will_do(here, used)
        found = self._moved(center, used, mean, width=width)
        if found is None or found.mean or not self.averages or self._will_do(found, used):
            return found
        better = self._moved(found.coordinates.center, used, True, width=width)
        return better if better is not None and better.converged else found

    def _moved(
        self,
        center: np.ndarray,
        used: int,
        mean: bool,
        exact: float = EXACT,
        width: ArrowCenter | None = None,
    ) -> ArrowCenter | None:
        """Move a center as :meth:`averaged` does, until a step is as short as ``exact``.

        The draws are the same at every center, so that their noise does not hide what a step gains
        of the evidence's lower bound.
        """
        half = self._draws()
        draws = np.concatenate([half, -half])
        last, length, best, mixed = None, 1.0, -np.inf, Anderson()
        plain = step = np.zeros_like(center)
        for number in range(AVERAGES + 1):
            made, bound = self.rows.expand(center, used), -np.inf
            if made is not None:
                here, shift, bound = self._look(made, center, half, draws, used, mean, last, width)
                # Where the Hessian is not convex at one center, it is hardly convex at the next: a
                # parameter would seem to be known hundreds of times less well there.
                mean = mean or here.mean
            if not (np.isfinite(bound) and bound >= best - SLACK):
                # Close to the center the bound and the mean gradient need not agree.
                if last is None or length < SHORTEST or last.converged:
                    break
                # A mixed step that was wrong is replaced by the plain one, which may be too long.
                step, length = plain, length if step is not plain else 0.3 * length
                center = last.coordinates.center + length * step
                mixed.forget()
                continue
            last, best, length = here, max(best, bound), 1.0
            if here.moved < exact or number == AVERAGES:
                break
            plain = step = here.coordinates.apply(shift)
            if here.moved < MIXED:
                step = mixed.step(center, plain, here.coordinates.solve)
            center = center + step
        return last and last._replace(coordinates=last.coordinates.spread_out())

    def _look(
        self,
        made: ArrowExpansion,
        center: np.ndarray,
        half: np.ndarray,
        draws: np.ndarray,
        used: int,
        mean: bool,
        last: ArrowCenter | None,
        width: ArrowCenter | None,
    ) -> tuple[ArrowCenter, np.ndarray, float]:
        """Return a center, the step from it in its coordinates, and the evidence's bound there."""
        coordinates, indefinite = arrow_scale(made.hessian)
        coordinates = replace(coordinates, center=np.asarray(center, float))
        wider, hessian, settled = mean or indefinite > 0, None, True
        if wider:
            before = None if indefinite else made.hessian
            known = width if last is None or last.hessian is None else last
            if known is not None:
                # The curvature at one point of a tail says nothing of the width.
                coordinates = replace(known.coordinates, center=coordinates.center)
                before = known.hessian
            coordinates, indefinite, hessian, settled = self._wider(
                coordinates, indefinite, half[:SPREAD], used, before
            )
        value, shift = self.rows.averages(coordinates, made.gradient, draws, used)
        # Where the width has a long way to go, the center is not found either.
        moved = float(np.abs(shift).max()) if settled else np.inf
        found = ArrowCenter(
            coordinates, made.gradient, indefinite, moved, moved < CLOSE, wider, hessian
        )
        return found, shift, value + coordinates.log_volume()

    def _wider(
        self,
        coordinates: Arrow,
        indefinite: int,
        half: np.ndarray,
        used: int,
        before: ArrowHessian | None = None,
    ) -> tuple[Arrow, int, ArrowHessian | None, bool]:
        """Return coordinates from the mean Hessian over some draws, and those opposite to them.

        The Gaussian closest to the posterior has the mean Hessian's inverse as its covariance. Of
        a long way from the mean ``before`` to the new one half is taken: where a curvature grows
        as exp(2 z), a narrow Gaussian makes the next one wide, and a wide one narrow, by as many
        orders as one likes. The last value is whether no width shrinks by very much.
        """
        chosen = np.concatenate([half, -half])
        found = [self.rows.expand(coordinates.to_model(z), used) for z in chosen]
        found = [made.hessian for made in found if made is not None]
        if not found:
            return coordinates, indefinite, before, True
        mean, settled = _mean(found), True
        made, indefinite = arrow_scale(mean)
        change = _shared_changes(made, coordinates)
        if before is not None and np.abs(change).max(initial=0) > LONG:
            shrunk = float(-change.min(initial=0))
            settled = shrunk <= LONGEST
            # The precision is then so many times as large at most.
            share = min(0.5, np.expm1(2 * LONGEST) / max(np.expm1(2 * shrunk), 1e-12))
            mean = _mean([before, mean], [1 - share, share])
            made, indefinite = arrow_scale(mean)
        return replace(made, center=coordinates.center), indefinite, mean, settled

    def _will_do(self, found: ArrowCenter, used: int) -> bool:
        """Return whether the Hessian at the center is much like a mean one."""
        wider, indefinite, *_ = self._wider(found.coordinates, 0, self._draws(LOOK), used)
        if indefinite:
            return True
        return bool(np.abs(_shared_changes(wider, found.coordinates)).max(initial=0) < UNLIKE)


def _shared_changes(one: Arrow, other: Arrow) -> np.ndarray:
    """Return by how much the logarithms of the shared parameters' deviations differ."""
    ratio = one.spread_out().deviations() / other.spread_out().deviations()
    return split(np.log(ratio), one.segments)[1]


def _mean(hessians: list[ArrowHessian], shares: list[float] | None = None) -> ArrowHessian:
    each = zip(*(h[:3] for h in hessians), strict=True)
    parts = (np.average(part, axis=0, weights=shares) for part in each)
    return ArrowHessian(*parts, hessians[0].segments)


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
