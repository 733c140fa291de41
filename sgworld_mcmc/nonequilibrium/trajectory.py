"""View trajectories of any kind as (chains, steps, D), and read and check them in chunks.

Nothing here copies a whole array. A NumPy array or memmap is read in float64 chunks of 0.5 MB, or
of 256 rows if those are larger.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.diagnostics.scalars import as_chains, flatten_scalars

__all__ = ["Trajectory", "as_trajectory", "chunks", "raise_not_finite"]

# A chunk has half a MB in float64, so that it stays in the cache. For large D it has at least 256
# rows, so that matrix products are efficient.
_CHUNK_ENTRIES, _CHUNK_ROWS = 2**16, 256


class Trajectory(NamedTuple):
    """Positions in the order of time.

    Attributes
    ----------
    values : numpy.ndarray or numpy.memmap
        (chains, steps, D) positions of any real dtype, if possible a view of the user's array.
    names : tuple of str
        Names of the coordinates, for messages and tables.
    """

    values: np.ndarray
    names: tuple[str, ...]


def as_trajectory(trajectory, minimum_steps: int = 2, needed_for: str = "") -> Trajectory:
    """View an array, MCMC run or ArviZ object as a `Trajectory`.

    Parameters
    ----------
    trajectory : array, numpy.memmap, numpyro.infer.MCMC, ArviZ object or dict
        Positions (steps,), (steps, D) or (chains, steps, D); or draws by site, flattened in order.
    minimum_steps : int
        Smallest number of steps; fewer raise ValueError.
    needed_for : str
        Words for that message that say why the steps are needed.
    """
    if isinstance(trajectory, Trajectory):
        values, names = trajectory
    elif hasattr(trajectory, "shape") or isinstance(trajectory, list | tuple):
        try:
            values = trajectory if isinstance(trajectory, np.ndarray) else np.asarray(trajectory)
        except ValueError as error:  # NumPy's message is about its own arrays
            lengths = [np.shape(chain)[:1] for chain in trajectory]
            raise ValueError(
                "`trajectory` is a list of parts of different shapes "
                f"({', '.join(str(n[0]) if n else 'a number' for n in lengths[:8])} rows): chains "
                "must have the same number of steps. Cut them to the shortest."
            ) from error
        if values.ndim not in (1, 2, 3):
            raise ValueError(
                "`trajectory` must be (steps,), (steps, D) or (chains, steps, D), not of shape "
                f"{values.shape}."
            )
        values = values[:, None] if values.ndim == 1 else values
        values = values[None] if values.ndim == 2 else values
        names = tuple(map(str, range(values.shape[2])))
    else:
        try:
            chains = as_chains(trajectory)
        except ValueError as error:
            if "chain_axes" not in str(error):
                raise
            raise ValueError(
                "A dict holds draws grouped by chain, (chains, steps, ...), and this one seems to "
                "have more chains than steps. Put an axis of one chain in front: x[None]."
            ) from error
        scalars = flatten_scalars(chains)
        values, names = np.stack(list(scalars.values()), axis=-1), tuple(scalars)
    if not np.issubdtype(values.dtype, np.number) or np.iscomplexobj(values):
        raise TypeError(f"`trajectory` must hold real numbers, not {values.dtype}.")
    if values.shape[2] == 0 or values.shape[0] == 0:
        raise ValueError(f"`trajectory` is empty: its shape is {values.shape}.")
    if values.shape[1] < minimum_steps:
        raise ValueError(
            f"`trajectory` has {values.shape[1]} steps in each chain, at least {minimum_steps} are "
            f"needed{' ' + needed_for if needed_for else ''}. The axes are (steps, D) or (chains, "
            f"steps, D), here {values.shape}: run longer, or check their order."
        )
    return Trajectory(values, names)


def chunks(
    trajectory: Trajectory, overlap: int = 0, shift=None, ones: bool = False
) -> Iterator[tuple[int, int, int, np.ndarray]]:
    """Yield (chain, first step, rows, block) with float64 blocks of ``rows`` steps.

    Each block holds up to ``overlap`` more rows, the first of the next block. ``shift`` (D,) is
    subtracted; ``ones`` adds a column of ones, which turns sums into matrix products. NaN or
    infinity raises a ValueError that says where it is. The next block overwrites a block.
    """
    values, names = trajectory
    _, steps, dim = values.shape
    length = max(_CHUNK_ROWS, _CHUNK_ENTRIES // dim, overlap)
    shift = np.zeros(dim) if shift is None else shift
    buffer = np.ones((min(length + overlap, steps), dim + ones))
    for chain in range(values.shape[0]):
        for start in range(0, steps, length):
            part = values[chain, start : start + length + overlap]
            block = buffer[: len(part)]
            np.subtract(part, shift, out=block[:, :dim])
            # A sum is cheaper than a mask, and any NaN or infinity makes it not finite.
            if not np.isfinite(block.sum()):
                raise_not_finite(block[:, :dim], chain, start, names, values.shape[0])
            yield chain, start, min(length, len(part)), block


def raise_not_finite(block, chain, start, names, num_chains):
    """Raise a ValueError that says where the first NaN or infinity is."""
    bad = np.argwhere(~np.isfinite(block))
    if not len(bad):
        raise ValueError(
            "`trajectory` has values so large that their sum overflows: it has diverged."
        )
    step, coordinate = bad[0]
    where = f"step {start + int(step)}, coordinate {names[coordinate]}"
    where = f"chain {chain}, {where}" if num_chains > 1 else where
    raise ValueError(
        f"`trajectory` has NaN or infinity, first at {where}. Cut the trajectory before it; a "
        "chain that diverges needs a smaller step size."
    )


def first_shift(trajectory: Trajectory) -> np.ndarray:
    """Return the mean of the first rows, near enough to the mean that products do not cancel."""
    head = np.asarray(trajectory.values[0, :1000], dtype=np.float64).mean(axis=0)
    return np.where(np.isfinite(head), head, 0.0)


def check_center(center, dim):
    """Return a finite (D,) float64 center; raise if it is not."""
    center = np.asarray(center, dtype=np.float64)
    if center.shape != (dim,) or not np.isfinite(center).all():
        raise ValueError(
            f"`center` must be a finite array of shape ({dim},), the shape of one position, not "
            f"of shape {center.shape}."
        )
    return center
