"""Look for modes beside the one at which the chains will be."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.setup.descent import Search
from sgworld_mcmc.setup.mode_search import SETTLED, SEVERAL_DIMENSION, ModeSearch, finite_loss

__all__ = ["Mode", "distances_of", "find_modes", "heaviest"]

# Number of further searches. A mode to which one start in five leads is missed by all of them, the
# first four too, once in thirty-five models.
FURTHER = 12
# Largest number of second derivatives of rows in the Hessians of all further searches: a second.
MOST_DERIVATIVES = 5e8
# Two modes are taken for one if they are closer than so many standard deviations, or if the log
# density on the line between them falls by so few nats: chains then pass from one to the other, or
# disagree. From four nats on, all four chains of a run may stay where they began.
CLOSEST, BARRIER = 1.0, 2.5
# Points on that line.
BETWEEN = np.linspace(0, 1, 9)[1:-1]
# A mode matters if it holds this share of the posterior, from Gaussians at the modes.
SMALLEST_SHARE = 1e-3
# A mode takes the place of the one that was found first if it is heavier by so many nats.
HEAVIER = 3.0
# So many modes of the first rows are followed to modes of all rows.
FOLLOWED = 3


class Mode(NamedTuple):
    """A mode of the first batch of rows.

    Attributes
    ----------
    end
        The end of the search that found it.
    coordinates
        K with K K^T the inverse Hessian there.
    nats
        Log of its share of the posterior, up to a constant: that of a Gaussian with this mode and
        this Hessian.
    """

    end: Search
    coordinates: Coordinates
    nats: float

    @property
    def position(self) -> np.ndarray:
        """Where the mode is (D,)."""
        return np.asarray(self.end.position)


def find_modes(
    search: ModeSearch, initial: np.ndarray, found: Sequence[Search], *, further: bool = True
) -> list[Mode]:
    """Return the modes of the first batch that searches have found, the one of least loss first.

    They are searched from more points if the potential is not convex at one of the initial points
    (S, D), or if the first searches disagree: a single valley needs no further look. Nothing is
    returned in more than 200 dimensions, or if the best end is no mode: the density may be
    unbounded elsewhere, so that other ends say nothing.

    Parameters
    ----------
    found
        Where the first searches ended, from :meth:`ModeSearch.modes`.
    further
        Whether to search from more points at all.
    """
    if not search.dense or search.dimension > SEVERAL_DIMENSION:
        return []
    modes: list[Mode] = []
    for end in sorted(found, key=finite_loss):
        modes += _new_modes(search, modes, end)
        if not modes:
            return []
    number = _searches(search)
    if not (further and number):
        return modes
    convex = all(search.curvature(point, 1)[1].indefinite == 0 for point in initial)
    if len(modes) == 1 and convex:
        return modes
    for point in _points(search, number):
        modes += _new_modes(search, modes, search.nearest(point))
    return modes


def heaviest(modes: Sequence[Mode]) -> Mode:
    """Return the mode about which to sample: the first one, unless another is much heavier."""
    best = max(modes, key=lambda mode: mode.nats)
    return best if best.nats > modes[0].nats + HEAVIER else modes[0]


def distances_of(
    search: ModeSearch,
    modes: Sequence[Mode],
    chosen: Mode,
    coordinates: Coordinates,
    copies: float = 1.0,
) -> tuple[float, ...]:
    """Return how far other modes are that hold a share of the posterior, in standard deviations.

    Parameters
    ----------
    modes
        The modes of the first batch, from :func:`find_modes`.
    chosen
        The one of them about which to sample.
    coordinates
        Coordinates about the mode of all rows to which it leads.
    copies
        Each row of the search stands for so many rows of the data.
    """
    others = [mode for mode in modes if mode is not chosen]
    others = sorted(others, key=lambda mode: -mode.nats)[:FOLLOWED]
    if not others:
        return ()
    # Shares are those in all rows: each mode of the first batch leads to one of them.
    here, *ends = [search.finish(mode.position) for mode in [chosen, *others]]
    distances = []
    for end, _, scaled in ends:
        if not float(end.gain) < SETTLED or scaled.indefinite:
            continue
        far = coordinates.distance(np.asarray(end.position) - np.asarray(here[0].position))
        more = _nats(search, end, scaled.coordinates, copies)
        more -= _nats(search, here[0], here[2].coordinates, copies)
        if far > CLOSEST and -np.logaddexp(0, -more) > np.log(SMALLEST_SHARE):
            distances.append(far)
    return tuple(sorted(distances))


def _searches(search: ModeSearch) -> int:
    """Return the number of further searches that cost about a second at most."""
    rows = search.feed.size / search.feed.num_batches
    return min(FURTHER, int(MOST_DERIVATIVES / (rows * search.dimension**2)))


def _points(search: ModeSearch, number: int) -> np.ndarray:
    """Return further points (number, D) from which to search.

    They have random numbers of their own: what follows is the same with and without them.
    """
    search = search._replace(generator=search.generator.spawn(1)[0])
    points: list[np.ndarray] = []
    while len(points) < number:
        some = search.initial_points()
        # The last default point is the origin, which the first searches have had.
        points.extend(some if search.functions.strategy is not None else some[:-1])
    return np.array(points[:number])


def _new_modes(search: ModeSearch, modes: Sequence[Mode], end: Search) -> list[Mode]:
    """Return the mode at the end of a search, if it is one and not among those known."""
    if not float(end.gain) < SETTLED or not np.isfinite(finite_loss(end)):
        return []
    position = np.asarray(end.position)
    if any(m.coordinates.distance(position - m.position) < CLOSEST for m in modes):
        return []
    _, scaled = search.curvature(position, 1)
    if scaled.indefinite or any(_barrier(search, end, m.end) < BARRIER for m in modes):
        return []
    return [Mode(end, scaled.coordinates, _nats(search, end, scaled.coordinates))]


def _nats(search: ModeSearch, end: Search, coordinates: Coordinates, copies: float = 1.0) -> float:
    """Return the log of the integral of the Gaussian with this mode, up to a constant."""
    _, volume = np.linalg.slogdet(np.asarray(coordinates.scale, float))
    return volume - copies * search.feed.size * finite_loss(end)


def _barrier(search: ModeSearch, one: Search, other: Search) -> float:
    """Return how many nats the log density falls on the line between two ends of searches."""
    first, way = np.asarray(one.position), np.asarray(other.position) - np.asarray(one.position)
    top = max(search.value(first + part * way) for part in BETWEEN)
    return search.feed.size * (top - max(finite_loss(one), finite_loss(other)))
