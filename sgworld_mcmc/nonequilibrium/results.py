"""Tables, axes and standard errors from blocks, which all result objects share."""

from itertools import pairwise

import numpy as np

__all__ = ["block_standard_error", "block_sums", "new_axes", "table"]

# Number of values taken at once: half a MB, so that temporaries stay in the cache.
_SLICE = 2**16


def table(title: str, rows: dict[str, str], notes: str = "") -> str:
    """Format a title, one line per entry, and a closing note."""
    width = max(map(len, rows))
    lines = [title, *(f"  {name:<{width}}  {value}" for name, value in rows.items())]
    return "\n".join([*lines, *([notes] if notes else [])])


def new_axes(ax=None):
    """Return ``ax``, or the axes of a new figure made without pyplot."""
    if ax is not None:
        return ax
    from matplotlib.figure import Figure

    return Figure(figsize=(5, 3.6), layout="constrained").add_subplot()


def block_sums(values, function, max_blocks: int = 64):
    """Sum ``function`` over blocks of (chains, n); return sizes (blocks,) and sums (blocks, k).

    ``function`` maps a slice (m,) to k sums over it. The blocks have nearly equal lengths; there
    are ``max_blocks`` in all, or one per chain if there are more chains. No array of length n is
    allocated.
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
    """Return standard errors (k,) of the means from the scatter of block means.

    They are right if blocks are long compared with the correlation time, and NaN for one block.
    """
    if len(sizes) < 2:
        return np.full(sums.shape[1:], np.nan)
    return (sums / sizes[:, None]).std(axis=0, ddof=1) / np.sqrt(len(sizes))
