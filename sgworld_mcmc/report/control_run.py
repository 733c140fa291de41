"""Check a run by a second one at half the step size."""

import numpy as np

from sgworld_mcmc.report.check import Check

__all__ = ["control_check"]

# Each chain is cut into this many blocks, whose scatter gives standard errors.
BLOCKS = 5


def control_check(whole: np.ndarray, half: np.ndarray) -> Check:
    """Compare log variances and means at half and at the whole step size, with block errors.

    Parameters
    ----------
    whole, half
        (chains, draws, Q) draws along the parameters' directions.
    """
    (mean, variance, mean_se, variance_se), other = _block_moments(whole), _block_moments(half)
    sd = np.sqrt(other[1])
    return Check(
        "half-step control run",
        np.log(variance / other[1]),
        np.hypot(variance_se / variance, other[3] / other[1]),
        (mean - other[0]) / sd,
        np.hypot(mean_se, other[2]) / sd,
        half.shape[0] * half.shape[1],
    )


def _block_moments(y: np.ndarray):
    """Return mean and variance of (chains, draws, D), and their errors from blocks of chains."""
    chains, draws, dimension = y.shape
    length = draws // BLOCKS
    mean, variance = y.mean((0, 1)), y.var((0, 1))
    blocks = y[:, : BLOCKS * length].reshape(chains * BLOCKS, length, dimension)
    first = blocks.mean(1)
    second = ((blocks - mean) ** 2).mean(1)
    root = np.sqrt(chains * BLOCKS)
    return mean, variance, first.std(0, ddof=1) / root, second.std(0, ddof=1) / root
