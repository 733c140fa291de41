"""The limiting dynamics of SGD with momentum on a quadratic loss: exact, and as a diffusion.

Section 4 of docs/theory.md derives the formulas, after Kunin et al., "The Limiting Dynamics of
SGD", arXiv:2107.09133. All numbers are float64 NumPy.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.linalg import cho_factor, cho_solve, solve_continuous_lyapunov, solve_discrete_lyapunov

from sgworld_mcmc.checks import check_integer, check_positive
from sgworld_mcmc.nonequilibrium.linear_process import DiscreteProcess, LangevinProcess

__all__ = ["LinearRegressionDynamics"]


@dataclass(frozen=True)
class LinearRegressionDynamics:
    """SGD with momentum on a quadratic loss with batch noise of constant covariance.

    The dynamics are v <- beta v + g + lambda theta, theta <- theta - eta v, with the batch gradient
    g = H (theta - theta0) + noise. Positions x = theta - mu are counted from the minimum mu of the
    loss with its weight decay, mu = (H + lambda I)^-1 H theta0, or from 0 if ``minimum`` is given.

    **Phase space.** Every vector of length 2D is (x_k, u_k): the position and then the velocity
    u_k = (x_k - x_{k-1}) / eta = -v_k, per unit of the time t = eta k. Every (2D, 2D) matrix has
    the position's block in ``[:D, :D]``, the velocity's in ``[D:, D:]``.

    **Exact or continuous.** By default the methods describe the discrete recursion of SGD itself,
    x_{k+1} = ((1 + beta) I - eta A) x_k - beta x_{k-1} - eta e_k with A = H + lambda I.
    With ``continuous=True`` they describe its model in the time t = eta k, an Ornstein-Uhlenbeck
    process in (x, x'): m x'' + gamma x' + A x = sqrt(eta) C^(1/2) white noise with
    m = (eta/2)(1 + beta) and gamma = 1 - beta; ``k`` and ``lags`` then need not be integers.

    Parameters
    ----------
    hessian : (D, D)
        Hessian H of the loss (a mean over the examples) without weight decay, symmetric and
        positive semidefinite. Linear regression with loss mean (y - X theta)^2 / 2 has X^T X / N.
    noise_covariance : (D, D)
        Covariance over the *examples* of the gradient of one example's loss, at the minimum. The
        batch gradient then has C = noise_covariance / batch_size, which is exact if examples are
        drawn independently; for distinct examples in a batch multiply it by (N - B) / (N - 1).
        A well-specified linear regression with noise sigma has sigma^2 H.
    learning_rate : float
        Learning rate eta, below the limit 2 (1 + beta) / (largest eigenvalue of H + lambda I).
    momentum : float
        Momentum beta in [0, 1).
    batch_size : int
        Batch size B.
    weight_decay : float
        Weight decay lambda >= 0.
    minimum : (D,), optional
        The minimum mu. If it is given, positions passed and returned are theta rather than x.

    Raises
    ------
    ValueError, TypeError
        If the learning rate is above the limit, beta is outside [0, 1), there is NaN, or matrices
        differ in size or are not square, symmetric and positive semidefinite.

    Notes
    -----
    The batch Hessian of a linear regression is noisy too, which is left out here: it raises the
    covariances by about eta tr(H) / (2 B (1 - beta)) relatively, if the features are Gaussian.

    Examples
    --------
    A mode of curvature a = 2 and noise c = 1 / 10 has the variances of docs/theory.md, section 4:

    >>> dynamics = LinearRegressionDynamics([[2.0]], [[1.0]], 0.1, momentum=0.9, batch_size=10)
    >>> a, c, eta, beta = 2.0, 0.1, 0.1, 0.9
    >>> scale = (1 - beta) * (2 * (1 + beta) - eta * a)
    >>> exact = np.diag([eta * c * (1 + beta) / (a * scale), 2 * c / scale])
    >>> bool(np.allclose(np.diag(dynamics.stationary_covariance()), np.diag(exact)))
    True
    >>> print(dynamics.mean(10, [1.0]).round(3))          # of the position, and of the velocity
    [0.004 2.786]
    """

    hessian: ArrayLike
    noise_covariance: ArrayLike
    learning_rate: float
    momentum: float
    batch_size: int
    weight_decay: float = 0.0
    minimum: ArrayLike | None = None

    def __post_init__(self):
        hessian = _positive_semidefinite("hessian", self.hessian)
        noise = _positive_semidefinite("noise_covariance", self.noise_covariance)
        if noise.shape != hessian.shape:
            raise ValueError(
                f"`noise_covariance` has shape {noise.shape} and `hessian` {hessian.shape}: both "
                "must be (D, D) for the same D parameters."
            )
        eta = check_positive("learning_rate", self.learning_rate)
        beta = check_positive("momentum", self.momentum, zero=True)
        if beta >= 1:
            raise ValueError(f"`momentum` must be in [0, 1), not {beta}: nothing would damp.")
        batch_size = check_integer("batch_size", self.batch_size, 1)
        decay = check_positive("weight_decay", self.weight_decay, zero=True)
        largest = float(np.linalg.eigvalsh(hessian)[-1]) + decay
        if eta * largest >= 2 * (1 + beta):
            raise ValueError(
                f"`learning_rate`={eta:g} is not below the limit of stability 2 (1 + momentum) / "
                f"{largest:g} = {2 * (1 + beta) / largest:g}, {largest:g} being the largest "
                "eigenvalue of hessian + weight_decay: the descent diverges. Make it smaller."
            )
        center = np.zeros(len(hessian)) if self.minimum is None else self.minimum
        center = _vector("minimum", center, (len(hessian),))
        values = (hessian, noise, eta, beta, batch_size, decay, center)
        for name, value in zip(self.__dataclass_fields__, values, strict=True):
            object.__setattr__(self, name, value)

    def mean(self, k, initial, continuous=False):
        """Compute the mean of (x, u) after ``k`` steps from ``initial``.

        Parameters
        ----------
        k : int >= 0, or (K,) array of them
            Number of minibatch steps (t = eta k); if continuous, any number >= 0.
        initial : (D,) or (2D,)
            A position at rest, or a position and a velocity.

        Returns
        -------
        numpy.ndarray
            (2D,) mean, or (K, 2D) for an array of k.
        """
        size = len(self.hessian)
        start = np.asarray(initial, dtype=float)
        if start.shape == (size,):
            start = np.concatenate([start, np.zeros(size)])
        start = _vector("initial", start, (2 * size,), f" or ({size},), a position at rest")
        center = np.concatenate([self.minimum, np.zeros(size)])
        process = self._process(continuous)
        return _for_each(k, lambda n: center + process.propagator(n) @ (start - center))

    def covariance(self, k, continuous=False, initial_covariance=None):
        """Compute the covariance of (x, u) after ``k`` steps.

        All chains start at one point, unless an ``initial_covariance`` (2D, 2D) is given. The
        covariance does not depend on the mean. It has the shape (2D, 2D), or (K, 2D, 2D) for an
        array of k.
        """
        size = 2 * len(self.hessian)
        process = self._process(continuous)
        if initial_covariance is None:
            return _for_each(k, process.accumulated_noise)
        start = _positive_semidefinite("initial_covariance", initial_covariance)
        if start.shape != (size, size):
            raise ValueError(f"`initial_covariance` must be ({size}, {size}), not {start.shape}.")

        def at(n):
            propagator = process.propagator(n)
            return propagator @ start @ propagator.T + process.accumulated_noise(n)

        return _for_each(k, at)

    def stationary_covariance(self, continuous=False):
        """Compute the covariance (2D, 2D) of (x, u) at stationarity, the limit of `covariance`.

        It solves the Lyapunov equation, discrete or continuous. Positions and velocities at the
        same time are correlated in the discrete process (by eta/2 times the velocity variance in
        each mode), and uncorrelated in the continuous one if the noise commutes with A.
        """
        self._check_bound()
        process = self._process(continuous)
        if continuous:
            covariance = solve_continuous_lyapunov(process.drift, -process.diffusion)
        else:
            covariance = solve_discrete_lyapunov(process.transition, process.noise, "bilinear")
        return (covariance + covariance.T) / 2

    def mean_squared_displacement(self, lags, continuous=False):
        """Compute E |x_{k + lag} - x_k|^2 at stationarity, in the shape of ``lags``.

        ``lags`` count minibatch steps. The result 2 tr P_xx - 2 tr (F^lag P)_xx is computed as
        tr [(F^lag - I) P (F^lag - I)^T + covariance of the noise since then]_xx, in which nothing
        cancels.
        """
        size = len(self.hessian)
        stationary = self.stationary_covariance(continuous)
        process = self._process(continuous)

        def at(lag):
            change = (process.propagator(lag) - np.eye(2 * size))[:size]
            noise = process.accumulated_noise(lag)[:size, :size]
            return np.einsum("ij,jk,ik->", change, stationary, change) + np.trace(noise)

        return _for_each(lags, at)

    def oscillation_frequencies(self, continuous=False):
        """Compute the angular frequency (D,) of each mode, in radians per unit of t = eta k.

        Modes are in ascending order of curvature a; an overdamped mode has the frequency 0. The
        exact frequency w is the phase of the recursion's eigenvalues over eta,
        cos(eta w) = (1 + beta - eta a) / (2 sqrt(beta)), and pi / eta if the position alternates
        in sign. The continuous one has w^2 = a / m - (gamma / 2m)^2. Multiply by eta for radians
        per step.
        """
        eta, beta = self.learning_rate, self.momentum
        curvature = np.linalg.eigvalsh(self._curvature)
        if continuous:
            mass, friction = eta * (1 + beta) / 2, 1 - beta
            return np.sqrt(np.maximum(curvature / mass - (friction / (2 * mass)) ** 2, 0))
        half_trace = (1 + beta - eta * curvature) / 2
        imaginary = np.sqrt(np.maximum(beta - half_trace**2, 0))
        return np.arctan2(imaginary, half_trace) / eta

    def modified_loss(self, position, continuous=False):
        """Evaluate the loss for which the stationary positions have the density exp(-loss).

        It is (x P_xx^-1 x) / 2 with the stationary covariance P_xx of the positions, and 0 at the
        minimum. It takes the place of the training loss / temperature of an equilibrium process,
        but has another shape: with C = sigma^2 H / B and no weight decay it is isotropic, to
        leading order B (1 - beta) |x|^2 / (eta sigma^2), however anisotropic H is.

        Parameters
        ----------
        position : (..., D) or (..., 2D)
            Positions; or positions and velocities, for the density in phase space.

        Returns
        -------
        numpy.ndarray
            Losses, in the shape of the leading axes.
        """
        size = len(self.hessian)
        position = np.asarray(position, dtype=float)
        length = position.shape[-1] if position.ndim else 0
        if length not in (size, 2 * size):
            raise ValueError(
                f"`position` has shape {position.shape}: its last axis must have the length "
                f"{size} (positions) or {2 * size} (positions and velocities)."
            )
        covariance = self.stationary_covariance(continuous)[:length, :length]
        # Positions and velocities differ by powers of eta, so that they are scaled first.
        scale = np.sqrt(np.diag(covariance))
        try:
            if not scale.all():
                raise np.linalg.LinAlgError
            factor = cho_factor(covariance / np.outer(scale, scale))
        except np.linalg.LinAlgError:
            raise ValueError(
                "The stationary covariance is singular: `noise_covariance` leaves a direction "
                "without noise, where the modified loss is infinite."
            ) from None
        center = np.concatenate([self.minimum, np.zeros(size)])[:length]
        scaled = ((position - center) / scale).reshape(-1, length)
        values = np.sum(scaled.T * cho_solve(factor, scaled.T), axis=0) / 2
        return values.reshape(position.shape[:-1])[()]

    def transition(self, continuous=False):
        """Return the (2D, 2D) matrix F that takes the mean of (x, u) through one step.

        F^l times the stationary covariance is the correlation E[z_{k+l} z_k^T] at lag l.
        """
        return self._process(continuous).propagator(1)

    @property
    def _curvature(self):
        return self.hessian + self.weight_decay * np.eye(len(self.hessian))

    def _process(self, continuous):
        noise = self.noise_covariance / self.batch_size
        kind = LangevinProcess if continuous else DiscreteProcess
        return kind.build(self._curvature, noise, self.learning_rate, self.momentum)

    def _check_bound(self):
        smallest, *_, largest = np.linalg.eigvalsh(self._curvature)[[0, -1]]
        if smallest <= 1e-14 * largest:
            raise ValueError(
                f"`hessian` + weight_decay has the eigenvalue {smallest:.1e}: there is no "
                "stationary state, as positions diffuse for ever along its eigenvector. Use "
                "`weight_decay` > 0, or project that direction out."
            )


def _for_each(numbers, function):
    """Apply ``function`` to a number, or to each number of an array and stack the results."""
    array = np.asarray(numbers)
    if array.ndim == 0:
        return function(array[()])
    if array.size == 0:
        raise ValueError("An empty array of step numbers was passed; give at least one.")
    values = np.stack([function(n) for n in array.ravel()])
    return values.reshape(array.shape + values.shape[1:])


def _vector(name, value, shape, alternative=""):
    value = np.asarray(value, dtype=float)
    if value.shape != shape:
        raise ValueError(f"`{name}` must have shape {shape}{alternative}, not {value.shape}.")
    if not np.isfinite(value).all():
        raise ValueError(f"`{name}` has NaN or infinity.")
    return value


def _positive_semidefinite(name, value):
    """Return ``value`` as a symmetric float64 matrix; raise unless it is positive semidefinite.

    Rounding errors below 1e-8 of the largest entry are accepted.
    """
    matrix = np.array(value, dtype=float)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or matrix.size == 0:
        raise ValueError(f"`{name}` must be a square matrix (D, D), not of shape {matrix.shape}.")
    if not np.isfinite(matrix).all():
        raise ValueError(f"`{name}` has NaN or infinity.")
    scale = np.abs(matrix).max()
    if np.abs(matrix - matrix.T).max() > 1e-6 * scale:
        raise ValueError(f"`{name}` is not symmetric: use (m + m.T) / 2 if that is rounding.")
    matrix = (matrix + matrix.T) / 2
    smallest = np.linalg.eigvalsh(matrix)[0]
    if smallest < -1e-8 * scale:
        raise ValueError(
            f"`{name}` is not positive semidefinite: its smallest eigenvalue is {smallest:.3g}. "
            "At a minimum of the loss it would be; has the optimisation converged?"
        )
    return matrix
