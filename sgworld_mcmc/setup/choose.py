"""Choose batch size, gradient, step size and draw spacing, the cheapest within the tolerance.

The errors of every candidate are predicted for each parameter, from the theory
(:mod:`sgworld_mcmc.setup.batch_terms`) with measured noise and from the discretisation error that
pilot chains have shown. The cost is the number of rows read for each effective draw.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from scipy.special import chdtri

from sgworld_mcmc.checks import check_choice
from sgworld_mcmc.data.dealing import even_size
from sgworld_mcmc.protocols import Integrator, Order
from sgworld_mcmc.settings import GRADIENTS
from sgworld_mcmc.setup.batch_noise import BatchNoise
from sgworld_mcmc.setup.batch_terms import batch_terms
from sgworld_mcmc.setup.row_noise import RowNoise, batch_factor
from sgworld_mcmc.setup.step_error import Discretisation
from sgworld_mcmc.theory.affine_recursion import autocorrelation_time
from sgworld_mcmc.theory.autocorrelation import integrated_autocorrelation

__all__ = [
    "Choice",
    "Prediction",
    "Request",
    "candidates",
    "choose",
    "draw_spacing",
    "predict",
    "scheme_of",
]

BATCH_SIZES = (10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
STEP_SIZES = np.geomspace(1.0, 1e-8, 93)
# The cost of a step beyond its rows, in rows of gradient: even the smallest batch pays for random
# numbers, products with the preconditioner and the loop itself.
OVERHEAD = 10.0
# A shift of a mean by this many posterior standard deviations counts as a relative error of the
# variance of one. (Errors in the ratio sqrt(2) : 1 give a Gaussian the same divergence; a mean is
# given a little more.)
MEAN_PER_VARIANCE = 2.0
# Noise that grows towards the tails widens them more than the variance. Where parameters are
# transformed, exp(z) say, the tails decide. Their error may be this many times that of the
# variance.
TAIL_PER_VARIANCE = 2.0
# The chosen setting allows for a partition into batches whose noise along one of so many directions
# is larger.
RARELY = 20
# The integrated autocorrelation time, in draws, that the distance between draws aims at.
AUTOCORRELATION = 2.2
# A draw may take this many steps, or this many epochs if that is more: otherwise a run would not
# end.
MOST_STEPS, MOST_EPOCHS = 1000, 300


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is given to the choice: size of the data, kind of sampler, and what the user has fixed.

    Attributes
    ----------
    size
        Number of rows N.
    order, integrator
        The order of the batches and the integrator, as objects.
    tolerance
        Relative error of the posterior variance that is allowed.
    batch_size, step_size, steps_per_draw
        A number, or None to choose; the step size is in the whitened coordinates of the sampler.
    gradients
        The names of the kinds of gradient to choose from.
    stiffest, softest
        Largest and smallest curvature in the sampler's coordinates: both 1 if the preconditioner
        is the inverse Hessian.
    batch_sizes
        The sizes of batches to choose from, beside that of all rows.
    overhead
        The cost of a step beyond its rows, in rows of gradient.
    """

    size: int
    order: Order
    integrator: Integrator
    tolerance: float
    batch_size: int | None
    step_size: float | None
    steps_per_draw: int | None
    gradients: tuple[str, ...]
    stiffest: float
    softest: float
    batch_sizes: tuple[int, ...] = BATCH_SIZES
    overhead: float = OVERHEAD


class Prediction(NamedTuple):
    """Predicted errors along Q directions, and their parts.

    Attributes
    ----------
    variance_error
        (Q,) relative error of the posterior variance.
    mean_shift
        (Q,) shift of the posterior mean, in posterior standard deviations.
    parts
        Maps the name of a cause to its (Q,) part of ``variance_error``.
    tail_error
        (Q,) the value that ``variance_error`` would have if the curvature noise had everywhere
        the size that it has in the tails.
    """

    variance_error: np.ndarray
    mean_shift: np.ndarray
    parts: dict[str, np.ndarray]
    tail_error: np.ndarray | float = 0.0

    def worst(self) -> float:
        """Return the largest error, in units of variance: it is compared with the tolerance."""
        return float(
            max(
                np.abs(self.variance_error).max(),
                np.abs(self.mean_shift).max() / MEAN_PER_VARIANCE,
                np.abs(self.tail_error).max() / TAIL_PER_VARIANCE,
            )
        )


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


def _cost(choice: Choice, overhead: float = OVERHEAD) -> float:
    steps = choice.examples / choice.batch_size
    return steps * (choice.batch_size * GRADIENTS[choice.gradient].cost + overhead)


def candidates(
    request: Request, noise: RowNoise | BatchNoise, steps: Discretisation
) -> list[Choice]:
    """Return the best choice for each kind of gradient, batch size and phase of the draws."""
    found = []
    for batch_size in _batch_sizes(request):
        count = -(-request.size // batch_size)
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
        even_size(size, request.size) for size in request.batch_sizes if size <= request.size / 2
    ]
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


def scheme_of(order: Order, count: int, inside: bool) -> str:
    """Return the name of the closed form that holds for draws inside epochs or at their ends."""
    return "all_phases" if inside and count > 1 and order.period else order.law


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
        number = max(1, int(np.ceil(np.log(wanted) / np.log(decay) - 1e-9)))
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


def predict(
    request: Request,
    noise: RowNoise | BatchNoise,
    steps: Discretisation,
    kind: str,
    *,
    batch_size: int,
    step_size: float,
    scheme: str,
) -> Prediction | None:
    """Predict the errors of one setting (docs/theory.md, B1, B5, B10, B13 to B15).

    None if the setting is not stable. For an integrator without closed forms the errors are those
    on a Gaussian posterior (B19, B20).

    Parameters
    ----------
    kind
        A name in :data:`sgworld_mcmc.settings.GRADIENTS`.
    step_size
        Step size in the sampler's coordinates.
    scheme
        A name as in :func:`sgworld_mcmc.theory.variance_bias.relative_variance_error`.
    """
    check_choice("gradient", kind, tuple(GRADIENTS))
    noise = noise.at(batch_size)
    if noise is None:
        return None
    count = -(-request.size // batch_size)
    factor = batch_factor(batch_size, request.size) / request.stiffest
    batch = noise.center[kind] * factor
    hessian = np.maximum(noise.mean[kind] * factor - batch, 0)
    terms = batch_terms(
        request.integrator,
        step_size,
        count,
        batch,
        hessian,
        scheme=scheme,
        curvature=request.stiffest,
    )
    if terms is None:
        return None
    parts = terms.parts
    # A wider distribution feels more of the posterior's skewness: its mean moves farther away
    # from the mode.
    shift = steps.displacement * (parts["batch noise"] + parts["curvature noise"])
    if request.integrator.law is not None:
        # Pilot chains have measured what a posterior that is no Gaussian adds. They measure it for
        # overdamped dynamics only.
        nonlinear, moved = steps.errors(step_size * request.stiffest)
        parts["step size"] = nonlinear + np.zeros_like(batch)
        shift = shift + moved
    if GRADIENTS[kind].needs == 0 and request.order.period and count > 1:
        moved = terms.moved * batch_factor(batch_size, request.size)
        shift = shift + moved * noise.coupling
        parts["shifted mean"] = moved * noise.widening + np.zeros_like(batch)
    shift = shift + terms.wandering
    error = sum(parts.values())
    # The noise in the tails beyond its mean; less noise there than on average earns nothing.
    excess = np.maximum(noise.tail[kind] * factor - batch - hessian, 0)
    return Prediction(error, shift, parts, error + terms.gain * excess)
