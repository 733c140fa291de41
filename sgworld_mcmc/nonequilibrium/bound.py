"""The thermodynamic uncertainty relation: a lower bound on entropy production from one current.

The formula is (N15) of docs/nonequilibrium.md. Its discrete-time form follows from the fluctuation
theorem (Hasegawa & Van Vu, Phys. Rev. Lett. 123, 110602, 2019); the plain 2 <J>^2 / Var J is its
limit for small production and is *not* a bound for discrete chains.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.currents import current_sums, stretch_sums
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
        The bound per step in nats, ln(1 + 2 <J>^2 / Var J) / length, but at least 0.
    standard_error : float
        Standard error of the estimate, by the jackknife over stretches.
    per_stretch : float
        The bound for a stretch of `length` steps.
    length : int
        Number of steps in a stretch.
    mean_current, current_variance : float
        <J> and Var J of a stretch for the current that was found. It is scaled to unit variance in
        the part of the data from which it was learned.
    weights : numpy.ndarray
        (coordinate planes,) weights of that current, averaged over the two halves.
    num_stretches : int
        Number of stretches that the estimate uses.
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
        """``estimate - 3 standard_error``, or 0: it is below the truth with 99.9 % confidence.

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
        """Draw the bound with two standard errors, and return the axes."""
        ax = new_axes(ax)
        ax.errorbar([0], [self.estimate], [2 * self.standard_error], fmt="^", capsize=4)
        ax.set(xticks=[], ylabel="lower bound on production per step [nats]", ylim=(0, None))
        return ax


def uncertainty_bound(mean, variance):
    """Return the least production in a stretch whose current has this mean and variance (N15).

    It is ``ln(1 + 2 mean^2 / variance)`` for a current that changes sign under time reversal of the
    stretch, in discrete time and far from equilibrium too. It is infinite for a current that does
    not fluctuate, and 0 for one without mean.

    >>> print(f"{uncertainty_bound(1.0, 4.0):.4f}")
    0.4055
    """
    mean, variance = np.asarray(mean, dtype=float), np.asarray(variance, dtype=float)
    if np.any(variance < 0):
        raise ValueError(f"`variance` is negative: {variance.min():g}.")
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
        A stationary trajectory. A chain on a few states works as one-hot rows or as points in the
        plane; for a single coordinate the current is the cube of the increment.
    length : int, optional
        Number of steps in a stretch. Default: the best of 1, 2, 4, ... in the learning half.
    current : callable, optional
        A current of your own, which replaces the areas: ``current(x, y) -> (n,)`` for positions
        (n, D) and their successors. It must satisfy current(y, x) = -current(x, y).
    num_components : int, optional
        Number of leading principal components of the correlation matrix whose areas are used;
        default at most 8.

    Returns
    -------
    EntropyProductionBound
        The bound, with ``.estimate`` per step and ``.standard_error``; it prints and plots.

    Raises
    ------
    ValueError
        If there is NaN (the message says where), there are fewer than 80 steps, the trajectory does
        not move, or the current is not antisymmetric.

    Notes
    -----
    The bound is on the production of what the trajectory shows; hidden coordinates add to it. The
    estimate is corrected for its bias of first order in 1 / stretches. Sums of currents take at
    most 64 MB: in a longer trajectory, short stretches come from evenly spaced segments only.

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
    for base, sums in current_sums(trajectory, basis, current):
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
    # Both halves use the same length: the best by what was learned in them together.
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
    """Return numbers of base stretches to join: for ``length``, or powers of two that fit."""
    chains, steps, _ = sums.shape
    most = chains * steps // (4 * _MINIMUM_STRETCHES)
    most = min(most, steps // (2 if chains == 1 else 1))
    if length is None:
        return [2**k for k in range(int(most).bit_length())]
    length = check_integer("length", length, 1)
    return [length // base] if length % base == 0 and length // base <= most else []


def _halves(sums):
    """Split into two parts: halves of the chains, or of a single chain in time."""
    chains, steps, _ = sums.shape
    if chains > 1:
        return sums[: chains // 2], sums[chains // 2 :]
    return sums[:, : steps // 2], sums[:, steps // 2 :]


def _learn(stretches):
    """Return the direction of the largest <J>^2 / Var J, and its bound less the bias.

    The current along that direction has unit variance.
    """
    count, width = stretches.shape
    mean = stretches.mean(axis=0)
    covariance = np.atleast_2d(np.cov(stretches.T))
    # A ridge of the size of rounding: in a chain on few states some planes may have no current.
    covariance += np.eye(width) * (1e-10 * np.trace(covariance) / width + 1e-300)
    direction = np.linalg.solve(covariance, mean)
    ratio = float(mean @ direction)
    direction = direction / np.sqrt(max(direction @ covariance @ direction, 1e-300))
    return direction, float(np.log1p(2 * max(0.0, ratio - width / count)))


def _bound_with_error(j):
    """Return ln(1 + 2 <J>^2 / Var J), corrected for bias, and its standard error (jackknife)."""
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
