"""Test detailed balance: whether a trajectory looks the same if it runs backward in time.

The test is (N17) of docs/nonequilibrium.md. `lagged_pairs` computes the time-antisymmetric moments
("contrasts") that it uses.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.blocks import block_length, neighbours, neighbours_together
from sgworld_mcmc.nonequilibrium.lagged_pairs import (
    Whitening,
    block_contrasts,
    contrast_pairs,
    correlation_time,
    slow_modes,
    smallest_correlation,
    whiten,
)
from sgworld_mcmc.nonequilibrium.matrices import inverse
from sgworld_mcmc.nonequilibrium.moments import trajectory_moments
from sgworld_mcmc.nonequilibrium.results import new_axes, table
from sgworld_mcmc.nonequilibrium.symmetry import symmetry_test
from sgworld_mcmc.nonequilibrium.trajectory import as_trajectory

__all__ = ["DetailedBalanceViolation", "detailed_balance_violation"]


class DetailedBalanceViolation(NamedTuple):
    """The asymmetry of lagged moments under time reversal, and whether chance explains it.

    Attributes
    ----------
    statistic : float
        Hotelling's T^2 of the contrasts. If there are too many contrasts for the blocks, Student's
        t in the second halves of the chains, of a direction found in the first halves.
    p_value : float
        Probability of a statistic at least as large under detailed balance, where it is uniform on
        (0, 1). It is close to one for a single coordinate of two values, whose third moments are
        the same in both directions of time.
    z_scores : numpy.ndarray
        (lags, k, k) contrasts over their standard errors; [l, i, j] belongs to coordinates i, j.
    contrasts, standard_errors : numpy.ndarray
        (lags, k, k) contrasts of standardised coordinates: a contrast of 0.1 is an asymmetry of 0.1
        between the two directions of a correlation.
    lags : tuple of int
        Lags in steps, in increasing order.
    degrees_of_freedom : tuple of int
        (contrasts, blocks - contrasts) of the F distribution of T^2, or (1, blocks - 1) for t.
    num_blocks, num_blocks_per_chain, block_length : int
        Number of blocks of all chains and of each chain, and of steps in each block.
    correlation_time : float
        Correlation time, in steps, of the product of the two slowest modes (of the slowest alone
        for order 3), which determines that of contrasts. Blocks should be several times as long,
        unless they are whole chains.
    names : tuple of str
        Names of the k coordinates; after a projection "component 0", ...
    order : int
        2, or 3 for the nonlinear contrasts.
    """

    statistic: float
    p_value: float
    z_scores: np.ndarray
    contrasts: np.ndarray
    standard_errors: np.ndarray
    lags: tuple[int, ...]
    degrees_of_freedom: tuple[int, int]
    num_blocks: int
    num_blocks_per_chain: int
    block_length: int
    correlation_time: float
    names: tuple[str, ...]
    order: int

    def largest(self, count: int = 5) -> list[tuple[int, str, str, float, float]]:
        """Return (lag, coordinate i, coordinate j, contrast, z) for the largest |z|."""
        labels = contrast_pairs(len(self.names), self.order)
        entries = [(lag, i, j) for lag in range(len(self.lags)) for i, j in labels]
        entries.sort(key=lambda e: -abs(np.nan_to_num(self.z_scores[e])))
        return [
            (
                self.lags[e[0]],
                self.names[e[1]],
                self.names[e[2]],
                float(self.contrasts[e]),
                float(self.z_scores[e]),
            )
            for e in entries[:count]
        ]

    def __str__(self):
        dof = self.degrees_of_freedom
        rows = {
            "p-value": f"{self.p_value:.3g}",
            "statistic": f"{self.statistic:.4g} (degrees of freedom {dof[0]}, {dof[1]})",
            "blocks": f"{self.num_blocks} of {self.block_length} steps, "
            f"correlation time {self.correlation_time:.0f}",
        }
        for lag, i, j, value, z in self.largest():
            rows[f"{i}, {j}, lag {lag}"] = f"{value:+.4f}  z = {z:+.1f}"
        verdict = "violated" if self.p_value < 0.01 else "not rejected"
        short = self.num_blocks_per_chain > 1 and self.block_length < 3 * self.correlation_time
        note = (
            "Blocks are short against the correlation time: the p-value is rough." if short else ""
        )
        return table(f"detailed balance: {verdict}", rows, note)

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw all z scores, sorted, against normal quantiles, and return the axes."""
        ax = new_axes(ax)
        labels = contrast_pairs(len(self.names), self.order)
        z = np.concatenate([[s[i, j] for i, j in labels] for s in self.z_scores])
        z = np.sort(z[np.isfinite(z)])
        chance = scipy.stats.norm.ppf((np.arange(len(z)) + 0.5) / len(z))
        ax.plot(chance, chance, color="0.5", lw=1, label="detailed balance")
        ax.plot(chance, z, "o", ms=4, label=f"contrasts (p = {self.p_value:.2g})")
        ax.set(xlabel="normal quantile", ylabel="z score")
        ax.legend()
        return ax


def detailed_balance_violation(
    trajectory,
    lags: Sequence[int] | int = (1,),
    *,
    order: int | None = None,
    num_blocks: int | None = None,
    num_components: int | None = None,
    project: bool = False,
) -> DetailedBalanceViolation:
    """Test whether a stationary trajectory obeys detailed balance (N17).

    Convergence diagnostics look at one coordinate at a time and cannot see a circulating flow.
    This test compares < z_i(k) z_j(k + l) > with < z_j(k) z_i(k + l) >, which are equal under
    detailed balance, for all pairs of coordinates and the given lags, and joins them in one
    p-value.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        A stationary trajectory without warm-up, since relaxation is irreversible too. Constrained
        draws will do.
    lags : int or sequence of int
        Lags in steps. The default, 1, has nearly all the power that the entropy production allows
        for a Markov chain sampled at every step. Add larger lags if fast noise hides the flow.
    order : {2, 3}, optional
        Order of the products. 2 compares products of two coordinates and sees circulation. 3
        compares < z_i^2(k) z_j(k + l) > with < z_j(k) z_i^2(k + l) > for all i and j; it sees
        nonlinear flows without net rotation, and is zero for anything Gaussian. The default is 2,
        but 3 for a single coordinate, whose products are always symmetric.
    num_blocks : int, optional
        Number of blocks of all chains. By default about 100, more for many contrasts, and fewer if
        blocks would be shorter than ten correlation times. Blocks are whole chains if there are
        enough chains.
    num_components : int, optional
        Number of leading principal components of the correlation matrix to use instead of the
        coordinates; default 32 for D > 32.
    project : bool
        Whether to leave out directions without variance, instead of raising.

    Returns
    -------
    DetailedBalanceViolation
        The statistic, z scores, p-value and more; it prints and plots.

    Raises
    ------
    ValueError
        If there is NaN (the message says where), there are fewer steps than 2 x lag or too few for
        six blocks longer than the lag, or coordinates are constant or duplicate (it says which).

    Notes
    -----
    Reversing a block changes the sign of its contrasts exactly, so that under detailed balance
    their distribution over blocks is symmetric about zero. T^2 of independent symmetric vectors
    follows Hotelling's distribution closely. If there are about half as many contrasts as blocks
    or more, a direction is learned from the first halves of all chains, and the test is Student's
    t along it in the second halves. The trajectory is read twice, in blocks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.zeros((20_000, 2))
    >>> for k in range(1, len(x)):
    ...     x[k] = np.array([[0.9, 0.1], [-0.1, 0.9]]) @ x[k - 1] + rng.normal(size=2)
    >>> print(detailed_balance_violation(x).p_value < 1e-6)
    True
    """
    lags = (lags,) if np.ndim(lags) == 0 else tuple(lags)
    lags = tuple(sorted({check_integer("lags", lag, 1) for lag in lags}))
    if not lags:
        raise ValueError("`lags` is empty: pass at least one lag, such as `lags=(1,)`.")
    longest = lags[-1]
    trajectory = as_trajectory(trajectory, max(8, 2 * longest), f"(twice the lag, {longest})")
    moments = trajectory_moments(trajectory, (1,))
    basis, names = _basis(trajectory, moments, num_components, project)
    dim = len(names)
    order = check_integer("order", (3 if dim == 1 else 2) if order is None else order, 2, 3)
    if order == 2 and dim == 1:
        raise ValueError(
            "`order=2` cannot see anything in a single coordinate, whose lagged products are "
            "symmetric in time whatever it does: pass `order=3`, or more coordinates."
        )
    time = correlation_time(trajectory, moments, order)
    each = len(contrast_pairs(dim, order))
    together = neighbours(smallest_correlation(moments, basis))
    length = block_length(trajectory, time, longest, each * len(lags), num_blocks, together)
    blocks = block_contrasts(trajectory, basis, lags, length, order)
    tested = blocks
    if order == 2:
        # T^2 is the same in all coordinates. In the slow modes boundary terms can be left out.
        modes = Whitening(basis.mean, slow_modes(moments, basis))
        tested = block_contrasts(trajectory, modes, lags, length, order, telescoped=True)
    if together > 1:
        count = blocks.shape[1]
        blocks, tested = (neighbours_together(x) for x in (blocks, tested))
        length *= count // blocks.shape[1]
    statistic, p_value, dof = symmetry_test(tested.reshape(*blocks.shape[:2], -1))
    flat = blocks.reshape(-1, len(lags), each)
    mean = flat.mean(axis=0)
    error = flat.std(axis=0, ddof=1) / np.sqrt(len(flat))
    contrasts, errors = (_square(v, dim, order) for v in (mean, error))
    with np.errstate(divide="ignore", invalid="ignore"):
        z_scores = np.where(errors != 0, contrasts / np.abs(errors), 0.0)
    return DetailedBalanceViolation(
        statistic=statistic,
        p_value=p_value,
        z_scores=z_scores,
        contrasts=contrasts,
        standard_errors=np.abs(errors),
        lags=lags,
        degrees_of_freedom=dof,
        num_blocks=len(flat),
        num_blocks_per_chain=blocks.shape[1],
        block_length=length,
        correlation_time=time,
        names=names,
        order=order,
    )


def _basis(trajectory, moments, num_components, project):
    """Return standardised coordinates, or principal components, and their names."""
    dim = len(trajectory.names)
    if not project:
        inverse("covariance of the trajectory", moments.covariance, names=trajectory.names)
    if num_components is None and not project and dim <= 32:
        deviation = np.sqrt(np.diag(moments.covariance))
        return Whitening(moments.mean, np.diag(1 / deviation)), trajectory.names
    wanted = min(dim, 32) if num_components is None else num_components
    basis = whiten(moments, check_integer("num_components", wanted, 1, dim))
    return basis, tuple(f"component {i}" for i in range(basis.weights.shape[1]))


def _square(values, dim, order):
    """Arrange (lags, contrasts) as (lags, k, k), antisymmetric for order 2."""
    out = np.zeros((len(values), dim, dim))
    i, j = np.array(contrast_pairs(dim, order), dtype=int).reshape(-1, 2).T
    out[:, i, j] = values
    if order == 2:
        out[:, j, i] = -values
    return out
