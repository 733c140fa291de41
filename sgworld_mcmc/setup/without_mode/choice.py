"""Choose batch size, step size, friction and draw distance of kinetic dynamics from a spectrum.

The predicted error is the mean over all directions of the relative error of the variance, which is
the configurational temperature less one (docs/theory.md, K10). It is the error that functions of
many parameters feel. The directions that the data determine may be few, as in the small networks of
textbooks: their own mean error has a limit too.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.data.dealing import even_size
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.request import BATCH_SIZES
from sgworld_mcmc.setup.row_noise import batch_factor
from sgworld_mcmc.setup.without_mode.spectrum import Spectrum
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time, variance_parts
from sgworld_mcmc.theory.mean_temperature import (
    direction_errors,
    mean_error,
    temperature_error,
)

__all__ = ["KineticChoice", "choose_kinetic", "predicted_temperature_error"]

# Frictions that are tried, in units of the square root of the typical curvature.
FRICTIONS = (1.0, 2.0, 4.0)
# The largest step size, in units of one over the square root of the largest curvature. The step is
# stable up to 2 on a quadratic potential; others have a larger curvature elsewhere.
LARGEST_STEP = 0.7
# Step sizes that are tried are this far apart, and down to this fraction of the largest.
STEP_RATIO, SMALLEST_STEP = 2**0.25, 1e-4
# Directions whose curvature is this many times the typical one are determined by the data. Their
# variances may be off by DETERMINED times the tolerance on average: at the default their standard
# deviations are then off by 5 %.
STIFF, DETERMINED = 10.0, 5.0
# The cost of a step beyond its rows, in rows of gradient: random numbers, and for D parameters
# LAUNCH / D more, since the program's own overhead does not shrink with a row's gradient.
OVERHEAD, LAUNCH = 20.0, 15_000.0
# A draw may read rows times parameters up to this number, so that 1000 draws of four chains take
# about a minute on two cores; at least it takes one period of the order.
WORK = 2**22
# A draw takes no more than this many steps, unless one period of the order has more.
MOST_STEPS = 2000
# The integrated autocorrelation time, in draws, that the distance between draws aims at.
AUTOCORRELATION = 2.2


class KineticChoice(NamedTuple):
    """Settings of kinetic dynamics.

    Attributes
    ----------
    batch_size, num_batches, step_size, friction, steps_per_draw
        The settings, in the sampler's coordinates.
    error
        Predicted mean relative error of the variances.
    determined
        Predicted mean relative error of the variances along the directions that the data determine.
    met
        Whether both are within the tolerance.
    """

    batch_size: int
    num_batches: int
    step_size: float
    friction: float
    steps_per_draw: int
    error: float
    determined: float
    met: bool


def predicted_temperature_error(
    spectrum: Spectrum,
    settings: Settings,
    size: int,
    *,
    batch_size: int,
    step_size: float,
    friction: float,
    part: int | None = None,
) -> float:
    """Return the predicted error of the configurational temperature of a setting.

    An epoch visits all N rows, or a ``part`` of so many.
    """
    # The spectrum holds N times the variance of a row; the gradient is a sum of N rows.
    part = size if part is None else part
    factor = size * batch_factor(batch_size, part) / (settings.temperature or 1.0)
    return temperature_error(
        UBU(friction),
        step_size,
        -(-part // batch_size),
        spectrum.curvature,
        spectrum.weight,
        spectrum.noise * factor,
        law=settings.order.law,
    )


def choose_kinetic(
    spectrum: Spectrum,
    settings: Settings,
    size: int,
    dimension: int,
    *,
    factor: float,
    batch_size: int | None = None,
    friction: float | None = None,
    largest: float = np.inf,
    most_rows: int | None = None,
) -> KineticChoice:
    """Return the setting with the least cost for an effective draw within the tolerance.

    Parameters
    ----------
    size, dimension
        Number of rows N and dimension D.
    factor
        The errors are expected to be this many times the predicted ones.
    batch_size, friction
        Values that were chosen before; what the user has fixed is fixed in any case.
    largest
        The largest step size that may be chosen: chains have diverged at larger ones.
    most_rows
        The most rows that a batch may have; all rows by default.
    """
    batch_size = settings.batch_size or batch_size
    friction = settings.friction or friction
    sizes = [batch_size] if batch_size else _batch_sizes(size, most_rows or size)
    root = np.sqrt(spectrum.typical)
    frictions = [friction] if friction else [float(_rounded(x * root)) for x in FRICTIONS]
    found = []
    for b in sizes:
        for gamma in frictions:
            choice = _best_step(spectrum, settings, size, dimension, b, gamma, factor, largest)
            cost = _cost(spectrum, settings, size, dimension, choice)
            found.append(((not choice.met, cost if choice.met else choice.error), choice))
    return min(found, key=lambda each: each[0])[1]


def _rounded(value: float) -> float:
    """Return the power of sqrt(2) next to a value: compiled programs are stored by friction."""
    return 2 ** (round(2 * np.log2(value)) / 2)


def _batch_sizes(size: int, most: int) -> list[int]:
    sizes = [even_size(b, size) for b in BATCH_SIZES if b <= min(size / 2, most)]
    return sorted({*sizes, min(size, most)})


def _best_step(
    spectrum, settings, size, dimension, batch_size, friction, factor, largest
) -> KineticChoice:
    """Return the largest step within the tolerance, or else the smallest that is tried."""
    count = -(-size // batch_size)
    rows_per_batch = size * batch_factor(batch_size, size) / (settings.temperature or 1.0)
    law, integrator = settings.order.law, UBU(friction)

    def errors(h):
        parts = variance_parts(integrator, h, count, spectrum.curvature, law=law)
        noise = spectrum.noise * rows_per_batch
        mean = factor * mean_error(parts, spectrum.curvature, spectrum.weight, noise)
        if not abs(mean) <= settings.tolerance:
            return mean, np.inf
        return mean, _determined_error(spectrum, parts, rows_per_batch)

    def is_met(made):
        mean, determined = made
        return abs(mean) <= settings.tolerance and determined <= DETERMINED * settings.tolerance

    if settings.step_size is not None:
        step = settings.step_size
    else:
        largest = min(largest, LARGEST_STEP / np.sqrt(spectrum.largest))
        number = int(np.log(1 / SMALLEST_STEP) / np.log(STEP_RATIO))
        grid = largest * STEP_RATIO ** -np.arange(number + 1.0)
        low, high = 0, len(grid) - 1
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if is_met(errors(grid[middle])) else (middle + 1, high)
        step = float(grid[low])
    made = errors(step)
    steps = settings.steps_per_draw or _steps_per_draw(
        spectrum, step, friction, count, max(1, settings.order.period), size * dimension
    )
    return KineticChoice(batch_size, count, step, friction, steps, *made, bool(is_met(made)))


def _determined_error(spectrum, parts, rows_per_batch) -> float:
    """Return the mean error along the directions that the data determine; 0 if there are none.

    A direction counts by the part noise / curvature of it that the rows determine.
    """
    stiff = (spectrum.curvature >= STIFF * spectrum.typical) & (spectrum.noise > 0)
    part = (spectrum.noise / spectrum.curvature)[stiff]
    if not len(part):
        return 0.0
    each = direction_errors(parts, spectrum.curvature, rows_per_batch)[stiff]
    return float(np.sum(part * np.abs(each)) / part.sum())


def _steps_per_draw(spectrum, step, friction, count, period, work) -> int:
    """Return whole periods of epochs up to the wanted autocorrelation, as far as work allows."""
    unit = period * count
    most = max(1, int(min(WORK / (work * period), MOST_STEPS / unit)))
    number = 1
    while number < most:
        time = autocorrelation_time(UBU(friction), step, number * unit, curvature=spectrum.typical)
        if time <= AUTOCORRELATION:
            break
        number *= 2
    return min(number, most) * unit


def _cost(spectrum, settings, size, dimension, choice: KineticChoice) -> float:
    """Return the cost of an effective draw, in rows of gradient."""
    unit = max(1, settings.order.period) * choice.num_batches
    integrator = UBU(choice.friction)
    time = autocorrelation_time(integrator, choice.step_size, unit, curvature=spectrum.typical)
    return time * unit * (size / choice.num_batches + OVERHEAD + LAUNCH / dimension)
