"""Ranks of true parameters among draws, and whether they are uniform.

If parameters are drawn from the prior and data given them, the rank of a true parameter among
independent draws of its posterior is uniform (Talts et al., arXiv:1804.06788). This holds for every
part of the data sets that is chosen by looking at the data alone, so also for those without a
warning.
"""

from typing import NamedTuple

import numpy as np
from arviz.stats.ecdf_utils import ecdf_confidence_band
from scipy import stats

__all__ = ["COUNT", "LEVELS", "SIGNIFICANCE", "Ranks", "Verdict", "band", "judge", "ranks_of"]

# Ranks are among so many draws, which are taken from all draws at equal distances.
COUNT = 99
LEVELS = (0.5, 0.9)
# A sampler fails if ranks as far from uniform have a smaller probability, after a correction for
# the number of quantities (Bonferroni).
SIGNIFICANCE = 0.01
# A bin of the histogram is expected to hold at least so many ranks.
IN_BIN = 20


class Ranks(NamedTuple):
    """What is kept of R data sets, for Q quantities.

    Attributes
    ----------
    names
        Names of the quantities.
    ranks
        (R, Q) ranks from 0 to :data:`COUNT`.
    inside
        (R, Q, 2) whether the central intervals of the :data:`LEVELS` hold the true value.
    warned
        (R,) whether the package gave a warning.
    step_size, batch_size
        (R,) settings of the sampler; zeros for NUTS.
    seconds
        Seconds of the draws of all data sets, with set-ups and compilation.
    """

    names: tuple[str, ...]
    ranks: np.ndarray
    inside: np.ndarray
    warned: np.ndarray
    step_size: np.ndarray
    batch_size: np.ndarray
    seconds: float

    def unwarned(self) -> "Ranks":
        """Return the data sets without a warning."""
        keep = ~self.warned
        return self._replace(
            ranks=self.ranks[keep],
            inside=self.inside[keep],
            warned=self.warned[keep],
            step_size=self.step_size[keep],
            batch_size=self.batch_size[keep],
        )


class Verdict(NamedTuple):
    """Whether ranks are uniform.

    Attributes
    ----------
    p
        (Q,) p-values of chi-square tests of uniform ranks.
    outside
        (Q,) whether the empirical distribution of the ranks leaves the band that those of all
        quantities stay in with probability 1 - :data:`SIGNIFICANCE`.
    coverage
        (Q, 2) parts of the intervals of the :data:`LEVELS` that hold the true value.
    z
        (Q, 2) the distances of the coverage from the levels, in standard errors.
    """

    p: np.ndarray
    outside: np.ndarray
    coverage: np.ndarray
    z: np.ndarray

    @property
    def failed(self) -> bool:
        """Whether the ranks of some quantity are not uniform."""
        return bool(self.p.min() < SIGNIFICANCE / len(self.p) or self.outside.any())


def ranks_of(draws: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the ranks (Q,) of true values among thinned draws, and what intervals hold them.

    Parameters
    ----------
    draws
        (S, Q) draws, all chains one after the other.
    truth
        (Q,) the values that the data were drawn with.

    Examples
    --------
    >>> draws = np.arange(990.0)[:, None]
    >>> ranks, inside = ranks_of(draws, np.array([600.0]))
    >>> ranks, inside
    (array([60]), array([[ True,  True]]))
    """
    step = len(draws) // COUNT
    thinned = draws[step - 1 :: step][:COUNT]
    limits = [(1 - level) / 2 for level in LEVELS]
    with np.errstate(invalid="ignore"):  # draws of a chain that has diverged may be infinite
        low = np.quantile(draws, limits, axis=0)
        high = np.quantile(draws, [1 - x for x in limits], axis=0)
    inside = (low <= truth) & (truth <= high)
    return (thinned < truth).sum(0), inside.T


def histogram(ranks: np.ndarray) -> np.ndarray:
    """Return the counts of (R,) ranks in bins of equal width."""
    numbers = [n for n in range(2, COUNT + 2) if (COUNT + 1) % n == 0 and len(ranks) / n >= IN_BIN]
    bins = max((n for n in numbers if n <= 20), default=2)
    return np.bincount(ranks * bins // (COUNT + 1), minlength=bins)


def distribution(ranks: np.ndarray) -> np.ndarray:
    """Return the parts of (R, Q) ranks below 1, 2, ... :data:`COUNT`, as (COUNT, Q)."""
    return np.stack([(ranks < level).mean(0) for level in range(1, COUNT + 1)])


def band(number: int, probability: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the band that the distribution of ``number`` uniform ranks stays in."""
    points = np.arange(1, COUNT + 1) / (COUNT + 1)
    return ecdf_confidence_band(number, points, points, prob=probability)


def judge(found: Ranks, correction: int | None = None) -> Verdict:
    """Test whether ranks are uniform, and how many intervals hold the true value.

    Parameters
    ----------
    found
        The ranks.
    correction
        Number of quantities that the band of :attr:`Verdict.outside` is corrected for; those of
        ``found`` by default.
    """
    number, quantities = found.ranks.shape
    p = np.array([stats.chisquare(histogram(column)).pvalue for column in found.ranks.T])
    low, high = band(number, 1 - SIGNIFICANCE / (correction or quantities))
    ecdf = distribution(found.ranks).T
    outside = ((ecdf < low) | (ecdf > high)).any(1)
    levels = np.array(LEVELS)
    coverage = found.inside.mean(0)
    z = (coverage - levels) / np.sqrt(levels * (1 - levels) / number)
    return Verdict(p, outside, coverage, z)
