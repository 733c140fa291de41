"""Make a plan of kinetic dynamics without a mode, and lay the data out for it."""

from dataclasses import replace

import jax
import numpy as np

from sgworld_mcmc.data.in_memory import generator_of
from sgworld_mcmc.gradients.plain import Plain
from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.model.description import describe
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.sampling.lagged_moments import MAX_COORDINATES
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.make_plan import cast_tuning, make_plan
from sgworld_mcmc.setup.precision import Precision
from sgworld_mcmc.setup.run_batches import feed_of, run_data
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.setup.shards import sharing_of
from sgworld_mcmc.setup.without_mode.tune import KineticFit, tune

__all__ = ["dynamics_without_mode", "is_wanted", "plan_without_mode"]

# A number that, beside the seed, begins random numbers of its own.
WITHOUT_MODE = 13
# Chains that the set-up brings to the posterior: those of the run, if that many.
FEWEST, MOST = 2, 16
# Three points take the place of normal numbers for at least this many parameters, in steps during
# which velocities lose at most this part.
MANY_NORMALS, SHORT = 1000, 0.1


def is_wanted(settings: Settings, model: MinibatchModel) -> bool:
    """Return whether kinetic dynamics without a mode is to be used if there are no groups."""
    many = model.dimension > DENSE_DIMENSION or model.convolves
    whole = model.reason is not None and settings.dynamics == "auto"
    return many and not whole and settings.may_go_without_mode


def plan_without_mode(
    seed: np.ndarray,
    checked: CheckedModel,
    settings: Settings,
    arguments: tuple,
    initial: np.ndarray | None,
    chains: int,
) -> tuple[RunPlan, RunData]:
    """Find starts and settings, and lay the data out.

    Parameters
    ----------
    seed
        Integers that decide everything random in the set-up.
    checked
        The model and its data.
    settings
        The user's settings; the dynamics is kinetic whatever they say.
    arguments
        The model's arguments, ``(args, kwargs)``.
    initial
        (S, D) unconstrained points from which the chains begin, or None.
    chains
        Number of chains of the run.
    """
    view, settings = checked.model, settings.kinetic()
    generator = generator_of(np.append(seed, WITHOUT_MODE))
    double = bool(jax.config.jax_enable_x64)
    rows, constants = checked.rows(double), checked.constants(double)
    number = int(np.clip(chains, FEWEST, MOST))
    coordinates, starts, fit = tune(generator, view, rows, constants, settings, initial, number)
    dynamics = dynamics_without_mode(settings, view, fit)
    sharing = sharing_of(settings, view, rows, dynamics.num_batches)
    dynamics = replace(dynamics, shards=sharing.shards)
    feed = feed_of(rows, dynamics)
    data, _ = view.layout.split(*arguments)
    plan = make_plan(
        seed,
        settings,
        Precision(double),
        dynamics=dynamics,
        tuning=cast_tuning(coordinates, fit.choice.step_size, (), starts),
        fit=CoordinateFit(coordinates, None, True, 0.0, 0, (), fitted=True),
        description=describe(view, data, constants, checked.contents),
        kinetic=fit,
        sharing=sharing.reason,
    )
    return plan, run_data(plan, view, feed, rows, constants, data)


def dynamics_without_mode(settings: Settings, view: MinibatchModel, fit: KineticFit) -> Dynamics:
    """Return the static choices of the run."""
    choice = fit.choice
    short = choice.friction * choice.step_size <= SHORT
    numbers = "three-point" if short and view.dimension >= MANY_NORMALS else "gaussian"
    # A call of the warm-up is an epoch, or a draw if an epoch is a single step.
    warmup = choice.num_batches if choice.num_batches > 1 else choice.steps_per_draw
    return Dynamics(
        order=settings.order,
        gradient=Plain(),
        integrator=UBU(choice.friction, numbers),
        temperature=settings.temperature,
        num_batches=choice.num_batches,
        steps_per_draw=choice.steps_per_draw,
        steps_per_warmup=min(warmup, choice.steps_per_draw),
        limit=None,
        step_schedule=settings.step_schedule,
        temperature_schedule=settings.temperature_schedule,
        recorded=min(view.dimension, MAX_COORDINATES) if settings.record_moments else 0,
    )
