"""Means of correlated series of draws, and their standard errors."""

from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy import stats

__all__ = ["MeanTest", "combined", "mean_test"]

# p-values are taken to be at most this large where they are combined.
MOST = 0.9


class MeanTest(NamedTuple):
    """Whether the means of some series are zero.

    Attributes
    ----------
    error
        (K,) standard errors of the means.
    freedom
        (K,) degrees of freedom of Student's distribution for the means over their errors.
    p_values
        (K,) two-sided p-values.
    """

    error: np.ndarray
    freedom: np.ndarray
    p_values: np.ndarray


def mean_test(value: np.ndarray, influence: np.ndarray) -> MeanTest:
    """Test whether values are zero that are means, to first order, of series.

    Parameters
    ----------
    value
        (K,) values.
    influence
        (chains, draws, K) what each draw adds to them. Its scatter, and the effective number of
        draws for each series, give the standard errors.
    """
    chains, draws = influence.shape[:2]
    centred = influence - influence.mean((0, 1))
    # Estimates from antithetic draws may exceed their number; to trust them would be bold.
    number = np.asarray(effective_sample_size(centred), float)
    number = np.clip(np.nan_to_num(number, nan=1.0), 2.0, chains * draws)
    error = np.maximum(centred.std((0, 1), ddof=1), np.finfo(float).tiny) / np.sqrt(number)
    freedom = number - 1
    return MeanTest(error, freedom, 2 * stats.t.sf(np.abs(value) / error, freedom))


def combined(p_values: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Return one p-value for several, whatever their dependence (the Cauchy combination).

    Liu and Xie, "Cauchy combination test", JASA 115 (2020), doi:10.1080/01621459.2018.1554485,
    equation (1): where small, it is accurate under any dependence, and errors of many parameters
    together count for more than that of one.

    Parameters
    ----------
    p_values, weights
        (K,) p-values, and their weights; equal ones by default.

    Examples
    --------
    >>> round(combined(np.array([0.002, 0.5])), 4), round(combined(np.array([0.002, 0.002])), 4)
    (0.004, 0.002)
    """
    share = np.full(len(p_values), 1.0) if weights is None else np.asarray(weights, float)
    # A p-value close to one would outweigh the small ones, for which the bound hardly counts.
    bounded = np.clip(p_values, np.finfo(float).tiny, MOST)
    statistic = (share * np.tan((0.5 - bounded) * np.pi)).sum() / share.sum()
    return float(stats.cauchy.sf(statistic))
