"""Choose batch size, gradient, step size and draw spacing, the cheapest within the tolerance.

The errors of every candidate are predicted for each parameter, from the theory
(:mod:`sgworld_mcmc.setup.batch_terms`) with measured noise and from the discretisation error that
pilot chains have shown. The cost is the number of rows read for each effective draw.
"""

from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from sgworld_mcmc.data.dealing import batch_count, even_size
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.protocols import Order
from sgworld_mcmc.setup.batch_noise import BatchNoise
from sgworld_mcmc.setup.draw_spacing import MOST_STEPS, draw_spacing
from sgworld_mcmc.setup.predict import Prediction, predict, scheme_of
from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.setup.row_noise import RowNoise
from sgworld_mcmc.setup.step_error import Discretisation

__all__ = ["Choice", "candidates", "choose"]

STEP_SIZES = np.geomspace(1.0, 1e-8, 93)
# The chosen setting allows for a partition into batches whose noise along one of so many directions
# is larger.
RARELY = 20


class Choice(NamedTuple):
    """A setting, and its predicted errors and cost.

    Attributes
    ----------
    gradient, batch_size, num_batches, step_size, steps_per_draw
        The setting; ``step_size`` is in the sampler's coordinates.
    scheme
        Name of the closed form that applies: the law of an order, or ``"all_phases"`` for draws
        inside epochs.
    examples
        Predicted number of rows read for each effective draw.
    prediction
        The predicted errors.
    met
        Whether the predicted errors are within the tolerance.
    """

    gradient: str
    batch_size: int
    num_batches: int
    step_size: float
    steps_per_draw: int
    scheme: str
    examples: float
    prediction: Prediction
    met: bool


def choose(request: Request, noise: RowNoise | BatchNoise, steps: Discretisation) -> Choice:
    """Return the cheapest setting whose predicted errors are within the tolerance.

    If there is none, return the cheapest setting within a larger tolerance, or else the one with
    the smallest predicted error. Whatever the request fixes stays fixed.
    """
    found = candidates(request, noise, steps)
    good = [choice for choice in found if choice.met]
    cost = partial(_cost, overhead=request.overhead)
    if good:
        return min(good, key=cost)
    if request.steps_per_draw is None:
        # Draws that stay correlated are better than draws with a larger error.
        slow = candidates(replace(request, steps_per_draw=MOST_STEPS), noise, steps)
        good = [choice for choice in slow if choice.met]
        if good:
            return min(good, key=cost)
    # The tolerance is out of reach: choose for a larger one.
    if request.tolerance < 10 and request.step_size is None:
        looser = choose(replace(request, tolerance=2 * request.tolerance), noise, steps)
        return looser._replace(met=False)
    if not found and request.steps_per_draw is None:
        return choose(replace(request, steps_per_draw=MOST_STEPS), noise, steps)
    if not found and request.step_size is not None:
        raise ValueError(
            f"`step_size` {request.step_size:.3g} is not stable with these settings, in the "
            "sampler's coordinates, or a draw takes too many steps. Take another one, or leave it "
            "to the package."
        )
    if not found:
        raise ValueError(
            "No step size is stable with these settings: the gradients' noise at the draws of the "
            "pilot chains is infinite. Leave `batch_size` and `gradient` to the package, or look "
            "for NaN in the model's gradient."
        )
    return min(found, key=lambda choice: (choice.prediction.worst(), cost(choice)))


def _cost(choice: Choice, overhead: float) -> float:
    steps = choice.examples / choice.batch_size
    return steps * (choice.batch_size * GRADIENTS[choice.gradient].cost + overhead)


def candidates(
    request: Request, noise: RowNoise | BatchNoise, steps: Discretisation
) -> list[Choice]:
    """Return the best choice for each kind of gradient, batch size and phase of the draws."""
    found = []
    for batch_size in _batch_sizes(request):
        count = batch_count(request.size, batch_size, request.shards_of(batch_size))
        kinds = request.gradients if count > 1 else request.gradients[:1]
        for kind in kinds:
            for inside in _phases(request, count):
                choice = _best_step(request, noise, steps, kind, batch_size, count, inside)
                if choice is not None:
                    found.append(choice)
    return found


def _batch_sizes(request: Request) -> list[int]:
    if request.batch_size is not None:
        return [request.batch_size]
    sizes = [
        even_size(size, request.size, request.shards)
        for size in request.batch_sizes
        if size <= request.size / 2
    ]
    if request.largest is not None:
        return [size for size in sizes if size <= request.largest] or [request.largest]
    return sorted({*sizes, request.size})


def _phases(request: Request, count: int) -> tuple[bool, ...]:
    """Return what to try: draws at the ends of epochs (False), inside them (True), or both."""
    if request.order.period == 0 or count == 1:
        return (True,)
    if request.steps_per_draw is not None:
        return (request.steps_per_draw % (request.order.period * count) != 0,)
    return (False, True)


def _best_step(request, noise, steps, kind, batch_size, count, inside) -> Choice | None:
    """Return the setting with the largest step that is within the tolerance.

    Half and a quarter of the step must be within it too. At one step size errors of opposite sign
    may happen to cancel in the sum over causes: a step is not trusted if smaller ones are worse.
    None if draws inside epochs are not possible, or if a draw would take too long.
    """
    scheme = scheme_of(request.order, count, inside)
    noise = _of_partition(noise, request.order, count)

    @cache
    def made(h):
        return predict(
            request, noise, steps, kind, batch_size=batch_size, step_size=h, scheme=scheme
        )

    if request.step_size is None:
        limit = min(1.0, steps.largest)
        grid = STEP_SIZES[STEP_SIZES <= limit] / request.stiffest
    else:
        grid = np.array([request.step_size])

    def is_met(h):
        return made(h) is not None and made(h).worst() <= request.tolerance

    # The grid runs from large to small steps: find the first good one by bisection.
    low, high = 0, len(grid)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_met(float(grid[middle])) else (middle + 1, high)
    start = min(low, len(grid) - 1)
    for h in map(float, grid[start:]):
        if made(h) is None:
            continue
        spacing = draw_spacing(request, h, count, inside)
        if spacing is None:  # a smaller step needs more steps between draws
            return None
        met = is_met(h) and (request.step_size is not None or all(is_met(h / k) for k in (2, 4)))
        if met or h == grid[-1]:
            number, autocorrelation = spacing
            examples = number * autocorrelation * batch_size
            return Choice(kind, batch_size, count, h, number, scheme, examples, made(h), met)
    return None


def _of_partition(noise: RowNoise | BatchNoise, order: Order, count: int) -> RowNoise | BatchNoise:
    """Return the noise that one partition of the rows into a few batches may have.

    Rows give the mean over partitions. Along a direction, the variance between the batches of a
    single one varies like chi^2 / (M - 1) with M - 1 degrees of freedom. The factor is the one that
    a partition exceeds along one direction of :data:`RARELY`.
    """
    if isinstance(noise, BatchNoise) or order.redeals or order.period == 0 or count == 1:
        return noise
    factor = chdtri(count - 1, 1 / RARELY) / (count - 1)
    scaled = ({kind: factor * x for kind, x in part.items()} for part in noise[:3])
    return RowNoise(*scaled, *noise[3:])
