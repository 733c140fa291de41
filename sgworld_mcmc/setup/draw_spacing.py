"""How many steps lie between draws, and how correlated the draws are then."""

from collections.abc import Callable

import numpy as np

from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time
from sgworld_mcmc.theory.autocorrelation import integrated_autocorrelation

__all__ = ["MOST_STEPS", "draw_spacing"]

# The integrated autocorrelation time, in draws, that the distance between draws aims at.
AUTOCORRELATION = 2.2
# A draw may take this many steps, or this many epochs if that is more: otherwise a run would not
# end.
MOST_STEPS, MOST_EPOCHS = 1000, 300


def draw_spacing(
    request: Request, step_size: float, count: int, inside: bool
) -> tuple[int, float] | None:
    """Return the number of steps between draws, and the draws' autocorrelation time in draws.

    The number is the smallest for which the autocorrelation time is about two draws. None if draws
    inside the epoch would be an epoch or more apart, or if a draw would take too long.
    """
    # With replacement the noise never cancels: any distance between draws will do.
    period = max(1, request.order.period) * count
    most = max(MOST_STEPS, MOST_EPOCHS * count)
    find = _spacing_of_matrices if request.integrator.law is None else _spacing_of_decay
    number, autocorrelation = find(request, step_size, most)
    if request.steps_per_draw is not None:
        return request.steps_per_draw, autocorrelation(request.steps_per_draw)
    if not inside:
        number = period * max(1, -(-number // period))
    elif count > 1 and number >= period and request.order.period:
        return None
    if number > most:
        return None
    return number, autocorrelation(number)


def _spacing_of_decay(request: Request, step_size: float, most: int) -> tuple[int, Callable]:
    """Return the steps between draws of overdamped dynamics, and a function of their number.

    The function returns the autocorrelation time of the draws.
    """
    decay = 1 - min(step_size * request.softest, 1.0)
    number = 1
    if decay > 0:
        # (1 + a) / (1 - a) = 2.2 for the decay a from draw to draw.
        wanted = (AUTOCORRELATION - 1) / (AUTOCORRELATION + 1)
        # A curvature next to nothing would take more steps than an integer holds.
        steps = np.log(wanted) / min(np.log(decay), -np.finfo(float).eps)
        number = max(1, int(np.ceil(steps - 1e-9)))
    return number, lambda number: integrated_autocorrelation(decay, number, request.integrator.law)


def _spacing_of_matrices(request: Request, step_size: float, most: int) -> tuple[int, Callable]:
    """Return the same for any other integrator; more than ``most`` if that is not enough."""

    def autocorrelation(number):
        return autocorrelation_time(
            request.integrator, step_size, number, curvature=request.softest
        )

    high = 1
    while high <= most and autocorrelation(high) > AUTOCORRELATION:
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if autocorrelation(middle) <= AUTOCORRELATION else (middle, high)
    return high, autocorrelation
