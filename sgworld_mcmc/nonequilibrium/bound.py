"""Thermodynamic uncertainty: a lower bound on entropy production from one current's fluctuations.

docs/nonequilibrium.md (N15). The discrete-time form follows from the fluctuation theorem
(Hasegawa & Van Vu, Phys. Rev. Lett. 123, 110602, 2019); the plain 2 <J>^2 / Var J is its limit for
small production and is *not* a bound for discrete chains.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.currents import current_levels, stretch_sums
from sgworld_mcmc.nonequilibrium.lagged_pairs import whiten
from sgworld_mcmc.nonequilibrium.moments import trajectory_moments
from sgworld_mcmc.nonequilibrium.results import new_axes, table
from sgworld_mcmc.nonequilibrium.trajectory import as_trajectory

__all__ = ["EntropyProductionBound", "entropy_production_bound", "uncertainty_bound"]

_MINIMUM_STRETCHES = 20


class EntropyProductionBound(NamedTuple):
    """A lower bound on the entropy production rate.

    Attributes
    ----------
    estimate : float
        The bound per step, nats: ln(1 + 2 <J>^2 / Var J) / length, not below 0.
    standard_error : float
        Of the estimate, by the jackknife over stretches.
    per_stretch : float
        The bound for a stretch of `length` steps.
    length : int
        Steps in a stretch.
    mean_current, current_variance : float
        <J> and Var J of a stretch, of the current found, which is scaled to unit variance in the
        part of the data that it was learned from.
    weights : numpy.ndarray
        (contrasts,) of that current: the mean over the two halves.
    num_stretches : int
        Stretches that the estimate rests on.
    """

    estimate: float
    standard_error: float
    per_stretch: float
    length: int
    mean_current: float
    current_variance: float
    weights: np.ndarray
    num_stretches: int

    @property
    def bound(self) -> float:
        """``estimate - 3 standard_error``, at least 0: below the truth with 99.9 % confidence.

        Near equilibrium the bound is tight, and the estimate itself lies above the true rate in
        half of all runs, by its noise.
        """
        return max(0.0, self.estimate - 3 * self.standard_error)

    def __str__(self):
        return table(
            "thermodynamic-uncertainty lower bound on the entropy production",
            {
                "per step": f"{self.estimate:.4g} ± {self.standard_error:.2g} nats",
                "99.9 % sure": f"at least {self.bound:.4g} nats per step",
                "per stretch": f"{self.per_stretch:.4g} nats in {self.length} steps",
                "current": f"mean {self.mean_current:.4g}, variance {self.current_variance:.4g}",
                "stretches": f"{self.num_stretches}",
            },
        )

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw the bound with two standard errors; returns the axes."""
        ax = new_axes(ax)
        ax.errorbar([0], [self.estimate], [2 * self.standard_error], fmt="^", capsize=4)
        ax.set(xticks=[], ylabel="lower bound on production per step [nats]", ylim=(0, None))
        return ax


def uncertainty_bound(mean, variance):
    """Least production in a stretch whose current has this mean and variance (N15).

    ``ln(1 + 2 mean^2 / variance)``, for a current that changes sign under time reversal of the
    stretch. Holds in discrete time and far from equilibrium. Infinite for a current that does not
    fluctuate, 0 for one without mean.

    >>> print(f"{uncertainty_bound(1.0, 4.0):.4f}")
    0.4055
    """
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log1p(np.where(mean == 0, 0.0, 2 * mean**2 / variance))[()]


def entropy_production_bound(
    trajectory,
    length: int | None = None,
    *,
    current: Callable | None = None,
    num_components: int | None = None,
) -> EntropyProductionBound:
    """Bound the entropy production rate from below by the uncertainty of a current (N15).

    The current is the combination of the areas swept in all coordinate planes that gives the
    largest <J>^2 / Var J. It is learned from one half of the data and evaluated in the other, and
    the other way round, so that fitting does not inflate it.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Stationary. A chain on a few states works as one-hot rows or as points in the plane; for
        a single coordinate the current is the cube of the increment.
    length : int, optional
        Steps in a stretch. Default: the best of 1, 2, 4, ... in the learning half.
    current : callable, optional
        Your own: ``current(x, y) -> (n,)`` for positions (n, D) and their successors, with
        current(y, x) = -current(x, y) (checked). Takes the place of the areas.
    num_components : int, optional
        Leading principal components of the correlation matrix to take areas of; default at most 8.

    Returns
    -------
    EntropyProductionBound
        ``.estimate`` per step with ``.standard_error``; prints and plots.

    Raises
    ------
    ValueError
        NaN (says where), fewer than 80 steps, a trajectory that does not move, a current that is
        not antisymmetric.

    Notes
    -----
    The bound is on the production of what the trajectory shows; hidden coordinates add to it. The
    estimate is corrected for its bias of first order in 1 / stretches. Memory: 64 MB for sums of
    currents; of a longer trajectory short stretches are taken from evenly spaced segments only.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> state = np.cumsum(rng.choice([1, -1], size=20_000, p=[0.9, 0.1])) % 3   # a driven ring
    >>> bound = entropy_production_bound(np.eye(3)[state])
    >>> exact = 0.8 * np.log(9)
    >>> print(0.3 * exact < bound.estimate < exact)
    True
    """
    trajectory = as_trajectory(trajectory, 4 * _MINIMUM_STRETCHES)
    moments = trajectory_moments(trajectory, ())
    dim = len(trajectory.names)
    wanted = min(dim, 8) if num_components is None else num_components
    basis = whiten(moments, check_integer("num_components", wanted, 1, dim))
    choices = []
    for base, sums in current_levels(trajectory, basis, current):
        halves = _halves(sums)
        for factor in _factors(sums, base, length):
            learned = [_learn(stretch_sums(half, factor)) for half in halves]
            gain = sum(bound for _, bound in learned) / (base * factor)
            choices.append((gain, base * factor, factor, halves, learned))
    if not choices:
        raise ValueError(
            f"`length` {length} leaves fewer than {2 * _MINIMUM_STRETCHES} stretches in each half "
            "of the trajectory, or is no multiple of the shortest stretches held in memory (powers "
            "of two): choose another."
        )
    # One length for both halves, the best by what was learned in them together.
    _, length, factor, halves, learned = max(choices, key=lambda c: c[0])
    pieces = [
        stretch_sums(half, factor) @ direction
        for (direction, _), half in zip(learned, halves[::-1], strict=True)
    ]
    values, errors = zip(*(_bound_with_error(j) for j in pieces), strict=True)
    joined = np.concatenate(pieces)
    per_stretch = max(0.0, float(np.mean(values)))
    return EntropyProductionBound(
        estimate=per_stretch / length,
        standard_error=float(np.sqrt(np.sum(np.square(errors))) / 2 / length),
        per_stretch=per_stretch,
        length=length,
        mean_current=float(joined.mean()),
        current_variance=float(np.mean([j.var(ddof=1) for j in pieces])),
        weights=np.mean([direction for direction, _ in learned], axis=0),
        num_stretches=len(joined),
    )


def _factors(sums, base, length):
    """Base stretches to join: those of ``length``, or the powers of two that leave enough."""
    chains, steps, _ = sums.shape
    most = chains * steps // (4 * _MINIMUM_STRETCHES)
    most = min(most, steps // (2 if chains == 1 else 1))
    if length is None:
        return [2**k for k in range(int(most).bit_length())]
    length = check_integer("length", length, 1)
    return [length // base] if length % base == 0 and length // base <= most else []


def _halves(sums):
    """Two parts: halves of the chains, or of the one chain in time."""
    chains, steps, _ = sums.shape
    if chains > 1:
        return sums[: chains // 2], sums[chains // 2 :]
    return sums[:, : steps // 2], sums[:, steps // 2 :]


def _learn(stretches):
    """Direction of the largest <J>^2 / Var J, unit variance, and its bound less the bias."""
    count, width = stretches.shape
    mean = stretches.mean(axis=0)
    covariance = np.atleast_2d(np.cov(stretches.T))
    # A ridge of rounding size: some planes of a chain on few states may have no current at all.
    covariance += np.eye(width) * (1e-10 * np.trace(covariance) / width + 1e-300)
    direction = np.linalg.solve(covariance, mean)
    ratio = float(mean @ direction)
    direction = direction / np.sqrt(max(direction @ covariance @ direction, 1e-300))
    return direction, float(np.log1p(2 * max(0.0, ratio - width / count)))


def _bound_with_error(j):
    """Bias-corrected ln(1 + 2 <J>^2 / Var J) and its standard error, by the jackknife."""
    groups = min(len(j), 100)
    cut = j[: len(j) // groups * groups].reshape(groups, -1)
    ones, squares = cut.sum(axis=1), (cut**2).sum(axis=1)
    size = cut.shape[1]

    def bound(total, square, n):
        mean = total / n
        return uncertainty_bound(mean, np.maximum(square / n - mean**2, 1e-300))

    whole = bound(ones.sum(), squares.sum(), groups * size)
    left_out = bound(ones.sum() - ones, squares.sum() - squares, (groups - 1) * size)
    error = np.sqrt((groups - 1) / groups * np.sum((left_out - left_out.mean()) ** 2))
    return float(groups * whole - (groups - 1) * left_out.mean()), float(error)
