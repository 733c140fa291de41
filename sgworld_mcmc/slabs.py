"""Statistics of the draws of thousands of parameters, a slab of parameters at a time.

The temporary arrays of a slab stay in the processor's cache, which makes thousands of parameters
five times as fast as all at once, in memory that stays small.
"""

from collections.abc import Callable

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin
from scipy.special import chdtri

__all__ = ["by_slabs", "largest_r_hat", "r_hats", "sample_sizes"]

SLAB = 64
# The probability that chains which agree are said not to, if the autocorrelation time of their
# draws is the one that the package aims at.
CHANCE, AUTOCORRELATION = 1e-4, 2.2


def by_slabs(function: Callable, values: np.ndarray) -> np.ndarray:
    """Apply a function of (..., D) arrays that treats every parameter alone.

    Parameters
    ----------
    function
        Returns an array (..., d) for any d of the parameters.
    values
        (..., D) numbers.

    Examples
    --------
    >>> import numpy as np
    >>> draws = np.arange(12.0).reshape(4, 3)
    >>> by_slabs(lambda x: x.mean(0), draws).tolist()
    [4.5, 5.5, 6.5]
    """
    starts = range(0, values.shape[-1], SLAB)
    # A copy lies in one piece.
    slabs = (np.ascontiguousarray(values[..., start : start + SLAB]) for start in starts)
    return np.concatenate([np.atleast_1d(function(slab)) for slab in slabs], axis=-1)


def sample_sizes(draws: np.ndarray) -> np.ndarray:
    """Return NumPyro's effective sample sizes (D,) of (chains, draws, D) numbers."""
    return by_slabs(effective_sample_size, draws)


def r_hats(draws: np.ndarray) -> np.ndarray:
    """Return NumPyro's split R-hat (D,) of (chains, draws, D) numbers."""
    return by_slabs(split_gelman_rubin, draws)


def largest_r_hat(chains: int, draws: int, dimension: int) -> float:
    """Return the R-hat that chains which agree do not exceed, 1.1 or more.

    Each chain is split in two. With m halves of n draws and the autocorrelation time t, R-hat
    squared exceeds one by about chi^2(m - 1) t / (n (m - 1)): the largest of thousands of
    parameters, of few draws, exceeds 1.1 by chance.
    """
    halves, length = 2 * chains, draws // 2
    largest = chdtri(halves - 1, CHANCE / dimension) / (halves - 1)
    return max(1.1, float(np.sqrt(1 + largest * AUTOCORRELATION / length)))
