"""Small tables and axes that the result objects share, and error bars from blocks."""

import numpy as np

__all__ = ["block_standard_error", "new_axes", "table"]


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


def block_means(values, max_blocks: int = 64) -> np.ndarray:
    """Means of (chains, n, ...) over blocks of equal length in each chain: (blocks, ...).

    As many blocks in all as ``max_blocks``, or one per chain if there are more chains. What does
    not fill a block is left out at the end of each chain.
    """
    chains, length = values.shape[:2]
    blocks = max(1, min(length, max_blocks // chains))
    size = length // blocks
    cut = values[:, : blocks * size]
    return cut.reshape(chains * blocks, size, *values.shape[2:]).mean(axis=1)


def block_standard_error(values, max_blocks: int = 64) -> np.ndarray:
    """Standard error of the mean of (chains, n, ...), from the scatter of block means.

    Right where blocks are long against the correlation time. NaN with a single block.
    """
    means = block_means(values, max_blocks)
    if len(means) < 2:
        return np.full(means.shape[1:], np.nan)[()]
    return means.std(axis=0, ddof=1) / np.sqrt(len(means))
