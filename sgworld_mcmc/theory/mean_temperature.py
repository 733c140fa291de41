"""The mean error of many modes: the temperature at which a sampler keeps its positions.

The configurational temperature <(x - c) . grad U> / D is one for the posterior, whatever it is
(docs/theory.md, K9). On a quadratic potential it is one plus the mean over the D modes of the
relative errors of their variances, which the affine recursion predicts.
"""

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.affine_recursion import stationary_variance

__all__ = ["direction_errors", "temperature_error"]


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
    total = 0.0
    for value, part, spread in zip(curvature, weight, noise, strict=True):
        try:
            # The variance is linear in the noise of the gradients.
            alone, noisy = stationary_variance(
                integrator, step_size, num_batches, [0.0, 1.0], law=law, curvature=float(value)
            )
        except ValueError:
            return np.inf
        total += part * (value * alone - 1) + spread * value * (noisy - alone)
    return float(total)


def direction_errors(
    integrator: Integrator,
    step_size: float,
    num_batches: int,
    curvature: np.ndarray,
    rows_per_batch: float,
    *,
    law: str,
) -> np.ndarray:
    """Return (C,) relative errors of the variances along single directions that the data determine.

    The noise of the rows there is the curvature (the information equality of a well-specified
    model), so that batches have C0 = ``rows_per_batch`` times it.

    Parameters
    ----------
    rows_per_batch
        N (1 / B - 1 / N) / tau for batches of B of N rows at the temperature tau.
    """
    errors = np.full(len(curvature), np.inf)
    for number, value in enumerate(curvature):
        try:
            variance = stationary_variance(
                integrator,
                step_size,
                num_batches,
                rows_per_batch * float(value),
                law=law,
                curvature=float(value),
            )
        except ValueError:
            continue
        errors[number] = value * variance - 1
    return errors
