"""Linear theory near a minimum: covariance, circulation and entropy production.

The dynamics are theta <- theta - h H (theta - mu) + noise of covariance 2 D. The formulas are (N6),
(N7), (N10) and (N11) of docs/nonequilibrium.md; see also arXiv:2306.03521.
"""

import numpy as np
from jaxtyping import Float64
from scipy.linalg import solve_discrete_lyapunov

from sgworld_mcmc.checks import check_positive
from sgworld_mcmc.nonequilibrium.matrices import check_matrix, inverse, positive_spectrum

__all__ = [
    "circulation_matrix",
    "entropy_production_rate",
    "linear_chain_entropy_production_rate",
    "stationary_covariance",
]


def stationary_covariance(
    hessian, diffusion, time_step: float, *, project: bool = False, check_stability: bool = True
) -> Float64[np.ndarray, "D D"]:
    """Solve the Lyapunov equation H S + S H = 2 D / h for the stationary covariance S (N6).

    Parameters
    ----------
    hessian : array (D, D)
        Hessian H of the loss at the minimum, symmetric and positive definite.
    diffusion : array (D, D)
        Diffusion matrix D per time step, from `diffusion_matrix`.
    time_step : float
        Time step h: the learning rate eta for a step with replacement, eta M for an epoch without.
    project : bool
        If the Hessian is not positive definite, whether to work in the subspace of its positive
        eigenvalues, outside of which S is zero, instead of raising.
    check_stability : bool
        Whether to raise for h >= 2 / (largest eigenvalue). Pass False for a longer epoch: SGD
        itself may then be stable, but the linearised epoch describes it poorly.

    Returns
    -------
    numpy.ndarray
        (D, D) float64 covariance, of leading order in h.

    Raises
    ------
    ValueError
        If H is not positive definite, h is above the stability limit, or shapes are wrong.

    Examples
    --------
    >>> print(stationary_covariance([[1.0, 0.0], [0.0, 2.0]], [[0.01, 0.0], [0.0, 0.01]], 0.01))
    [[1.  0. ]
     [0.  0.5]]
    """
    hessian = check_matrix("hessian", hessian)
    diffusion = check_matrix("diffusion", diffusion, len(hessian))
    time_step = check_positive("time_step", time_step)
    eigenvalues, vectors = positive_spectrum("hessian", hessian, project)
    if check_stability and time_step * eigenvalues[-1] >= 2:
        raise ValueError(
            f"`time_step` {time_step:.4g} is above the stability limit 2 / (largest eigenvalue of "
            f"`hessian`) = {2 / eigenvalues[-1]:.4g}: the linear chain diverges. Use a smaller "
            "learning rate (or, for an epoch, `check_stability=False`)."
        )
    rotated = 2 / time_step * vectors.T @ diffusion @ vectors
    return vectors @ (rotated / np.add.outer(eigenvalues, eigenvalues)) @ vectors.T


def circulation_matrix(hessian, covariance, time_step: float) -> Float64[np.ndarray, "D D"]:
    """Return the circulation Q = (h / 2)(H S - S H), zero iff detailed balance holds (N7).

    The probability velocity is v(theta) = -Q S^-1 (theta - mu), and `areal_velocity` of a
    trajectory estimates Q, with this sign and factor.

    Parameters
    ----------
    hessian, covariance : array (D, D)
        Hessian H, and covariance S from `stationary_covariance` or from a simulation.
    time_step : float
        Time step h of `stationary_covariance`.

    Returns
    -------
    numpy.ndarray
        (D, D) antisymmetric matrix per time step.

    Examples
    --------
    >>> print(circulation_matrix([[1.0, 0.0], [0.0, 2.0]], [[1.0, 0.5], [0.5, 1.0]], 0.1))
    [[ 0.    -0.025]
     [ 0.025  0.   ]]
    """
    hessian = check_matrix("hessian", hessian)
    covariance = check_matrix("covariance", covariance, len(hessian))
    product = hessian @ covariance
    return check_positive("time_step", time_step) / 2 * (product - product.T)


def entropy_production_rate(circulation, covariance, diffusion, *, project: bool = False) -> float:
    """Return the mean entropy production per time step, -tr(Q D^-1 Q S^-1), in nats (N10).

    Parameters
    ----------
    circulation, covariance, diffusion : array (D, D)
        Matrices Q, S and D per time step.
    project : bool
        Whether to drop directions in which S or D has no variance, instead of raising.

    Returns
    -------
    float
        The rate to leading order in the step; `linear_chain_entropy_production_rate` is exact.

    Examples
    --------
    >>> q = [[0.0, 0.02], [-0.02, 0.0]]
    >>> print(f"{entropy_production_rate(q, [[1, 0], [0, 1]], [[0.1, 0], [0, 0.1]]):.4f}")
    0.0080
    """
    covariance = check_matrix("covariance", covariance)
    dim = len(covariance)
    circulation = check_matrix("circulation", circulation, dim, symmetric=False, antisymmetric=True)
    diffusion = check_matrix("diffusion", diffusion, dim)
    left = circulation @ inverse("diffusion", diffusion, project)
    right = circulation @ inverse("covariance", covariance, project)
    return float(-np.sum(left * right.T))


def linear_chain_entropy_production_rate(
    transition, noise_covariance, *, project: bool = False
) -> float:
    """Return the entropy production per step of x' = A x + N(0, V) at any step size (N11).

    It is ``(1/2) [tr V^-1 (S - A^2 S - (A^2 S)^T + A S A^T) - D]``, where S is the chain's own
    stationary covariance, S = A S A^T + V: the Kullback-Leibler divergence between a step and its
    reverse. Linearised SGD has A = I - h H and V = 2 D.

    Parameters
    ----------
    transition : array (D, D)
        Matrix A, of spectral radius below 1.
    noise_covariance : array (D, D)
        Covariance V, positive definite.
    project : bool
        Whether to drop directions without noise, instead of raising.

    Returns
    -------
    float
        The rate in nats per step; it is 0 iff the chain is reversible. It is infinite if a
        direction without noise follows others that have some: no step is then the reverse of
        another.

    Raises
    ------
    ValueError
        If the spectral radius is 1 or more, or V is singular.

    Examples
    --------
    >>> rotation = [[0.9, 0.1], [-0.1, 0.9]]
    >>> print(f"{linear_chain_entropy_production_rate(rotation, 0.1 * np.eye(2)):.4f}")
    0.2222
    """
    transition = check_matrix("transition", transition, symmetric=False)
    noise = check_matrix("noise_covariance", noise_covariance, len(transition))
    radius = np.abs(np.linalg.eigvals(transition)).max()
    if radius >= 1:
        raise ValueError(
            f"`transition` has spectral radius {radius:.6g}: the chain has no stationary state. "
            "For linearised SGD the learning rate is above 2 / (largest eigenvalue)."
        )
    covariance = solve_discrete_lyapunov(transition, noise)
    if project and _follows(transition, covariance, noise):
        return np.inf
    return gaussian_rate(covariance, transition @ covariance, noise, project)


def _follows(transition, covariance, noise) -> bool:
    """Return whether the reverse of a step moves where the noise does not."""
    values, vectors = np.linalg.eigh(noise)
    silent = vectors[:, values <= 1e-12 * max(values[-1], np.finfo(float).tiny)]
    twice = transition @ transition @ covariance
    residual = covariance - twice - twice.T + transition @ covariance @ transition.T
    return bool(np.trace(silent.T @ residual @ silent) > 1e-9 * np.trace(covariance))


def gaussian_rate(covariance, lagged, noise=None, project=False, names=None):
    """Compute (N11) from S = E[x x^T] and A S = E[x' x^T]; V defaults to S - A S A^T."""
    precision = inverse("covariance", covariance, project, names)
    transition = lagged @ precision
    if noise is None:
        noise = covariance - transition @ lagged.T
    twice = transition @ lagged
    residual = covariance - twice - twice.T + transition @ lagged.T
    weight = inverse("noise covariance", (noise + noise.T) / 2, project, names)
    rank = np.linalg.matrix_rank(weight) if project else len(covariance)
    return float((np.sum(weight * residual) - rank) / 2)
