"""Estimate the error of the step size itself, a h^2 for each variance and mean, from pilots."""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.theory.shrinkage import pool_parts

__all__ = [
    "Discretisation",
    "fit_discretisation",
    "is_in_range",
    "unmeasured",
    "without_step",
]

# This many standard errors are subtracted from the size of each coefficient: if the true ones are
# zero, the largest of a few estimates is about two standard errors.
BENEFIT_OF_DOUBT = 1.5
# The error grows as h^2 only while it is small. A variance twice as large, or a mean that is off by
# a standard deviation, is out of range, if it is so by more than SIGMAS standard errors.
RANGE, SIGMAS = 1.0, 2.0
# The smallest variance that is divided by.
TINY = 1e-12


class Discretisation(NamedTuple):
    """Error of full gradients beyond that on a Gaussian, along Q directions, as a function of h.

    Attributes
    ----------
    variance, variance_error
        (Q,) coefficient a in the relative error a h^2 of the variance, and its standard error. All
        directions are judged together (:func:`sgworld_mcmc.theory.shrinkage.pool`).
    mean, mean_error
        (Q,) coefficient b in the shift b h^2 of the mean, in posterior standard deviations, and
        its standard error, found in the same way.
    displacement
        (Q,) posterior mean minus center, in posterior standard deviations.
    spread
        (Q,) posterior variance over that of the Gaussian at the center.
    largest
        The largest step size that may be used: pilots have not shown a larger one to be stable.
    """

    variance: np.ndarray
    variance_error: np.ndarray
    mean: np.ndarray
    mean_error: np.ndarray
    displacement: np.ndarray
    spread: np.ndarray
    largest: float

    def errors(self, step_size: float) -> tuple[np.ndarray, np.ndarray]:
        """Return (Q,) errors to expect at a step size: of the variance, relative, and the mean."""
        variance = _shrunk(self.variance, self.variance_error)
        mean = _shrunk(self.mean, self.mean_error)
        return variance * step_size**2, mean * step_size**2


def unmeasured(dimension: int) -> Discretisation:
    """Return the discretisation of a Gaussian posterior: no error at any step size up to one."""
    zero = np.zeros(dimension)
    return Discretisation(zero, zero, zero, zero, zero, zero + 1, 1.0)


def fit_discretisation(
    pilots: list[Pilot],
    independent: float | None = None,
    parts: tuple[tuple[np.ndarray, float], ...] | None = None,
    margin: float = 4.0,
) -> Discretisation:
    """Fit the coefficients to pilots at several step sizes, of which the smallest is the reference.

    Parameters
    ----------
    pilots
        If a chain diverged, or if the error was out of range, only step sizes smaller by ``margin``
        than its own are used: between the two there may be any error.
    independent
        Number of independent directions that the Q directions are worth; default Q.
    margin
        The curvature at the draws of a few parameters varies, and a longer run sees larger values.
        Where thousands of parameters share in it, it is nearly the same at all draws.
    parts
        The parts of the directions that are judged together, as for
        :func:`~sgworld_mcmc.theory.shrinkage.pool_parts`; by default they are all one part.
    """
    pilots = sorted(pilots, key=lambda pilot: pilot.step_size)
    reference, rest = pilots[0], pilots[1:]
    failed = [p.step_size for p in pilots if p.diverged > 0 or not is_in_range(reference, p)]
    largest = min(failed) / margin if failed else max(pilot.step_size for pilot in pilots)
    usable = [p for p in rest if p.step_size < min(failed, default=np.inf)]
    squares = [p.step_size**2 for p in (reference, *usable)]
    variances, means = zip(*(_relative(reference, p) for p in (reference, *usable)), strict=True)
    independent = len(reference.mean) if independent is None else independent
    if parts is None or len(squares) < 2:
        parts = ((slice(None), independent),)
    variance, variance_error = pool_parts(*_slope(squares, variances), parts)
    if len(squares) < 2 and failed and reference.diverged == 0:
        # Nothing was measured below the step that failed. There the error was out of range.
        variance = np.full(len(reference.mean), RANGE / min(failed) ** 2)
    mean, mean_error = pool_parts(*_slope(squares, means), parts)
    found = Discretisation(variance, variance_error, mean, mean_error, mean, mean, float(largest))
    # The error of the reference itself is taken out.
    grown, moved = found.errors(reference.step_size)
    spread = np.maximum(reference.variance, TINY)
    displacement = reference.mean / np.sqrt(spread) - moved
    # If all chains were lost, nothing is known: the values are those of the Gaussian.
    return found._replace(
        displacement=np.nan_to_num(displacement),
        spread=np.nan_to_num(spread / np.maximum(1 + grown, 0.5), nan=1.0),
    )


def without_step(pilot: Pilot, steps: Discretisation) -> Pilot:
    """Return the moments at a step size of zero, with the errors of this pilot.

    They are the reference to which pilots of another integrator are fitted.
    """
    mean = steps.displacement * np.sqrt(steps.spread)
    return pilot._replace(step_size=0.0, mean=mean, variance=steps.spread, diverged=0.0)


def is_in_range(reference: Pilot, larger: Pilot) -> bool:
    """Return whether the errors at the larger step size are small enough to grow as its square."""
    pairs = zip(_relative(reference, reference), _relative(reference, larger), strict=True)
    return all(
        np.all(np.abs(value) - SIGMAS * np.hypot(error, error_of_reference) <= RANGE)
        for (_, error_of_reference), (value, error) in pairs
    )


def _relative(reference: Pilot, pilot: Pilot):
    """Return the differences of a pilot's variance and mean from the reference's, with errors.

    The first pair is the (Q,) relative difference of the variance and its standard error, the
    second that of the mean in standard deviations. The errors are the pilot's own: the error of
    the reference is common to all pilots.
    """
    spread = np.maximum(reference.variance, TINY)
    sd = np.sqrt(spread)
    return (
        (pilot.variance / spread - 1, pilot.variance_error / spread),
        ((pilot.mean - reference.mean) / sd, pilot.mean_error / sd),
    )


def _slope(x, measured):
    """Return (Q,) slopes of weighted least squares with an intercept, and standard errors."""
    if len(x) < 2:
        return np.zeros(1), np.zeros(1)
    y, error = (np.asarray(part) for part in zip(*measured, strict=True))
    weight = 1 / np.maximum(error, 1e-6) ** 2
    x = np.asarray(x)[:, None] - (weight * np.asarray(x)[:, None]).sum(0) / weight.sum(0)
    total = (weight * x**2).sum(0)
    return (weight * x * y).sum(0) / total, 1 / np.sqrt(total)


def _shrunk(value, error):
    return np.sign(value) * np.maximum(np.abs(value) - BENEFIT_OF_DOUBT * error, 0)
