"""Compute mean, covariance and lagged cross-moments of long trajectories in one pass."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.trajectory import (
    as_trajectory,
    check_center,
    chunks,
    first_shift,
)

__all__ = ["Moments", "areal_velocity", "trajectory_moments"]


class Moments(NamedTuple):
    """First and second moments of a trajectory.

    Attributes
    ----------
    mean : numpy.ndarray
        (D,) mean.
    covariance : numpy.ndarray
        (D, D) covariance about `center`; the divisor is the number of steps.
    lagged : dict of int to numpy.ndarray
        Lag l to the (D, D) moments < x_i(k) x_j(k + l) > about `center`.
    center : numpy.ndarray
        (D,) center of the second moments.
    num_steps : int
        Number of steps of all chains.
    """

    mean: np.ndarray
    covariance: np.ndarray
    lagged: dict[int, np.ndarray]
    center: np.ndarray
    num_steps: int

    def __str__(self):
        sd = np.sqrt(np.diag(self.covariance))
        rows = [f"{'coordinate':>10} {'mean':>12} {'sd':>12}"]
        shown = zip(self.mean[:20], sd[:20], strict=True)
        rows += [f"{i:>10} {m:>12.5g} {s:>12.5g}" for i, (m, s) in enumerate(shown)]
        return "\n".join([f"moments of {self.num_steps} steps, lags {list(self.lagged)}", *rows])


def trajectory_moments(trajectory, lags=(1,), center=None) -> Moments:
    """Compute mean, covariance and lagged cross-moments in one pass and small chunks.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Positions in the order of time. Pairs never span two chains.
    lags : sequence of int
        Lags of the cross-moments, in steps.
    center : array (D,), optional
        Center of the second moments; default the mean of the trajectory.

    Raises
    ------
    ValueError
        If there is NaN or infinity (the message says where), or there are fewer steps than twice
        the largest lag.

    Examples
    --------
    >>> x = np.arange(8.0).reshape(-1, 1) % 2
    >>> print(trajectory_moments(x).lagged[1])
    [[-0.25]]
    """
    lags = [check_integer("lags", lag, 1) for lag in lags]
    longest = max(lags, default=0)
    trajectory = as_trajectory(trajectory, max(2, 2 * longest), "(twice the largest lag)")
    chains, steps, dim = trajectory.values.shape
    shift = first_shift(trajectory)
    # With a column of ones, one product gives the moments and the sums that change their center.
    squares = np.zeros((dim + 1, dim + 1))
    products = {lag: np.zeros((dim + 1, dim + 1)) for lag in lags}
    for _, _, rows, block in chunks(trajectory, longest, shift, ones=True):
        own = block[:rows]
        squares += own.T @ own
        for lag in lags:
            second = block[lag : rows + lag]
            products[lag] += block[: len(second)].T @ second
    mean = squares[dim, :dim] / (chains * steps)
    center = mean + shift if center is None else check_center(center, dim)
    offset = center - shift

    def about_center(sums):
        first, second = sums[:dim, dim], sums[dim, :dim]
        moved = sums[:dim, :dim] - np.outer(offset, second) - np.outer(first, offset)
        return moved / sums[dim, dim] + np.outer(offset, offset)

    lagged = {lag: about_center(products[lag]) for lag in lags}
    covariance = about_center(squares)
    return Moments(mean + shift, covariance, lagged, center, chains * steps)


def areal_velocity(trajectory, center=None) -> Float64[np.ndarray, "D D"]:
    """Return the mean area that a trajectory sweeps per step in each coordinate plane (N8).

    ``A_ij = < x_i(k) x_j(k+1) - x_j(k) x_i(k+1) > / 2`` estimates the circulation matrix Q.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Positions in the order of time. A step leads from one row to the next: it is an epoch if
        rows are epochs.
    center : array (D,), optional
        Position from which x is measured; default the mean of the trajectory.

    Returns
    -------
    numpy.ndarray
        (D, D) antisymmetric float64 matrix.

    Raises
    ------
    ValueError
        If there is NaN or infinity (the message says where), or there are fewer than two steps.

    Examples
    --------
    >>> angle = np.arange(1000) * 2 * np.pi / 100
    >>> circle = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    >>> print(areal_velocity(circle, center=np.zeros(2)).round(4))
    [[ 0.      0.0314]
     [-0.0314  0.    ]]
    """
    lagged = trajectory_moments(trajectory, (1,), center).lagged[1]
    return (lagged - lagged.T) / 2
