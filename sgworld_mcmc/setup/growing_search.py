"""Find the mode of many rows from the modes of growing parts of them.

The first batches of shuffled rows are a random part of them. The mode of n rows lies about
sqrt(N D / n) posterior standard deviations from that of all N, and Newton steps converge
quadratically: one step on a part that is a few times as large as the last leads close to its mode.
All rows are then read twice: once for the gradient that leads from the last part's mode to within
a fraction of a standard deviation of their own, and once for gradient and Hessian there.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.setup.curvature import Scale, dense_scale
from sgworld_mcmc.setup.influential_rows import decided_by_rows
from sgworld_mcmc.setup.mode_search import ModeSearch, finite_loss
from sgworld_mcmc.setup.one_pass import Expansion

__all__ = ["GrownMode", "grow", "part_sizes"]

# Size of all rows relative to the largest part, and of each part relative to the one before.
LARGEST_PART, GROWTH = 8, 4
# A step may be this many standard deviations of the part's own posterior long, times the square
# root of D. If it is longer, the part before was no guide.
TRUST = 20.0
# The search gives up after this many gradients and Hessians of all rows, or after the second number
# of them if a part stands in where Newton steps fail.
MOST, MOST_WITH_PART = 3, 10
# The mode is found to within this many posterior standard deviations. The error of the last step
# is estimated from a step in another direction, and may be larger by the second number.
EXACT, MARGIN = 1e-3, 10.0


class GrownMode(NamedTuple):
    """The mode of all rows, and the log density around it.

    Attributes
    ----------
    position
        (D,) float64.
    gain
        Nats of log density that a further step promises.
    gradient
        (D,) gradient of the log density of all rows.
    hessian
        (D, D) Hessian of the potential.
    scaled
        The preconditioner from the Hessian.
    decided
        Numbers of the directions along which single rows seem to decide; empty if that was not
        looked at.
    """

    position: np.ndarray
    gain: float
    gradient: np.ndarray
    hessian: np.ndarray
    scaled: Scale
    decided: tuple[int, ...] = ()


def grow(
    search: ModeSearch,
    position: np.ndarray,
    sizes: list[int] | None = None,
    stand_in: Callable | None = None,
) -> GrownMode | None:
    """Search from a mode of the first batch to the mode of all rows.

    ``sizes`` are the numbers of batches in the growing parts; by default :func:`part_sizes`.
    ``stand_in(x, gradient)`` returns a point to go to where the log density of all rows, which has
    this gradient at x, falls along a Newton step from there; by default the search fails then.

    Return None if Newton steps fail: if the potential is not convex on the way, a step is longer
    than the parts can explain, or the log density falls. Another search may then do better.
    """
    x, count = np.asarray(position, float), search.feed.num_batches
    scaled = None
    for used in part_sizes(count) if sizes is None else sizes:
        here = search.expand(x, used)
        scaled = _scale(here)
        if scaled is None:
            return None
        # The length is compared in standard deviations of the posterior of this part alone.
        if _length(here.gradient, scaled) * (used / count) ** 0.5 > TRUST * search.dimension**0.5:
            return None
        x = x + _step(here.gradient, scaled)
    last = search.evaluate(x, count)
    if scaled is None or not np.isfinite(finite_loss(last)):
        return None
    size = search.functions.model.size
    value, slope = -size * float(last.loss), -size * np.asarray(last.gradient, float)
    change, most, spent = _step(slope, scaled), MOST, 0
    while spent < most:
        moved, spent = x + change, spent + 1
        here = search.expand(moved, count, scaled.about(x))
        decided = () if here.powers is None else decided_by_rows(here.powers)
        # Sums over all rows cannot be told apart more finely than this.
        slack = 100 * np.finfo(last.loss.dtype).eps * abs(value)
        if (fell := float(here.value) < value - slack) and stand_in is not None and not decided:
            other = stand_in(x, slope) - x
            if np.isfinite(other).all() and not np.array_equal(other, change):
                change, most = other, MOST_WITH_PART
                continue
        scaled = _scale(here)
        if scaled is None or fell:
            return None
        ahead = _length(here.gradient, scaled)
        if ahead < EXACT:
            return GrownMode(moved, ahead**2 / 2, here.gradient, here.hessian, scaled, decided)
        # The quadratic's error on the way here grows as the square of the way.
        missed = _length(here.gradient - slope + here.hessian @ change, scaled)
        way = _distance(change, here.hessian)
        error = MARGIN * missed * (ahead / way) ** 2
        step = _step(here.gradient, scaled)
        if error < EXACT:
            # The step ends where the quadratic says, and its gradient there is zero.
            return GrownMode(moved + step, error**2 / 2, 0 * step, here.hessian, scaled, decided)
        x, value, slope, change = moved, float(here.value), here.gradient, step
    return None


def part_sizes(count: int) -> list[int]:
    """Return the numbers of batches in the growing parts of ``count``, the smallest first.

    Examples
    --------
    >>> part_sizes(2000)
    [3, 15, 62, 250]
    """
    sizes, used = [], max(count // LARGEST_PART, 1)
    while used > 1 or not sizes:
        sizes.append(used)
        used //= GROWTH
    return sizes[::-1]


def _scale(here: Expansion) -> Scale | None:
    """Return the preconditioner; None unless all is finite and the potential is convex."""
    if not (np.isfinite(here.value) and np.isfinite(here.hessian).all()):
        return None
    if not np.isfinite(here.gradient).all():
        return None
    scaled = dense_scale(here.hessian)
    return scaled if scaled.indefinite == 0 else None


def _step(gradient: np.ndarray, scaled: Scale) -> np.ndarray:
    return scaled.newton_step(gradient)


def _length(gradient: np.ndarray, scaled: Scale) -> float:
    """Return the length of the Newton step from this gradient, in posterior standard deviations."""
    return float(np.linalg.norm(scaled.coordinates.pull_back(gradient)))


def _distance(step: np.ndarray, hessian: np.ndarray) -> float:
    return float(np.sqrt(step @ hessian @ step))
