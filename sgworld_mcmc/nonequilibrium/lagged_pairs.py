"""Time-antisymmetric moments ("contrasts") of blocks of a trajectory.

A contrast compares a lagged product of two coordinates with the same product in reversed time.
Reversing the time inside a block changes the sign of its contrasts exactly, because only pairs
within the block enter. Under detailed balance a block and its reverse are equally likely, so that
each contrast is distributed symmetrically about zero, whatever the marginal distribution.
"""

from typing import NamedTuple

import numpy as np
from scipy.fft import irfft, next_fast_len, rfft
from scipy.linalg import eigh

from sgworld_mcmc.nonequilibrium.moments import Moments
from sgworld_mcmc.nonequilibrium.trajectory import Trajectory

__all__ = [
    "Whitening",
    "block_contrasts",
    "contrast_pairs",
    "correlation_time",
    "smallest_correlation",
    "whiten",
]


class Whitening(NamedTuple):
    """A map z = (x - mean) @ weights to uncorrelated coordinates of unit variance.

    Attributes
    ----------
    mean : numpy.ndarray
        (D,) position that is mapped to zero.
    weights : numpy.ndarray
        (D, k) matrix.
    """

    mean: np.ndarray
    weights: np.ndarray


def whiten(moments: Moments, num_components: int | None = None) -> Whitening:
    """Return the map to the principal components of the correlation matrix, with unit variance.

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
    trajectory: Trajectory, moments: Moments, order: int = 2, max_points: int = 2**16
) -> float:
    """Return the correlation time of contrasts in steps, 2 sum_k rho_i(k) rho_j(k).

    i and j are the two slowest modes: a contrast of order 2 has two modes, and the product of a
    slow and a fast one forgets as quickly as the fast one. For order 3, or a single mode, i = j is
    the slowest. If both have rho = exp(-k / t), the time is about 2 t; the products see
    oscillations as well.

    Modes are the eigenvectors of the symmetrised cross-moment at lag 1, which ``moments`` must
    hold. Long chains are read with a stride. The time is then at least the stride, an error on the
    safe side for the length of blocks.
    """
    values, _ = trajectory
    chains, steps, _ = values.shape
    modes = slow_modes(moments, whiten(moments))
    used = min(chains, 16)
    stride = max(1, steps * used // (4 * max_points))
    picked = values[np.linspace(0, chains - 1, used).astype(int), ::stride]
    z = (np.asarray(picked, dtype=np.float64) - moments.mean) @ modes
    length = z.shape[1]
    padded = next_fast_len(2 * length, real=True)
    correlations = []
    for i in range(z.shape[2]):
        power = np.abs(rfft(z[..., i], padded, axis=1)) ** 2
        correlation = irfft(power, padded, axis=1)[:, :length].mean(axis=0)
        correlations.append(correlation / correlation[0])
    own = [_summed(c * c) for c in correlations]
    if order == 3 or len(own) == 1:
        return max(own) * stride
    first, second = np.argsort(own)[-2:]
    # Signs may differ if modes oscillate: the absolute value stays on the safe side.
    return _summed(np.abs(correlations[first] * correlations[second])) * stride


def _summed(product):
    """Return 2 sum_k product(|k|) - 1, cut at five times itself (Sokal's window)."""
    times = 2 * np.cumsum(np.concatenate([[1.0], 2 * product[1:]])) - 1
    window = np.flatnonzero(np.arange(len(product)) >= 5 * times)
    return float(max(1.0, times[window[0]] if len(window) else len(product)))


def slow_modes(moments: Moments, basis: Whitening) -> np.ndarray:
    """Return (D, k) weights of the modes within a basis, slowest first, with unit variance.

    They are the eigenvectors of the symmetrised cross-moment at lag 1 against the covariance.
    """
    return basis.weights @ _modes(moments, basis)[1][:, ::-1]


def smallest_correlation(moments: Moments, basis: Whitening) -> float:
    """Return the smallest correlation of a mode with itself one step later."""
    return float(_modes(moments, basis)[0][0])


def _modes(moments: Moments, basis: Whitening) -> tuple[np.ndarray, np.ndarray]:
    """Return the modes' correlations from one step to the next, ascending, and their vectors."""
    covariance = basis.weights.T @ moments.covariance @ basis.weights
    lagged = basis.weights.T @ (moments.lagged[1] + moments.lagged[1].T) @ basis.weights
    return eigh(lagged / 2, covariance)


def contrast_pairs(dim: int, order: int) -> list[tuple[int, int]]:
    """Return the pairs (i, j) of coordinates whose contrasts `block_contrasts` computes."""
    if order == 2:
        return [(i, j) for i in range(dim) for j in range(i + 1, dim)]
    return [(i, j) for i in range(dim) for j in range(dim)]


def block_contrasts(
    trajectory: Trajectory,
    whitening: Whitening,
    lags,
    block_length: int,
    order: int = 2,
    telescoped: bool = False,
) -> np.ndarray:
    """Compute the antisymmetric lagged moments of consecutive blocks (N17).

    Order 2 is the mean of z_i(k) z_j(k + l) - z_j(k) z_i(k + l) for i < j. Order 3 is the mean of
    z_i(k)^2 z_j(k + l) - z_j(k) z_i(k + l)^2 for all i and j. For i = j it is replaced by
    (z_i(k + l) - z_i(k))^3 / 3, which has the same mean: the two differ by boundary terms of a
    block, which neighbouring blocks share with opposite signs. With ``telescoped``, order 2 also
    leaves out the boundary terms of z_i z_j, and is for l = 1 the mean of
    -(z_j(k) + z_j(k + l)) (z_i(k + l) - z_i(k)), which is least noisy if z_i is the slower mode.

    Returns
    -------
    numpy.ndarray
        (chains, blocks, lags, contrasts) array. Rows after the last whole block are left out.
    """
    values, _ = trajectory
    chains, steps, _ = values.shape
    dim = whitening.weights.shape[1]
    count = steps // block_length
    pairs = np.array(contrast_pairs(dim, order), dtype=int).reshape(-1, 2)
    out = np.empty((chains, count, len(lags), len(pairs)))
    together = max(1, 2**16 // (block_length * dim))
    for chain in range(chains):
        for first in range(0, count, together):
            last = min(count, first + together)
            rows = values[chain, first * block_length : last * block_length]
            z = (np.asarray(rows, dtype=np.float64) - whitening.mean) @ whitening.weights
            z = z.reshape(last - first, block_length, dim)
            for index, lag in enumerate(lags):
                moment = _antisymmetric_moment(z, lag, order, telescoped)
                out[chain, first:last, index] = moment[:, pairs[:, 0], pairs[:, 1]]
    return out


def _antisymmetric_moment(z, lag, order, telescoped):
    """Return (blocks, k, k) antisymmetric moments of whitened blocks (blocks, length, k)."""
    if order == 2:
        moment = z[:, :-lag].swapaxes(1, 2) @ z[:, lag:]
        back = moment
    else:
        squares = z**2
        moment = squares[:, :-lag].swapaxes(1, 2) @ z[:, lag:]
        back = z[:, :-lag].swapaxes(1, 2) @ squares[:, lag:]
    moment = moment - back.swapaxes(1, 2)
    if telescoped and order == 2:
        # The sums differ by the products of the last rows less those of the first.
        first, last = z[:, :lag], z[:, -lag:]
        moment = moment - last.swapaxes(1, 2) @ last + first.swapaxes(1, 2) @ first
    moment = moment / (z.shape[1] - lag)
    if order == 3:
        diagonal = np.arange(z.shape[2])
        moment[:, diagonal, diagonal] = np.mean((z[:, lag:] - z[:, :-lag]) ** 3, axis=1) / 3
    return moment
