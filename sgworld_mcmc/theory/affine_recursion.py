"""The stationary law of any integrator on a mode of a Gaussian, with batches in any order.

The closed forms of :mod:`sgworld_mcmc.theory.variance_bias` hold for overdamped Langevin dynamics.
Here the same numbers follow from the matrices of a step (:meth:`Integrator.affine`), by powers of
small matrices: nothing is simulated, and no order is sampled. A mode has the curvature
``curvature``; batch gradients are ``(curvature + delta_b) x - r_b``, with ``sum_b delta_b = 0``,
``sum_b r_b = 0``, ``E r_b^2 = C0`` (``batch_noise``) and ``E delta_b^2 = K`` (``hessian_noise``).

What is exact and what is not (docs/theory.md, B17 to B20):

* ``law="replacement"``: exact in C0 and K;
* C0 at K = 0 and the mean at first order in the coupling: exact, for every law, M and step size;
* K without replacement: exact to first order. The second moments P solve
  ``P = P_0 + C0 X + K (L P + l)`` (B19), where ``L P + l`` is the response to first order: terms
  in which two pairs of deltas interlock, and those of four batches at once, are left out.

C0 and K are those of the mode in its own units. The closed forms take ``C0 / curvature`` and
``K / curvature^2`` together with ``h curvature``.
"""

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.affine_mode import Mode, mode_of
from sgworld_mcmc.theory.order_averages import averaged_over_orders

__all__ = [
    "autocorrelation_time",
    "fixed_order_shift",
    "is_stable",
    "lag_correlation",
    "mean_shift",
    "relative_variance_error",
    "stationary_variance",
    "variance_parts",
]


def stationary_variance(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    batch_noise,
    hessian_noise=0.0,
    *,
    law: str,
    curvature: float = 1.0,
    temperature: float = 1.0,
):
    """Return the stationary variance of the position at the draws.

    Parameters
    ----------
    integrator
        Any integrator whose step is affine in the Hessian.
    step_size, num_batches
        Step size h and number of batches M.
    batch_noise, hessian_noise
        C0 and K; numbers or (Q,) arrays.
    law
        ``"replacement"``; ``"batches"`` and ``"examples"`` (draws at the ends of epochs);
        ``"all_phases"`` (draws after every step); ``"symmetric"`` (a sweep and its reverse, draws
        after both); ``"once"`` (one order in all epochs: the variance about its own mean, on
        average over orders).
    curvature, temperature
        Curvature of the mode, and temperature: the variance of the posterior is temperature /
        curvature.

    Raises
    ------
    ValueError
        If the law is unknown, a noise is negative, or the variance is infinite at the step size.

    Examples
    --------
    SGD with momentum has ``eta c (1 + beta) / [a (1 - beta) (2 (1 + beta) - eta a)]``:

    >>> from sgworld_mcmc.integrators.momentum import Momentum
    >>> step, noise = Momentum(momentum=0.5), 3.0
    >>> v = stationary_variance(step, 0.1, 10, noise, law="replacement", curvature=2.0)
    >>> print(f"{v:.6f} {0.1 * noise * 1.5 / (2 * 0.5 * (2 * 1.5 - 0.1 * 2)):.6f}")
    0.160714 0.160714
    """
    c0, k = np.broadcast_arrays(*(np.asarray(x, float) for x in (batch_noise, hessian_noise)))
    for name, value in (("batch_noise", c0), ("hessian_noise", k)):
        if not np.all(value >= 0):
            raise ValueError(f"{name} is a variance and cannot be negative, got {value}")
    mode = mode_of(integrator, step_size, curvature, temperature)
    if not _is_stable(mode, float(k.max(initial=0.0))):
        raise ValueError(
            f"step_size {step_size:.4g}: the stationary variance is infinite; take a smaller step"
        )
    alone, per_noise = _without_batches(mode), _answer_to_offsets(mode, num_batches, law)
    moments = alone + c0[..., None] * per_noise
    if k.any():
        slope, constant = _answer_to_hessians(mode, num_batches, law)
        source = moments + k[..., None] * constant
        matrix = np.eye(len(alone)) - k[..., None, None] * slope
        moments = np.linalg.solve(matrix, source[..., None])[..., 0]
    return (moments @ np.kron(mode.read, mode.read))[()]


def variance_parts(
    integrator: Integrator, step_size: float, num_batches: int, curvature: np.ndarray, *, law: str
) -> tuple[np.ndarray, np.ndarray]:
    """Return two (C,) parts of the variance of modes of several curvatures, all at one step size.

    They are the variance with full gradients, and what each unit of C0 adds to it; both are
    infinite where the step is not stable. The Hessians of the batches are all alike (K = 0).

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> alone, per_noise = variance_parts(Euler(), 0.1, 10, np.array([2.0]), law="replacement")
    >>> both = stationary_variance(Euler(), 0.1, 10, 3.0, law="replacement", curvature=2.0)
    >>> print(f"{alone[0] + 3 * per_noise[0]:.6f} {both:.6f}")
    0.638889 0.638889
    """
    flat = mode_of(integrator, step_size, 0.0)
    square = np.kron(flat.read, flat.read)
    alone, per_noise = np.full((2, len(curvature)), np.inf)
    for number, value in enumerate(curvature):
        mode = flat._replace(
            advance=flat.advance + value * flat.advance_slope,
            kick=flat.kick + value * flat.kick_slope,
        )
        if _is_stable(mode, 0.0):
            alone[number] = square @ _without_batches(mode)
            per_noise[number] = square @ _answer_to_offsets(mode, num_batches, law)
    return alone, per_noise


def relative_variance_error(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    batch_noise,
    hessian_noise=0.0,
    *,
    law: str,
    curvature: float = 1.0,
):
    """Return the relative error of the posterior variance; see :func:`stationary_variance`.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> errors = relative_variance_error(Euler(), 0.003, 100, [0.0, 100.0], law="batches")
    >>> print(" ".join(f"{error:.4f}" for error in errors))
    0.0015 0.0026
    """
    variance = stationary_variance(
        integrator, step_size, num_batches, batch_noise, hessian_noise, law=law, curvature=curvature
    )
    return curvature * variance - 1


def mean_shift(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    coupling,
    *,
    law: str,
    curvature: float = 1.0,
):
    """Return the shift of the mean by batches whose noise and Hessian are correlated (B20).

    ``coupling`` is ``E_b[delta_b r_b]``, any shape. With replacement there is no shift.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> print(f"{mean_shift(Euler(), 1e-4, 100, 2.0, law='batches') / 1e-4:.2f}")  # coupling / 2
    1.00
    """
    if law == "replacement":
        return 0.0 * np.asarray(coupling, float)[()]
    mode = mode_of(integrator, step_size, curvature)
    push = mode.push[:, None]
    # The mean moves by delta times the response of the state to r: both are marks of one batch.
    per_coupling = averaged_over_orders(
        mode.advance, mode.advance_slope, mode.advance, push, 0 * push, num_batches, law
    )
    return (float(mode.read @ per_coupling[:, 0]) * np.asarray(coupling, float))[()]


def fixed_order_shift(
    integrator: Integrator, step_size: float, num_batches: int, batch_noise, *, curvature=1.0
):
    """Return the mean square shift of the mean, over orders, for one order in all epochs."""
    mode = mode_of(integrator, step_size, curvature)
    moments = _answer_to_marks(mode, num_batches, "once")
    return (float(np.kron(mode.read, mode.read) @ moments) * np.asarray(batch_noise, float))[()]


def lag_correlation(
    integrator: Integrator, step_size: float, lag: int, *, curvature: float = 1.0
) -> tuple[float, float]:
    """Return the autocorrelations of x and of x^2 over ``lag`` steps, with full gradients.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.averaged import Averaged
    >>> lag_correlation(Averaged(), 0.5, 2)  # (1 + a) / 2 a, with a = 1/2
    (0.375, 0.140625)
    """
    mode = mode_of(integrator, step_size, curvature)
    covariance = _covariance(mode)
    later = np.linalg.matrix_power(mode.advance, lag) @ covariance
    correlation = float(mode.read @ later @ mode.read / (mode.read @ covariance @ mode.read))
    return correlation, correlation**2


def autocorrelation_time(
    integrator: Integrator, step_size: float, number: int, *, curvature: float = 1.0
) -> float:
    """Return the integrated autocorrelation time, in draws, of draws ``number`` steps apart.

    It is the longer one of the times of x and of x^2, with full gradients: where x oscillates, its
    mean is soon known and its variance is not.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> autocorrelation_time(Euler(), 0.5, 1)  # (1 + a) / (1 - a)
    3.0
    """
    mode = mode_of(integrator, step_size, curvature)
    covariance, read = _covariance(mode), mode.read
    variance = read @ covariance @ read
    power = np.linalg.matrix_power(mode.advance, number)
    answer = covariance @ read
    first = read @ _after_one(power, answer) / variance
    pairs = _after_one(np.kron(power, power), np.kron(answer, answer))
    second = np.kron(read, read) @ pairs / variance**2
    return float(1 + 2 * max(first, second))


def is_stable(
    integrator: Integrator, step_size: float, hessian_noise: float = 0.0, *, curvature: float = 1.0
) -> bool:
    """Return whether the variance is finite with replacement.

    The same limit is used without replacement.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> is_stable(Euler(), 0.99, 1.0), is_stable(Euler(), 1.01, 1.0)  # below 2 / (1 + K)
    (True, False)
    """
    return _is_stable(mode_of(integrator, step_size, curvature), hessian_noise)


def _is_stable(mode: Mode, hessian_noise: float) -> bool:
    if not hessian_noise:
        return bool(np.max(np.abs(np.linalg.eigvals(mode.advance))) < 1)
    slope = mode.advance_slope
    operator = np.kron(mode.advance, mode.advance) + hessian_noise * np.kron(slope, slope)
    return bool(np.max(np.abs(np.linalg.eigvals(operator))) < 1)


def _without_batches(mode: Mode) -> np.ndarray:
    """Return P_0, the (k^2,) second moments of the state with full gradients."""
    operator = np.kron(mode.advance, mode.advance)
    return np.linalg.solve(np.eye(len(operator)) - operator, (mode.kick @ mode.kick.T).ravel())


def _covariance(mode: Mode) -> np.ndarray:
    """Return the (k, k) covariance of the state with full gradients.

    If the integrator injects no noise, it is the covariance under white noise of the gradient.
    """
    size = len(mode.advance)
    if not mode.kick.any():
        mode = mode._replace(kick=mode.push[:, None])
    return _without_batches(mode).reshape(size, size)


def _answer_to_offsets(mode: Mode, num_batches: int, law: str) -> np.ndarray:
    """Return (k^2,) second moments per unit of C0; one fixed order shifts the mean instead."""
    if law == "once":
        return np.zeros(len(mode.advance) ** 2)
    return _answer_to_marks(mode, num_batches, law)


def _answer_to_marks(mode: Mode, num_batches: int, law: str) -> np.ndarray:
    a, push = mode.advance, mode.push[:, None]
    # s s^T grows by (A s) (push r)^T, its transpose, and push push^T r^2.
    moments = averaged_over_orders(
        np.kron(a, a),
        np.kron(a, push) + np.kron(push, a),
        a,
        push,
        np.kron(push, push),
        num_batches,
        law,
    )
    return moments[:, 0]


def _answer_to_hessians(mode: Mode, num_batches: int, law: str) -> tuple[np.ndarray, np.ndarray]:
    """Return L (k^2, k^2) and l (k^2,): K (L P + l) is added to the second moments P."""
    a, b, kick, turn = mode.advance, mode.advance_slope, mode.kick, mode.kick_slope
    first = np.kron(a, b) + np.kron(b, a)
    noise_first = (kick @ turn.T + turn @ kick.T).ravel()
    noise_second = (turn @ turn.T).ravel()
    moments = averaged_over_orders(
        np.kron(a, a),
        first,
        np.kron(a, a),
        np.column_stack([first, noise_first]),
        np.column_stack([np.kron(b, b), noise_second]),
        num_batches,
        law,
    )
    return moments[:, :-1], moments[:, -1]


def _after_one(power: np.ndarray, answer: np.ndarray) -> np.ndarray:
    """Return the sum of the powers 1, 2, ... of a matrix, times a vector."""
    return np.linalg.solve(np.eye(len(power)) - power, power @ answer)
