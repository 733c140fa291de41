"""Make a plan from what a set-up has found: its dynamics, its tuning, and the record of both.

Rows in memory, streamed rows and rows on several hosts are searched and measured each in their own
way; these steps are the same for all of them.
"""

from typing import Any

import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.dealing import batch_count, is_shared
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import ArrayTree, Coordinates, Feed
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.sampling.lagged_moments import MAX_COORDINATES
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.choose import Choice
from sgworld_mcmc.setup.measurements import Measurements, measure
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws
from sgworld_mcmc.setup.precision import Precision
from sgworld_mcmc.setup.run_batches import controls_of, reach_of
from sgworld_mcmc.setup.run_plan import RunPlan, Tuning

__all__ = ["cast_tuning", "dynamics_of", "explore", "make_plan", "tuning_of"]

# A chain farther from the center than this, in posterior standard deviations, has diverged.
FARTHEST = 1e4
# The offsets of the batches are kept up to this many numbers (M x D); above, every step computes
# them again.
CACHE = 2**26


def explore(
    generator: np.random.Generator,
    posterior: Posterior,
    settings: Settings,
    *,
    always: bool = False,
) -> tuple[Posterior, Measurements | None, np.ndarray]:
    """Measure what the choice of the settings rests on, and find starts.

    Parameters
    ----------
    always
        Whether to measure also where nothing is to be chosen.

    Returns
    -------
    posterior
        The posterior in the coordinates that the run will use.
    measurements
        What was measured in them, or None.
    starts
        (P, D) positions from which chains start.
    """
    measurements = None
    if always or not settings.complete:
        searched = settings.start != "given"
        adapt = settings.adapt and posterior.fit.curved and searched and not settings.complete
        given = settings.integrator, adapt, settings.batch_size, settings.order.redeals
        posterior, measurements = measure(generator, posterior, *given)
    if settings.complete:
        starts = gaussian_draws(generator, posterior) * np.sqrt(settings.temperature)
    else:
        starts = measurements.starts
    return posterior, measurements, starts


def dynamics_of(
    settings: Settings,
    view: MinibatchModel,
    choice: Choice | None,
    coordinates: Coordinates,
    numbers: int = 0,
) -> tuple[Dynamics, float]:
    """Return the static choices of the run, and the step size; a row has so many ``numbers``."""
    chosen = settings if choice is None else choice
    if choice is None:
        shared = is_shared(settings.batch_size, numbers, settings.data_shards)
        count = batch_count(view.size, settings.batch_size, settings.data_shards if shared else 1)
    else:
        count = choice.num_batches
    steps_per_draw = chosen.steps_per_draw
    if steps_per_draw is None:
        steps_per_draw = max(1, settings.order.period) * count
    cache = not settings.order.redeals and count * view.dimension <= CACHE
    dynamics = Dynamics(
        order=settings.order,
        gradient=GRADIENTS[chosen.gradient].make(cache=cache),
        integrator=settings.integrator,
        temperature=settings.temperature,
        num_batches=count,
        steps_per_draw=steps_per_draw,
        steps_per_warmup=min(count, steps_per_draw),
        limit=FARTHEST if coordinates.whitens else None,
        step_schedule=settings.step_schedule,
        temperature_schedule=settings.temperature_schedule,
        recorded=min(view.dimension, MAX_COORDINATES) if settings.record_moments else 0,
    )
    return dynamics, chosen.step_size


def tuning_of(
    posterior: Posterior,
    dynamics: Dynamics,
    step_size: float,
    starts: np.ndarray,
    feed: Feed | None = None,
    order: np.ndarray | None = None,
) -> Tuning:
    """Return the numbers that all chains share, with what the gradient knows about the center.

    Parameters
    ----------
    starts
        (P, D) positions from which chains start, where z is measured in standard deviations; they
        are replaced by the center where it is not.
    feed
        The batches, for gradients that visit them.
    order
        The order in which the rows of a model with groups were dealt into batches.
    """
    reach = reach_of(starts, posterior.fit)
    if not posterior.coordinates.whitens:
        starts = np.zeros_like(starts)
    controls = controls_of(posterior, dynamics.gradient, feed, order)
    controls = dynamics.gradient.bounded(controls, reach)
    return cast_tuning(posterior.coordinates, step_size, controls, starts)


def cast_tuning(
    coordinates: Coordinates, step_size: float, controls: ArrayTree, starts: np.ndarray
) -> Tuning:
    """Return a tuning in the precision of the run, which is that of its controls already."""
    dtype = float_dtype()
    return Tuning(
        coordinates.cast(dtype), from_numpy(step_size, dtype), controls, from_numpy(starts, dtype)
    )


def make_plan(
    seed: np.ndarray,
    settings: Settings,
    precision: Precision,
    *,
    measurements: Measurements | None = None,
    choice: Choice | None = None,
    **found: Any,
) -> RunPlan:
    """Return a plan: what the seed and the settings say of it, and what was ``found``.

    The arguments are fields of :class:`~sgworld_mcmc.setup.run_plan.RunPlan`.
    """
    return RunPlan(
        measurements=measurements,
        choice=choice,
        double=precision.double,
        too_coarse=precision.too_coarse,
        partition=np.asarray(seed),
        tolerance=settings.tolerance,
        fixed=settings.fixed,
        strata=settings.data_shards,
        **found,
    )
