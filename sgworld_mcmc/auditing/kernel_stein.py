"""The kernel Stein discrepancy of draws, with a p-value for draws that are correlated.

The discrepancy E[u(x, x')] with the Stein kernel u of an inverse multiquadric (Gorham and Mackey,
ICML 2017, arXiv:1703.01717) is zero for draws of the posterior only. Under that hypothesis its
distribution is found with a wild bootstrap whose signs are a Markov chain along each chain of draws
(Chwialkowski, Strathmann and Gretton, ICML 2016, arXiv:1602.02964).
"""

from typing import NamedTuple

import numpy as np

__all__ = ["KernelTest", "kernel_test", "stein_kernel"]

# Replicates of the bootstrap.
REPLICATES = 2000
# At most this many draws: the kernel has their number squared.
MOST = 1000


class KernelTest(NamedTuple):
    """The discrepancy of some draws.

    Attributes
    ----------
    discrepancy
        Square root of the mean of the Stein kernel over all pairs of draws.
    p_value
        Part of the bootstrap's replicates that are as large.
    draws
        Number of draws.
    """

    discrepancy: float
    p_value: float
    draws: int


def kernel_test(
    z: np.ndarray, g: np.ndarray, autocorrelation: float, generator: np.random.Generator
) -> KernelTest:
    """Test draws by their kernel Stein discrepancy.

    Parameters
    ----------
    z, g
        (chains, draws, D) positions with covariance about one, and the scores there.
    autocorrelation
        Integrated autocorrelation time of the draws, in draws.
    generator
        Source of the bootstrap's signs.
    """
    chains, draws, dimension = z.shape
    every = max(1, -(-chains * draws // MOST))
    z, g = z[:, ::every], g[:, ::every]
    draws = z.shape[1]
    kernel = stein_kernel(z.reshape(-1, dimension), g.reshape(-1, dimension))
    # The signs stay the same for longer than the draws stay correlated.
    turns = 0.5 / max(1.0, 4 * (autocorrelation / every - 1) + 1)
    changed = generator.random((REPLICATES, chains, draws)) < turns
    changed[:, :, 0] = generator.random((REPLICATES, chains)) < 0.5
    signs = (1.0 - 2.0 * (np.cumsum(changed, axis=2) % 2)).reshape(REPLICATES, -1)
    signs = signs.astype(np.float32)  # the largest product by far, compared with others only
    replicates = ((signs @ kernel.astype(np.float32)) * signs).sum(1)
    found = float(kernel.sum())
    p_value = (1 + np.sum(replicates >= found)) / (1 + REPLICATES)
    return KernelTest(float(np.sqrt(max(found, 0.0))) / len(kernel), float(p_value), len(kernel))


def stein_kernel(z: np.ndarray, g: np.ndarray) -> np.ndarray:
    """Return the (S, S) Stein kernel of (1 + |z - z'|^2 / D)^(-1/2) at positions and scores (S, D).

    Examples
    --------
    >>> print(stein_kernel(np.zeros((1, 2)), np.ones((1, 2))))    # |g|^2 + tr 1 / D
    [[3.]]
    """
    dimension = z.shape[1]
    square = (z**2).sum(1)
    distance = np.maximum(square[:, None] + square - 2 * z @ z.T, 0) / dimension
    base = 1 + distance
    first = base**-1.5 / dimension  # minus the slope of the kernel over z - z'
    cross = g @ z.T
    own = (g * z).sum(1)
    # g . grad_z' k + g' . grad_z k = first (g - g') . (z - z')
    turned = own[:, None] - cross - cross.T + own
    trace = first * dimension - 3 * base**-2.5 * distance / dimension
    return (g @ g.T) * base**-0.5 + first * turned + trace
