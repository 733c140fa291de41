"""Small tables and axes that the result objects share, and error bars from blocks."""

from itertools import pairwise

import numpy as np

__all__ = ["block_standard_error", "block_sums", "new_axes", "table"]


# Values taken at once: half a MB, so that temporaries stay in the cache.
_SLICE = 2**16


def table(title: str, rows: dict[str, str], notes: str = "") -> str:
    """A title, one line per entry, and a closing note."""
    width = max(map(len, rows))
    lines = [title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
    return "\n".join([*lines, *([notes] if notes else [])])


def new_axes(ax=None):
    """``ax``, or axes of a new figure that belongs to no pyplot state."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5, 3.6), layout="constrained").add_subplot()


def block_sums(values, function, max_blocks: int = 64):
    """Sums of ``function`` over blocks of (chains, n): (sizes (blocks,), sums (blocks, k)).

    ``function`` maps a slice (m,) to k sums over it. Blocks of nearly equal length, as many in all
    as ``max_blocks``, or one per chain if there are more chains. Nothing of length n is allocated.
    """
    chains, length = values.shape
    edges = np.linspace(0, length, max(1, min(length, max_blocks // chains)) + 1).astype(int)
    sizes, sums = [], []
    for chain in range(chains):
        for start, stop in pairwise(edges):
            pieces = range(start, stop, _SLICE)
            parts = [function(values[chain, k : min(k + _SLICE, stop)]) for k in pieces]
            sizes.append(stop - start)
            sums.append(np.sum(parts, axis=0))
    return np.array(sizes), np.array(sums)


def block_standard_error(sizes, sums) -> np.ndarray:
    """Standard errors (k,) of the means, from the scatter of block means; NaN with one block.

    Right where blocks are long against the correlation time.
    """
    if len(sizes) < 2:
        return np.full(sums.shape[1:], np.nan)
    return (sums / sizes[:, None]).std(axis=0, ddof=1) / np.sqrt(len(sizes))
