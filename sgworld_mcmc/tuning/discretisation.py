"""The error of the step size itself, from pilot chains: a h^2 for each variance and mean."""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.tuning.pilot import Pilot

__all__ = ["Discretisation", "fit_discretisation", "unmeasured"]

# A coefficient counts by what it exceeds its own standard error times this: the largest of many
# estimates of nothing is about two standard errors.
BENEFIT_OF_DOUBT = 1.5


class Discretisation(NamedTuple):
    """Error of full gradients with averaged noise, along Q directions, as a function of h.

    Attributes
    ----------
    variance, variance_error
        (Q,) a in the relative error a h^2 of the variance, and standard error.
    mean, mean_error
        (Q,) b in the shift b h^2 of the mean, in posterior standard deviations.
    displacement
        (Q,) posterior mean minus center, in posterior standard deviations.
    spread
        (Q,) posterior variance over that of the Gaussian at the center.
    largest
        No step above this size was stable.
    """

    variance: np.ndarray
    variance_error: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray
    displacement: np.ndarray
    spread: np.ndarray
    largest: float

    def errors(self, step_size: float) -> tuple[np.ndarray, np.ndarray]:
        """(Q,) relative error of the variance and shift of the mean to expect at a step size."""
        variance = _shrunk(self.variance, self.variance_error)
        mean = _shrunk(self.mean, self.mean_error)
        return variance * step_size**2, mean * step_size**2


def unmeasured(dimension: int) -> Discretisation:
    """What a Gaussian posterior has: no error at any step size up to one."""
    zero = np.zeros(dimension)
    return Discretisation(zero, zero, zero, zero, zero, zero + 1, 1.0)


def fit_discretisation(pilots: list[Pilot]) -> Discretisation:
    """Fit the coefficients to pilots at several step sizes, the smallest being the reference.

    A step size at which a chain diverged is out of the question, and any above a quarter of it.
    """
    pilots = sorted(pilots, key=lambda pilot: pilot.step_size)
    reference, rest = pilots[0], pilots[1:]
    failed = [pilot.step_size for pilot in pilots if pilot.diverged > 0]
    largest = min(failed) / 4 if failed else max(pilot.step_size for pilot in pilots)
    usable = [p for p in rest if p.step_size <= largest and np.isfinite(p.variance).all()]
    spread = np.maximum(reference.variance, 1e-12)
    sd = np.sqrt(spread)
    variance, variance_error = _fit(
        [p.step_size**2 - reference.step_size**2 for p in usable],
        [p.variance / spread - 1 for p in usable],
        [np.hypot(p.variance_error, reference.variance_error) / spread for p in usable],
    )
    mean, mean_error = _fit(
        [p.step_size**2 - reference.step_size**2 for p in usable],
        [(p.mean - reference.mean) / sd for p in usable],
        [np.hypot(p.mean_error, reference.mean_error) / sd for p in usable],
    )
    displacement = reference.mean / sd
    return Discretisation(
        variance, variance_error, mean, mean_error, displacement, spread, float(largest)
    )


def _fit(x, y, error):
    """Slope through the origin, (Q,), by weighted least squares, and its standard error."""
    if not x:
        return np.zeros(1), np.zeros(1)
    x, y = np.asarray(x)[:, None], np.asarray(y)
    weight = 1 / np.maximum(np.asarray(error), 1e-6) ** 2
    total = (weight * x**2).sum(0)
    return (weight * x * y).sum(0) / total, 1 / np.sqrt(total)


def _shrunk(value, error):
    return np.sign(value) * np.maximum(np.abs(value) - BENEFIT_OF_DOUBT * error, 0)
