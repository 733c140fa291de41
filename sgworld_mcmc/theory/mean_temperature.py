"""The mean error of many modes: the temperature at which a sampler keeps its positions.

The configurational temperature <(x - c) . grad U> / D is one for the posterior, whatever it is
(docs/theory.md, K9). On a quadratic potential it is one plus the mean over the D modes of the
relative errors of their variances, which the affine recursion predicts.
"""

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.affine_recursion import variance_parts

__all__ = ["direction_errors", "mean_error", "temperature_error"]


def temperature_error(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    curvature: np.ndarray,
    weight: np.ndarray,
    noise: np.ndarray,
    *,
    law: str,
) -> float:
    """Return the mean relative error of the variances, infinite if the step is not stable (K10).

    Parameters
    ----------
    step_size, num_batches
        Step size h and number of batches M.
    curvature, weight
        (C,) curvatures, and the fraction of the D modes that have each of them.
    noise
        (C,) sum over the modes of a curvature, divided by D, of the variance C0 of the batches'
        gradients.
    law
        A name as in :func:`sgworld_mcmc.theory.affine_recursion.stationary_variance`.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.ubu import UBU
    >>> one, half = np.array([1.0, 100.0]), np.array([0.5, 0.5])
    >>> error = lambda law: temperature_error(UBU(2.0), 0.01, 100, one, half, 100 * one, law=law)
    >>> print(f"{error('replacement'):.3f} {error('symmetric'):.3f}")
    25.249 18.504
    """
    parts = variance_parts(integrator, step_size, num_batches, curvature, law=law)
    return mean_error(parts, curvature, weight, noise)


def mean_error(
    parts: tuple[np.ndarray, np.ndarray],
    curvature: np.ndarray,
    weight: np.ndarray,
    noise: np.ndarray,
) -> float:
    """Return the error of :func:`temperature_error` from the parts of the modes' variances.

    ``parts`` are those of :func:`sgworld_mcmc.theory.affine_recursion.variance_parts`: they hold
    for any noise.
    """
    alone, per_noise = parts
    if not np.isfinite(alone).all():
        return np.inf
    return float(np.sum(weight * (curvature * alone - 1) + noise * curvature * per_noise))


def direction_errors(
    parts: tuple[np.ndarray, np.ndarray], curvature: np.ndarray, rows_per_batch: float
) -> np.ndarray:
    """Return (C,) relative errors of the variances along single directions that the data determine.

    The noise of the rows there is the curvature (the information equality of a well-specified
    model), so that batches have C0 = ``rows_per_batch`` times it.

    Parameters
    ----------
    parts
        The parts of the variances, as in :func:`mean_error`.
    rows_per_batch
        N (1 / B - 1 / N) / tau for batches of B of N rows at the temperature tau.
    """
    alone, per_noise = parts
    return curvature * (alone + rows_per_batch * curvature * per_noise) - 1
