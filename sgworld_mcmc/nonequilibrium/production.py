"""Entropy production of a trajectory: step by step from theory, and by the plug-in estimate.

The formulas are (N9)-(N11) and (N14) of docs/nonequilibrium.md; see also arXiv:2306.03521.
"""

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Float64

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.linear import gaussian_rate
from sgworld_mcmc.nonequilibrium.matrices import check_matrix, inverse
from sgworld_mcmc.nonequilibrium.moments import trajectory_moments
from sgworld_mcmc.nonequilibrium.results import new_axes, table
from sgworld_mcmc.nonequilibrium.trajectory import (
    Trajectory,
    as_trajectory,
    check_center,
    chunks,
)

__all__ = ["PlugInProduction", "entropy_production", "plug_in_entropy_production"]


def entropy_production(
    trajectory,
    circulation,
    covariance,
    diffusion,
    center=None,
    *,
    midpoint: bool = False,
    project: bool = False,
) -> Float64[np.ndarray, "*steps"]:
    """Compute the production sigma_k = v(theta_k)^T D^-1 (theta_{k+1} - theta_k) of steps (N9).

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Positions after each time step of the theory: a step with replacement, an epoch without.
    circulation, covariance, diffusion : array (D, D)
        Matrices Q, S and D of the theory, per time step. With S from H S + S H = 2 D / h the
        integral theorem holds at every step size and length; with an empirical S it has an error
        of O(h) that grows with the length.
    center : array (D,), optional
        Center mu, in theory the minimum of the effective loss; default the mean of the trajectory.
    midpoint : bool
        Whether to evaluate v at (theta_k + theta_{k+1}) / 2 (Stratonovich), which is better for the
        detailed theorem of long stretches. The default, the Ito form, is exact only per step.
    project : bool
        Whether to drop directions in which S or D is singular, instead of raising.

    Returns
    -------
    numpy.ndarray
        (steps - 1,) or (chains, steps - 1) float64 productions in nats. The production of a stretch
        is their sum.

    Raises
    ------
    ValueError
        If the trajectory has NaN (the message says where), or S or D is singular (it says in which
        coordinates).

    Notes
    -----
    It reads the trajectory once in small chunks, and holds only the result in memory.

    Examples
    --------
    >>> x = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    >>> q = np.array([[0.0, 0.2], [-0.2, 0.0]])
    >>> print(entropy_production(x, q, np.eye(2), np.eye(2), center=np.zeros(2)))
    [0.2 0.2]
    """
    flat = getattr(trajectory, "ndim", 2) < 3
    trajectory = as_trajectory(trajectory)
    chains, steps, dim = trajectory.values.shape
    circulation = check_matrix("circulation", circulation, dim, symmetric=False, antisymmetric=True)
    names = trajectory.names
    covariance_inverse = inverse(
        "covariance", check_matrix("covariance", covariance, dim), project, names
    )
    diffusion_inverse = inverse(
        "diffusion", check_matrix("diffusion", diffusion, dim), project, names
    )
    # v^T D^-1 dx = x^T weights dx with v = -Q S^-1 x.
    weights = -(circulation @ covariance_inverse).T @ diffusion_inverse
    if center is None:
        center = trajectory_moments(trajectory, ()).mean
    sigma, ones = np.empty((chains, steps - 1)), np.ones(dim)
    for chain, start, _, block in chunks(trajectory, 1, check_center(center, dim)):
        if len(block) > 1:
            step = np.diff(block, axis=0)
            at = (block[1:] + block[:-1]) / 2 if midpoint else block[:-1]
            # A product with ones is much faster than a sum over a short last axis.
            sigma[chain, start : start + len(step)] = (
                np.multiply(at @ weights, step, out=step) @ ones
            )
    return sigma[0] if flat and chains == 1 else sigma


class PlugInProduction(NamedTuple):
    """The entropy production rate of the Gaussian chain with a trajectory's moments.

    Attributes
    ----------
    rate : float
        Rate in nats per `lag` steps without the bias, ``plug_in - null_level``. Noise can make it
        negative.
    standard_error : float
        Standard error of the rate, by the jackknife over blocks.
    plug_in : float
        The estimate before the bias is removed.
    null_level : float
        Average estimate for a reversible chain of this length, d (d - 1) / n (N14).
    lag : int
        Number of steps between the two positions compared.
    num_pairs : int
        Number of pairs n.
    dim : int
        Number of coordinates d, after a projection.
    """

    rate: float
    standard_error: float
    plug_in: float
    null_level: float
    lag: int
    num_pairs: int
    dim: int

    def per_stretch(self, length: int) -> float:
        """Return the mean production of ``length`` steps of `lag`, by the Markov property."""
        return self.rate * check_integer("length", length, 1)

    def __str__(self):
        per = "step" if self.lag == 1 else f"{self.lag} steps"
        return table(
            f"entropy production per {per}, linear-Gaussian plug-in estimate",
            {
                "rate": f"{self.rate:.4g} ± {self.standard_error:.2g}",
                "before bias removal": f"{self.plug_in:.4g}",
                "null level": f"{self.null_level:.4g} (a reversible chain of this length)",
                "pairs, dimension": f"{self.num_pairs}, {self.dim}",
            },
        )

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw the rate with its error bar over the null level, and return the axes."""
        ax = new_axes(ax)
        ax.errorbar([0], [self.rate], [2 * self.standard_error], fmt="o", capsize=4, label="rate")
        ax.axhspan(0, self.null_level, color="0.85", label="bias removed (null level)")
        ax.set(xticks=[], ylabel="entropy production per step [nats]")
        ax.legend()
        return ax


def plug_in_entropy_production(
    trajectory, lag: int = 1, *, num_blocks: int = 50, project: bool = False
) -> PlugInProduction:
    """Estimate the rate of the linear-Gaussian chain that has the trajectory's moments.

    Transition A and noise V are estimated from the covariance and the cross-moment at ``lag``, and
    put into the exact rate of a Gaussian chain (N11). For d > 1 this has the bias d (d - 1) / n
    (N14), which is removed.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        Positions in the order of time.
    lag : int
        Number of steps between the positions compared; the rate is per ``lag`` steps.
    num_blocks : int
        Number of blocks, in all chains together, that are left out in turn for the standard error.
        With fewer than some hundred steps in a block the error comes out up to 1.8 times too large.
    project : bool
        Whether to drop constant and duplicate directions, instead of raising.

    Returns
    -------
    PlugInProduction

    Raises
    ------
    ValueError
        If there is NaN (the message says where), there are fewer steps than 2 x lag, or coordinates
        are constant or duplicate (it says which).

    Notes
    -----
    For a chain that is not Gaussian it is the rate of the Gaussian chain with the same second
    moments, which is neither a lower nor an upper bound; `variational_entropy_production` and
    `entropy_production_bound` bound from below. The trajectory is read once in small chunks.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.zeros((20_000, 2))
    >>> for k in range(1, len(x)):
    ...     x[k] = np.array([[0.9, 0.1], [-0.1, 0.9]]) @ x[k - 1] + rng.normal(size=2)
    >>> result = plug_in_entropy_production(x)
    >>> bool(abs(result.rate - 0.2222) < 3 * result.standard_error)
    True
    """
    lag = check_integer("lag", lag, 1)
    trajectory = as_trajectory(trajectory, max(4, 2 * lag), f"(twice the lag, {lag})")
    chains, steps, _ = trajectory.values.shape
    full = trajectory_moments(trajectory, (lag,))
    plug_in, dim = _rate(full.lagged[lag], full.covariance, trajectory.names, project)
    pairs = chains * (steps - lag)
    parts = _block_moments(trajectory, lag, full.center, max(2, num_blocks))
    weights = np.array([w for w, _, _ in parts], dtype=float)
    lagged, squares = (np.stack([p[i] for p in parts]) for i in (1, 2))
    total = weights.sum()
    left_out = []
    for w, c, s in zip(weights, lagged, squares, strict=True):
        rest = total - w
        mean_c = (np.tensordot(weights, lagged, 1) - w * c) / rest
        mean_s = (np.tensordot(weights, squares, 1) - w * s) / rest
        left_out.append(_rate(mean_c, mean_s, trajectory.names, project)[0])
    count = len(parts)
    error = np.sqrt((count - 1) / count * np.sum((left_out - np.mean(left_out)) ** 2))
    # The rate is quadratic in d (d - 1) / 2 currents. Near equilibrium it hardly moves if a block
    # is left out, and its scatter is that of their squares, whose mean is the bias. At equilibrium
    # the jackknife has twice the variance of these on average, but may have none: half is added.
    null = dim * (dim - 1) / pairs
    error = np.hypot(error, np.sqrt(2 * dim * (dim - 1)) / pairs)
    return PlugInProduction(plug_in - null, float(error), plug_in, null, lag, pairs, dim)


def _rate(lagged, covariance, names, project):
    """Return the rate and the dimension from < x(k) x(k + l)^T > and < x x^T >."""
    if project:
        eigenvalues = np.linalg.eigvalsh(_correlation(covariance))
        dim = int(np.sum(eigenvalues >= 1e-12 * len(covariance)))
    else:
        dim = len(covariance)
    return gaussian_rate(covariance, lagged.T, None, project, names), dim


def _correlation(covariance):
    variance = np.diag(covariance)
    scale = np.where(variance > 0, 1 / np.sqrt(np.where(variance > 0, variance, 1)), 0)
    return scale[:, None] * covariance * scale


def _block_moments(trajectory, lag, center, num_blocks):
    """Return (number of pairs, lagged moments, covariance) of each block of the chains."""
    values, names = trajectory
    chains, steps, _ = values.shape
    each = max(1, min(num_blocks // chains, steps // (2 * lag + 2))) if chains < num_blocks else 1
    each = max(each, 2) if chains == 1 else each
    edges = np.linspace(0, steps, each + 1).astype(int)
    parts = []
    for chain in range(chains):
        for start, stop in pairwise(edges):
            # Pairs that begin in the block, so that each pair is in one block.
            end = min(stop + lag, steps)
            block = Trajectory(values[chain : chain + 1, start:end], names)
            moments = trajectory_moments(block, (lag,), center)
            parts.append((end - start - lag, moments.lagged[lag], moments.covariance))
    return parts
