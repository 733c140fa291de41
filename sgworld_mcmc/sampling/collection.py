"""What a run collects, how far it is, and what it returns: the records of the loop."""

from typing import Any, NamedTuple

__all__ = ["Collected", "Collection", "Progress"]


class Collection(NamedTuple):
    """What a run collects.

    Attributes
    ----------
    calls
        Kernel calls before the first draw counts.
    draws
        Number of draws to keep.
    thinning
        Number of kernel calls for each draw.
    fields
        Names of the state fields to collect; the first is the kernel's sample field.
    removed
        Sites to leave out of the draws.
    vectorized
        Whether the state has a leading axis of chains.
    room
        Number of draws to make room for, if more than ``draws``: runs that have the same room
        share one program.
    chain, chains
        The number of a chain that is not vectorized, and how many share the buffers: their draws
        have a leading axis of chains then. Zero chains for buffers without such an axis.
    made
        Number of draws that an earlier process has made. ``calls`` are those that it has left.
    window
        Number of draws that the buffers hold at a time, if not all of them: whoever is told of the
        :class:`Progress` takes them when the buffers are full. Zero for all.
    """

    calls: int
    draws: int
    thinning: int
    fields: tuple[str, ...]
    removed: tuple[str, ...]
    vectorized: bool
    room: int = 0
    chain: int = 0
    chains: int = 0
    made: int = 0
    window: int = 0


class Progress(NamedTuple):
    """How far a chain (or chains) is between two blocks.

    Attributes
    ----------
    state
        The state at the last draw that is complete, or within the warm-up.
    calls
        Kernel calls of the warm-up that are left.
    made
        Number of draws.
    base
        Number of the draw in the first place of the buffers.
    buffers
        The arrays with the draws, valid until the next block begins.
    """

    state: Any
    calls: int
    made: int
    base: int
    buffers: Any


class Collected(NamedTuple):
    """What a run returns.

    Attributes
    ----------
    draws
        Maps the name of a field to its draws, (draws, ...) or with a leading axis of chains
        (chains, draws, ...).
    state
        The state at the last draw.
    made
        Number of draws, fewer than asked for if the run was interrupted.
    buffers
        The arrays in which the next of several chains writes its draws.
    """

    draws: dict[str, Any]
    state: Any
    made: int
    buffers: Any = None
