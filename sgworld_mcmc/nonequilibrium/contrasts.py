"""Time-antisymmetric moments of blocks of a trajectory.

Reversing the time inside a block changes the sign of its contrasts exactly, because only pairs
within the block enter. Under detailed balance a block and its reverse are equally likely, so that
each contrast is distributed symmetrically about zero, whatever the marginal distribution.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft

from sgworld_mcmc.nonequilibrium.moments import Moments
from sgworld_mcmc.nonequilibrium.trajectory import Trajectory

__all__ = ["Whitening", "block_contrasts", "contrast_labels", "correlation_time", "whiten"]


class Whitening(NamedTuple):
    """z = (x - mean) @ weights: uncorrelated coordinates of unit variance.

    Attributes
    ----------
    mean : numpy.ndarray
        (D,).
    weights : numpy.ndarray
        (D, k).
    """

    mean: np.ndarray
    weights: np.ndarray


def whiten(moments: Moments, num_components: int | None = None) -> Whitening:
    """Principal components of the correlation matrix, scaled to unit variance.

    Directions without variance are left out.
    """
    covariance = moments.covariance
    variance = np.diag(covariance)
    scale = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0.0)
    eigenvalues, vectors = np.linalg.eigh(scale[:, None] * covariance * scale)
    order = np.argsort(eigenvalues)[::-1][:num_components]
    order = order[eigenvalues[order] > 1e-12 * len(covariance)]
    if not len(order):
        raise ValueError("`trajectory` does not move: all its coordinates are constant.")
    weights = scale[:, None] * vectors[:, order] / np.sqrt(eigenvalues[order])
    return Whitening(moments.mean, weights)


def correlation_time(
    trajectory: Trajectory, whitening: Whitening, max_points: int = 2**16
) -> float:
    """Correlation time in steps of the slowest whitened coordinate, 2 sum_k rho_k^2 (all k).

    The squares see oscillations as well as decay; for rho = exp(-k / t) it is about 2 t. Long
    chains are read with a stride, below which no correlation time can be seen: it is then at least
    the stride, an error on the safe side for the length of blocks.
    """
    values, _ = trajectory
    chains, steps, _ = values.shape
    used = min(chains, 16)
    stride = max(1, steps * used // (4 * max_points))
    picked = values[np.linspace(0, chains - 1, used).astype(int), ::stride]
    z = (np.asarray(picked, dtype=np.float64) - whitening.mean) @ whitening.weights
    length = z.shape[1]
    padded = next_fast_len(2 * length, real=True)
    worst = 1.0
    for i in range(z.shape[2]):
        power = np.abs(rfft(z[..., i], padded, axis=1)) ** 2
        correlation = irfft(power, padded, axis=1)[:, :length].mean(axis=0)
        correlation /= correlation[0]
        times = 2 * np.cumsum(np.concatenate([[1.0], 2 * correlation[1:] ** 2])) - 1
        # The smallest window of five times its own correlation time (Sokal): beyond is noise.
        window = np.flatnonzero(np.arange(length) >= 5 * times)
        worst = max(worst, times[window[0]] if len(window) else float(length))
    return worst * stride


def contrast_labels(dim: int, order: int) -> list[tuple[int, int]]:
    """Pairs (i, j) of the contrasts, in the order of `block_contrasts`."""
    if order == 2:
        return [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    return [(i, j) for i in range(dim) for j in range(dim)]


def block_contrasts(
    trajectory: Trajectory, whitening: Whitening, lags, block_length: int, order: int = 2
) -> np.ndarray:
    """Antisymmetric lagged moments of consecutive blocks (N17).

    Order 2: mean of z_i(k) z_j(k + l) - z_j(k) z_i(k + l), i < j. Order 3: of
    z_i(k)^2 z_j(k + l) - z_j(k) z_i(k + l)^2, all i and j; for i = j in the form
    (z_i(k + l) - z_i(k))^3 / 3, of the same mean. The difference telescopes: its sum over a block
    are boundary terms, which neighbouring blocks share with opposite signs.

    Returns
    -------
    numpy.ndarray
        (chains, blocks, lags, contrasts). Rows after the last whole block are left out.
    """
    values, _ = trajectory
    chains, steps, _ = values.shape
    dim = whitening.weights.shape[1]
    count = steps // block_length
    pairs = np.array(contrast_labels(dim, order), dtype=int).reshape(-1, 2)
    out = np.empty((chains, count, len(lags), len(pairs)))
    together = max(1, 2**16 // (block_length * dim))
    for chain in range(chains):
        for first in range(0, count, together):
            last = min(count, first + together)
            rows = values[chain, first * block_length : last * block_length]
            z = (np.asarray(rows, dtype=np.float64) - whitening.mean) @ whitening.weights
            z = z.reshape(last - first, block_length, dim)
            for index, lag in enumerate(lags):
                moment = _antisymmetric_moment(z, lag, order)
                out[chain, first:last, index] = moment[:, pairs[:, 0], pairs[:, 1]]
    return out


def _antisymmetric_moment(z, lag, order):
    """(blocks, k, k) from whitened blocks (blocks, length, k)."""
    if order == 2:
        moment = z[:, :-lag].swapaxes(1, 2) @ z[:, lag:]
        back = moment
    else:
        squares = z**2
        moment = squares[:, :-lag].swapaxes(1, 2) @ z[:, lag:]
        back = z[:, :-lag].swapaxes(1, 2) @ squares[:, lag:]
    moment = (moment - back.swapaxes(1, 2)) / (z.shape[1] - lag)
    if order == 3:
        diagonal = np.arange(z.shape[2])
        moment[:, diagonal, diagonal] = np.mean((z[:, lag:] - z[:, :-lag]) ** 3, axis=1) / 3
    return moment
