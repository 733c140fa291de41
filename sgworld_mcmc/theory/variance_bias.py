"""Closed forms of the sampling bias of SGLD and SGWORLD at a finite step size.

Coordinates are whitened (the potential is ``|z|^2 / 2`` at the mode), ``h`` is the step size in
the BlackJAX convention ``z <- z - h g_b(z) + sqrt(2 h) xi``, ``M`` the number of minibatches in an
epoch and ``T = h M`` the time that an epoch spans. Two numbers describe the minibatches:

* ``C0``, the batch noise: variance of the batch gradient at the mode, a mean over coordinates
  (``C0 = M`` for a well-specified model without control variates);
* ``K``, the Hessian noise: ``trace E_b[(H_b - I)^2] / D``, with ``H_b`` the batch Hessians.

A direction of curvature ``lam`` is covered by ``h -> lam h`` and ``C0 -> C0 / lam``. The equation
numbers (B1)-(B13) are those of docs/theory.md, which derives the formulas. They were derived for
this package; the sampler is that of Adhikari et al., arXiv:2306.03521, the averaged noise that of
Leimkuhler & Matthews (2013).
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.theory.curvature_noise import hessian_term
from sgworld_mcmc.theory.time_functions import (
    all_phases_factor,
    bridge_factor,
    coth_excess,
    langevin_factor,
    symmetric_factor,
)

SCHEMES = ("replacement", "batches", "examples", "symmetric", "once", "all_phases")
NOISES = ("independent", "averaged")


class ErrorTerms(NamedTuple):
    """Coefficients of the relative variance error ``euler + batch * C0 + hessian * K``."""

    euler: np.ndarray
    batch: np.ndarray
    hessian: np.ndarray


def relative_variance_error(
    step_size, num_batches, batch_noise, hessian_noise=0.0, *, scheme, noise="independent"
):
    """Predict the relative error of the posterior variance, ``S - 1`` in whitened coordinates.

    Parameters
    ----------
    step_size : float or array
        Step size h in whitened coordinates (dimensionless), 0 < h < 2 / (1 + K).
    num_batches : int
        Minibatches per epoch, M.
    batch_noise, hessian_noise : float
        C0 and K of the module's introduction, both >= 0.
    scheme : str
        ``"replacement"`` (SGLD, exact); ``"batches"`` and ``"examples"`` (one formula, draws at
        the ends of epochs); ``"all_phases"`` (the same, draws after every step); ``"symmetric"``
        (a sweep and its reverse, draws after both); ``"once"`` (one order in all epochs: the
        variance about its own mean, averaged over orders; the mean is off by `once_mean_shift`).
    noise : str
        ``"independent"`` (default, plain Langevin noise) or ``"averaged"``, which removes the
        Euler term h/2.

    Returns
    -------
    float or array
        Relative error, positive where the sampler is too wide. The C0 and Euler terms are exact
        in h; the K term is exact in h for small K (below h = 0.01 of leading order in h) and
        multiplied by `large_noise_factor`. For ``"replacement"`` all terms are exact (B1).

    Raises
    ------
    ValueError
        If the step size is outside the range of mean-square stability, or a name is unknown.

    Examples
    --------
    >>> sgld = relative_variance_error(0.003, 100, 100.0, scheme="replacement")
    >>> sgworld = relative_variance_error(0.003, 100, 100.0, scheme="batches")
    >>> print(f"{sgld:.4f} {sgworld:.4f}")
    0.1517 0.0026
    """
    h = np.asarray(step_size, dtype=float)
    for name, value in (("batch_noise", batch_noise), ("hessian_noise", hessian_noise)):
        if not np.all(np.asarray(value) >= 0):
            raise ValueError(f"{name} is a variance and cannot be negative, got {value}")
    limit = stable_step_size(hessian_noise)
    if not np.all((h > 0) & (h < limit)):
        raise ValueError(
            f"step_size must lie between 0 and 2 / (1 + hessian_noise) = {limit:.4g}, where the "
            f"variance is finite; got {step_size}"
        )
    terms = variance_error_terms(h, num_batches, scheme=scheme, noise=noise)
    if scheme == "replacement":
        euler = h if noise == "independent" else 0.0
        return ((euler + h * batch_noise + h * hessian_noise) / (2 - h - h * hessian_noise))[()]
    hessian = terms.hessian * large_noise_factor(h, hessian_noise)
    return (terms.euler + terms.batch * batch_noise + hessian * hessian_noise)[()]


def variance_error_terms(step_size, num_batches, *, scheme, noise="independent"):
    """Split the predicted error by cause into Euler step, batch noise and Hessian noise (B5).

    The terms are linear in C0 and K, so they hold for matrices ``C`` and ``E[(H_b - I)^2]`` too.
    For ``"replacement"`` they are the part of B1 that is linear in K, with averaged noise.

    Examples
    --------
    >>> terms = variance_error_terms(0.003, 100, scheme="batches", noise="averaged")
    >>> print(terms.euler == 0, terms.batch > 0 > terms.hessian)
    True True
    """
    _check_names(scheme, noise, num_batches)
    h = np.asarray(step_size, dtype=float)
    euler = h / (2 - h) if noise == "independent" else np.zeros_like(h)
    if scheme == "replacement":
        return ErrorTerms(euler, h / (2 - h), h / (2 - h))
    hessian = hessian_term(h, num_batches, scheme=scheme, noise=noise)
    if scheme == "once":
        return ErrorTerms(euler, np.zeros_like(h), hessian)
    return ErrorTerms(euler, finite_batch_factor(h, num_batches, scheme=scheme), hessian)


def finite_batch_factor(step_size, num_batches, *, scheme="batches"):
    """Return the exact C0 coefficient of the variance for any step size h in (0, 2).

    With ``q = (1-h)^M`` it is ``M/(M-1) h/(2-h)`` times

    * ``1 - (2-h)/T (1-q)/(1+q)`` for ``"batches"`` and ``"examples"`` (B6),
    * ``1 + 2 h M (2-h) (1-h)^(2M-1) / (1-q^4) - (2-h)/T (1-q^2)/(1+q^2)`` for ``"symmetric"`` (B7),
    * ``1 - (2-h)/T + 2 (1-h) (1-q)/T^2`` for ``"all_phases"`` (B4),

    which tend to `bridge_factor`, `symmetric_factor` and `all_phases_factor` as h -> 0 at fixed T.
    """
    h, m = np.asarray(step_size, dtype=float), int(num_batches)
    if m == 1:
        return np.zeros_like(h)[()]
    # Small steps are computed with factors of l = -log(1-h), q = e^(-M l), arranged so that nothing
    # cancels; large steps as written above, since (1-h)^M may change sign.
    small = np.minimum(h, 0.5)
    lam = -np.log1p(-small)
    phi = bridge_factor(lam)
    q = (1 - h) ** m
    if scheme == "symmetric":
        g, sym, f = symmetric_factor(lam / 2), symmetric_factor(m * lam), bridge_factor(2 * m * lam)
        chi = 2 * phi - g
        top = sym * (1 - chi) - g + g * (2 * f - sym) + phi * (2 * phi - 2 * f + sym - g)
        fine = top / ((1 - phi) * (1 - chi))
        cross = 2 * m * h * (2 - h) * (1 - h) ** (2 * m - 1) / (1 - q**4)
        coarse = 1 + cross - (2 - h) / (h * m) * (1 - q**2) / (1 + q**2)
    elif scheme == "all_phases":
        y = coth_excess(lam / 2)[0]
        rest = (lam / 2) ** 2 - 2 * y - y**2
        fine = rest + (small - lam + 2 * y) / (small * m) + (1 - rest) * all_phases_factor(m * lam)
        coarse = 1 - (2 - h) / (h * m) + 2 * (1 - h) * (1 - q) / (h * m) ** 2
    else:
        fine = (bridge_factor(m * lam) - phi) / (1 - phi)
        coarse = 1 - (2 - h) / (h * m) * (1 - q) / (1 + q)
    return (m / (m - 1) * h / (2 - h) * np.where(h < 0.5, fine, coarse))[()]


def time_per_epoch(
    tolerance,
    num_batches,
    batch_noise=None,
    hessian_noise=0.0,
    *,
    scheme="batches",
    noise="independent",
    allow_cancellation=False,
):
    """Find the largest time per epoch T = h M whose predicted |variance error| meets a tolerance.

    Parameters
    ----------
    tolerance : float
        Relative error of the posterior variance that is allowed, > 0.
    num_batches : int
        Minibatches per epoch, M.
    batch_noise : float, optional
        Batch noise C0; default M, that of a well-specified model with plain gradients (then T is
        about ``(24 tolerance)^(1/3)`` for SGWORLD and ``2 tolerance`` for SGLD). With control
        variates it is 0.
    hessian_noise : float
        Hessian noise K.
    scheme, noise : str
        As in `relative_variance_error`. For ``"once"`` the error is that of the second moment
        about the exact mean, since its variance alone does not show the shifted mean.
    allow_cancellation : bool
        The K term is negative below T = 1.8, so that |error| may leave the tolerance and come
        back where it cancels the others. By default such a T is not used, because the balance
        holds for the mean over coordinates and not for each of them: every smaller T meets the
        tolerance too. If True, the largest T is returned, whatever the error at smaller ones.

    Returns
    -------
    float
        T, at most M (h = 1: with a larger step the mode is overshot and mixing gets worse) and at
        most 0.999 of the stability limit.

    Examples
    --------
    >>> sgworld = time_per_epoch(0.01, 1000)
    >>> sgld = time_per_epoch(0.01, 1000, scheme="replacement")
    >>> print(f"{sgworld:.2f} {sgld:.3f}")
    0.62 0.020
    """
    if not tolerance > 0:
        raise ValueError(f"tolerance must be a positive relative error such as 0.01, {tolerance=}")
    # SciPy takes as long to import as the rest of the package.
    from scipy.optimize import brentq

    c0 = float(num_batches if batch_noise is None else batch_noise)

    def excess(h):
        kwargs = {"scheme": scheme, "noise": noise}
        error = relative_variance_error(h, num_batches, c0, hessian_noise, **kwargs)
        if scheme == "once":
            error = error + once_mean_shift(h, num_batches, c0)
        return np.abs(error) - tolerance

    top = min(1.0, 0.999 * stable_step_size(hessian_noise))
    # The grid is dense enough to bracket every crossing: |error| turns at most twice, near T of
    # order one.
    grid = np.geomspace(1e-6 * min(tolerance, 1) / (1 + c0 + hessian_noise), top, 1000)
    bad = np.flatnonzero(excess(grid) > 0)
    if allow_cancellation:
        good = np.flatnonzero(excess(grid) <= 0)
        left = good[-1]
    else:
        left = bad[0] - 1 if bad.size else grid.size - 1
    if left == grid.size - 1:
        return float(top * num_batches)
    return float(brentq(excess, grid[left], grid[left + 1], xtol=1e-16, rtol=1e-13) * num_batches)


def autocorrelation_epochs(time):
    """Return the integrated autocorrelation time of draws at epoch ends, coth(T/2) epochs (B8).

    >>> print(f"{autocorrelation_epochs(0.62):.1f}")
    3.3
    """
    time = np.asarray(time, dtype=float)
    return (1 / np.tanh(time / 2))[()]


def once_mean_shift(step_size, num_batches, batch_noise):
    """Return the mean square shift of one coordinate's mean for one order in all epochs (B9).

    It is (h C0/2) (coth(T/2) - 2/T), an average over orders in squared posterior standard
    deviations.
    """
    time = np.asarray(step_size, dtype=float) * num_batches
    return (step_size * batch_noise / 2 * langevin_factor(time / 2))[()]


def order_mean_shift(step_size, num_batches, coupling, *, scheme="batches"):
    """Return the shift of the mean at the ends of epochs, with fresh or symmetric orders (B10).

    ``coupling`` is ``E_b[(H_b - I) r_b]``, with ``-r_b`` the batch gradient at the mode; any
    shape. The shift ``h coupling [1/T - 1/(e^T - 1)]``, in posterior standard deviations, is
    ``h coupling / 2`` for small T: the gradient of the ``(h/4) trace C`` of the effective loss.
    For draws at all phases it is ``h coupling [1/T - (1 - e^-T)/T^2]``, the same for small T.
    """
    time = np.asarray(step_size, dtype=float) * num_batches
    if scheme == "all_phases":
        rest = all_phases_factor(time)
    else:
        rest = langevin_factor(time / 2)  # 1/T - 1/(e^T - 1) = 1/2 - L(T/2)/2
    return (step_size * np.asarray(coupling) * (1 - rest) / 2)[()]


def epoch_noise_error(time, *, split=False):
    """Return the variance error from an epoch's noise injected at once, at h -> 0 (B11).

    Gradients are full ones. For noise at the end of the epoch the error is
    2T/(1 - e^-2T) - 1 = T + T^2/3 + ...; for half of it before and half after (``split=True``) it
    is T coth T - 1 = T^2/3 + .... For this reason the package injects noise at every step.
    """
    time = np.asarray(time, dtype=float)
    y = coth_excess(time)[0]
    return (y if split else y + time)[()]


def leverage_hessian_noise(leverages, batch_size):
    """Return K of a generalised linear model from its leverages l_i, which sum to D (B12).

    K = (N-B)/(B(N-1)) (N sum_i l_i^2 / D - 1), about (D+1)/B for Gaussian features.
    """
    leverages = np.asarray(leverages, dtype=float)
    n, dim = leverages.size, leverages.sum()
    return (n - batch_size) / (batch_size * (n - 1)) * (n * np.sum(leverages**2) / dim - 1)


def large_noise_factor(step_size, hessian_noise):
    """Return (2 - h)/(2 - h - h K), the factor by which the K term exceeds its linear part.

    It is exact with replacement (B1). Without, it is an approximation that diverges at the same
    step size.
    """
    return (2 - step_size) / (2 - step_size - step_size * np.asarray(hessian_noise))


def stable_step_size(hessian_noise=0.0):
    """Return the mean-square stability limit 2/(1 + K) of the whitened step size (B1)."""
    return 2.0 / (1.0 + hessian_noise)


def control_variate_step_size(tolerance, hessian_noise):
    """Return the step size 2 eps/(eps + K (1 + eps)) at which the error is eps if C0 = 0 (B1).

    This is the inverse of `relative_variance_error` with replacement and averaged noise.
    """
    return 2 * tolerance / (tolerance + hessian_noise * (1 + tolerance))


def _check_names(scheme, noise, num_batches):
    if scheme not in SCHEMES:
        raise ValueError(f"unknown scheme {scheme!r}: choose one of {', '.join(SCHEMES)}")
    if noise not in NOISES:
        raise ValueError(f"unknown noise {noise!r}: choose one of {', '.join(NOISES)}")
    if int(num_batches) != num_batches or num_batches < 1:
        raise ValueError(f"num_batches must be a positive whole number, got {num_batches}")
