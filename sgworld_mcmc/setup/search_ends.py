"""Where searches for the mode have ended that began at several points."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from sgworld_mcmc.data.in_memory import head
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.mode_search import ModeSearch, finite_loss
from sgworld_mcmc.setup.tied_latents import FEW_ROWS, has_tied_latents

__all__ = ["are_scattered", "distances_of_others", "may_be_hierarchy", "modes_apart"]

# Searches that end in so many other places, none of them a mode, show a posterior without one.
SEVERAL_ENDS = 2


def are_scattered(
    search: ModeSearch,
    found: Sequence,
    best: Any,
    coordinates: Coordinates,
    *,
    rising: bool = False,
) -> bool:
    """Return whether searches have ended in several places of about one density.

    Where none of these is a mode, there is no single one about which a posterior lies.

    Parameters
    ----------
    found, best
        Ends of the searches, and the one of the largest density.
    coordinates
        Coordinates about the best one.
    rising
        Whether an end counts by the density that its next step promises, if that is more: searches
        among many rows are not always long enough.
    """
    ends = _comparable(search, found, best, coordinates, 1.0, rising=rising)
    return len(ends) >= SEVERAL_ENDS


def may_be_hierarchy(search: ModeSearch, point: np.ndarray, settings: Settings) -> bool:
    """Return whether a Gaussian may fit a posterior in whose density no mode was found.

    Kinetic dynamics that were asked for need none.
    """
    if not search.dense or settings.dynamics == "kinetic":
        return False
    few = head(search.feed, FEW_ROWS).fetch((), 0).main
    return has_tied_latents(search.functions.model, point, few, search.constants)


def distances_of_others(
    search: ModeSearch,
    found: Sequence,
    best: Any,
    coordinates: Coordinates,
    copies: float = 1.0,
) -> tuple[float, ...]:
    """Return the distances of other modes that hold a share of the posterior.

    Searches from other starts have found them.

    Parameters
    ----------
    found, best, coordinates
        As for :func:`are_scattered`; the coordinates are those of all rows.
    copies
        Each row of the search stands for so many rows of the data.
    """
    ends = _comparable(search, found, best, coordinates, copies)
    return tuple(far for far, gain in ends if gain < 1.0)


def modes_apart(
    search: ModeSearch, given: np.ndarray | None, coordinates: Coordinates
) -> np.ndarray | None:
    """Return the (S, D) modes of the first rows to which given points lead, if they are several."""
    if given is None or len(given) == 1:
        return None
    modes = np.array([search.nearest(point).position for point in given], float)
    far = max(coordinates.distance(mode - modes[0]) for mode in modes)
    return modes if np.isfinite(modes).all() and far > _apart(search, 1.0) else None


def _apart(search: ModeSearch, copies: float) -> float:
    """Return the distance in standard deviations beyond which two modes are not the same one.

    Each search saw one batch of rows, whose mode lies about sqrt(count D) standard deviations from
    that of all rows.
    """
    return 10 + 5 * np.sqrt(copies * search.feed.num_batches * search.dimension)


def _comparable(
    search: ModeSearch,
    found: Sequence,
    best: Any,
    coordinates: Coordinates,
    copies: float,
    *,
    rising: bool = False,
) -> list[tuple[float, float]]:
    """Return distances of other ends of searches that may hold a share of the posterior.

    Each comes with the nats of log density that a further step would gain there.
    """
    apart, close = _apart(search, copies), 5 + 2 * search.dimension**0.5 + 0.5 * search.dimension
    losses, ends = [finite_loss(each) for each in found], []
    for each, loss in zip(found, losses, strict=True):
        far = coordinates.distance(np.asarray(each.position) - np.asarray(best.position))
        lost = copies * search.feed.size * (loss - np.min(losses))  # losses are means over the rows
        gain = float(each.gain)
        promised = gain if rising and np.isfinite(gain) else 0.0
        if np.isfinite(far) and far > apart and lost < close + promised:
            ends.append((far, gain))
    return ends
