"""Sum the currents of a trajectory over stretches, in bounded memory."""

import numpy as np

from sgworld_mcmc.nonequilibrium.lagged_pairs import Whitening
from sgworld_mcmc.nonequilibrium.trajectory import Trajectory, chunks

__all__ = ["current_sums", "stretch_sums"]

# Largest number of entries in an array of current sums: 64 MB.
_ENTRIES = 2**23
# Number of steps in a segment. Segments stand for a long trajectory if stretches are short.
_SEGMENT = 1024


def current_sums(trajectory: Trajectory, basis: Whitening, current=None):
    """Sum all areas (or a given current) over base stretches; return (base length, sums) pairs.

    A trajectory that fits into memory gives one pair, of base length 1. A longer one gives two:
    evenly spaced segments step by step, for short stretches, and all steps, summed over the
    shortest stretches that fit. Sums are (chains or segments, stretches, coordinate planes).
    """
    chains, steps, dim = trajectory.values.shape
    rank = basis.weights.shape[1]
    width = 1 if current is not None or rank == 1 else rank * (rank - 1) // 2
    base = 1
    while chains * (steps // base) * width > _ENTRIES and base < steps // 8:
        base *= 2
    whole = (base, _summed_currents(trajectory, basis, current, base, width))
    if base == 1:
        return [whole]
    segment = min(_SEGMENT, steps)
    count = min(steps // segment, max(1, _ENTRIES // (width * segment * chains)))
    period = steps // count
    cut = trajectory.values[:, : count * period].reshape(chains, count, period, dim)[:, :, :segment]
    sums = [
        _summed_currents(Trajectory(part, trajectory.names), basis, current, 1, width)
        for part in cut
    ]
    return [(1, np.concatenate(sums)), whole]


def stretch_sums(sums, factor):
    """Join ``factor`` neighbouring base stretches; return (stretches, coordinate planes)."""
    chains, steps, width = sums.shape
    count = steps // factor
    return sums[:, : count * factor].reshape(chains * count, factor, width).sum(axis=1)


def _summed_currents(trajectory, basis, current, base, width):
    chains, steps, _ = trajectory.values.shape
    rank = basis.weights.shape[1]
    i, j = np.triu_indices(rank, 1)
    count = (steps - 1) // base
    out = np.zeros((chains, count + 1, width))
    for chain, start, _, block in chunks(trajectory, 1):
        if len(block) < 2:
            continue
        if current is not None:
            part = _checked_current(current, block[:-1].copy(), block[1:].copy())
        else:
            z = (block - basis.mean) @ basis.weights
            x, y = z[:-1], z[1:]
            part = (y - x) ** 3 if rank == 1 else x[:, i] * y[:, j] - x[:, j] * y[:, i]
        if base == 1:
            out[chain, start : start + len(part)] = part
            continue
        first = start // base
        edges = np.arange(first, (start + len(part) - 1) // base + 1) * base - start
        edges[0] = 0
        out[chain, first : first + len(edges)] += np.add.reduceat(part, edges, axis=0)
    # The last stretch is incomplete.
    return out[:, :count]


def _checked_current(current, x, y):
    forward, backward = np.asarray(current(x, y)), np.asarray(current(y, x))
    if forward.shape != (len(x),) or not np.allclose(forward, -backward, rtol=1e-6, atol=1e-12):
        raise ValueError(
            "`current(x, y)` must return one number per row, and change sign when x and y are "
            "exchanged: the bound holds only for currents that are antisymmetric in time."
        )
    return forward[:, None]
