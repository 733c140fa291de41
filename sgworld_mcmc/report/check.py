"""The record of a check: measured counterparts of predicted errors."""

from collections import Counter
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

__all__ = ["Check", "limits"]

# A single number deviates by chance if it does so by less than this many standard errors.
SIGMAS = 4.0
# Sites of at most so many numbers are judged by themselves: the parameters that thousands of groups
# share are few, and everything depends on them.
SMALL_SITE = 10
# Models of more parameters have groups that share some of them.
MANY = 200


class Check(NamedTuple):
    """Measured counterparts of the predicted errors of each parameter.

    Attributes
    ----------
    name
        Name of the check, as it appears in a report.
    variance_error, variance_error_se
        (D,) relative error of the posterior variance, and its Monte Carlo standard error.
    mean_shift, mean_shift_se
        (D,) shift of the mean in posterior standard deviations, and its standard error.
    draws
        Number of draws that the check rests on.
    """

    name: str
    variance_error: np.ndarray
    variance_error_se: np.ndarray
    mean_shift: np.ndarray
    mean_shift_se: np.ndarray
    draws: int


def limits(names: tuple[str, ...]) -> tuple[float, np.ndarray]:
    """Return how many standard errors D variances and D means deviate by chance at most.

    The largest of many deviations is larger than a single one, so that limits grow with their
    number. Those of means (D,), which are nearly normal, grow as they have to, and the small sites
    are one family and all others another, each with half the level. Squares have longer tails. In
    more than 200 dimensions the limit is wider: the variance of a scale with its groups' seems off
    where it is not, since its slope is a small difference of large terms.

    Parameters
    ----------
    names
        Names of the D numbers: that of a site, with an index in brackets if it has several.
    """
    sites = [name.partition("[")[0] for name in names]
    sizes = Counter(sites)
    small = np.array([sizes[site] <= SMALL_SITE for site in sites])
    counts = np.array([(~small).sum(), small.sum()])
    number = counts[small.astype(int)] * (counts > 0).sum()
    of_mean = -ndtri(ndtr(-SIGMAS) / number)
    if len(names) > MANY:
        return SIGMAS + np.sqrt(2 * np.log(len(names))), of_mean
    return -1.1 * ndtri(ndtr(-SIGMAS) / len(names)), of_mean
