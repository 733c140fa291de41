"""The errors that batches and step size cause on a Gaussian posterior.

They follow from closed forms (:mod:`sgworld_mcmc.theory.variance_bias`) for the integrators that
name one by their ``law``, and from the affine recursion of the integrator's matrices
(:mod:`sgworld_mcmc.theory.affine_recursion`) for all others.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory import affine_recursion
from sgworld_mcmc.theory.variance_bias import (
    large_noise_factor,
    once_mean_shift,
    order_mean_shift,
    stable_step_size,
    variance_error_terms,
)

__all__ = ["BatchTerms", "batch_terms"]

# The gain is measured with at least this much Hessian noise: its effect is still of first order,
# and yet far above rounding.
LITTLE = 1e-5


class BatchTerms(NamedTuple):
    """Relative errors of variances and shifts of means on Gaussian modes.

    Attributes
    ----------
    parts
        Maps the name of a cause to the (Q,) relative error of the variance that it causes.
    gain
        (Q,) relative error of the variance for each unit of Hessian noise.
    moved
        Shift of the mean for each unit of coupling between noise and Hessian of a batch.
    wandering
        (Q,) root mean square shift of the mean if one order of the batches is kept for the whole
        run; 0 for all other orders.
    """

    parts: dict[str, np.ndarray]
    gain: np.ndarray
    moved: float
    wandering: np.ndarray | float


def batch_terms(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    batch: np.ndarray,
    hessian: np.ndarray,
    *,
    scheme: str,
    curvature: float,
) -> BatchTerms | None:
    """Return the terms of one setting, or None if the variance is infinite.

    Parameters
    ----------
    step_size
        Step size in the sampler's coordinates.
    batch, hessian
        (Q,) noise of the batch gradient, C0 / curvature, and of its Hessian, K / curvature^2.
    scheme
        A name as in :func:`sgworld_mcmc.theory.variance_bias.relative_variance_error`.
    curvature
        Curvature of the potential at the mode.
    """
    find = _from_matrices if integrator.law is None else _closed
    return find(integrator, step_size, num_batches, batch, hessian, scheme, curvature)


def _closed(integrator, step_size, count, batch, hessian, scheme, curvature) -> BatchTerms | None:
    h = step_size * curvature
    if h >= min(2.0, stable_step_size(float(hessian.max()))):
        return None
    terms = variance_error_terms(h, count, scheme=scheme, noise=integrator.law)
    if scheme == "replacement":
        gain = h / (2 - h - h * hessian)
        parts = {"batch noise": gain * batch, "curvature noise": gain * hessian}
    else:
        gain = terms.hessian * large_noise_factor(h, hessian)
        parts = {"batch noise": terms.batch * batch, "curvature noise": gain * hessian}
    parts["Euler step"] = terms.euler + np.zeros_like(batch)
    moved = order_mean_shift(h, count, 1 / curvature, scheme=scheme)
    wandering = np.sqrt(once_mean_shift(h, count, batch)) if scheme == "once" else 0.0
    return BatchTerms(parts, gain, moved, wandering)


def _from_matrices(
    integrator, step_size, count, batch, hessian, scheme, curvature
) -> BatchTerms | None:
    c0, k = batch * curvature, hessian * curvature**2
    largest = float(np.max(k))
    if not np.isfinite([largest, float(np.max(c0))]).all():
        return None
    if not affine_recursion.is_stable(integrator, step_size, largest, curvature=curvature):
        return None

    def error(c0, k):
        return affine_recursion.relative_variance_error(
            integrator, step_size, count, c0, k, law=scheme, curvature=curvature
        )

    some = np.maximum(hessian, LITTLE)
    alone, curved, both = error(0.0, 0.0), error(0.0, k), error(c0, k)
    # Where there is no Hessian noise, a little is assumed: the gain says what noise in the tails
    # would do.
    gain = (error(0.0, some * curvature**2) - alone) / some
    parts = {
        "batch noise": both - curved,
        "curvature noise": curved - alone,
        "step size of the integrator": alone + np.zeros_like(batch),
    }
    moved, wandering = 0.0, 0.0
    if count > 1:
        # Along a parameter the curvature is about one even where its stiffest direction has more.
        moved = affine_recursion.mean_shift(
            integrator, step_size, count, curvature, law=scheme, curvature=curvature
        )
    if scheme == "once" and count > 1:
        square = affine_recursion.fixed_order_shift(
            integrator, step_size, count, c0, curvature=curvature
        )
        wandering = np.sqrt(curvature * square)
    return BatchTerms(parts, gain, moved, wandering)
