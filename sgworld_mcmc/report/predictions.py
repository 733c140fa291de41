"""Predict the errors of the settings of a plan from the theory."""

import numpy as np

from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.predict import Prediction, predict, scheme_of
from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.setup.run_plan import RunPlan

__all__ = ["predicted_errors"]


def predicted_errors(plan: RunPlan, found: Measurements, step_size: float) -> Prediction:
    """Predict the errors of a run at a step size; they are infinite if it is not stable.

    Parameters
    ----------
    plan
        The plan whose order, gradient, integrator and batches the run has.
    found
        The measurements, in the plan's coordinates.
    step_size
        Step size in the sampler's coordinates.
    """
    dynamics, count = plan.dynamics, plan.dynamics.num_batches
    stiffest, softest = plan.fit.extremes()
    request = Request(
        size=plan.size,
        order=dynamics.order,
        integrator=dynamics.integrator,
        tolerance=plan.tolerance,
        batch_size=plan.batch_size,
        step_size=step_size,
        steps_per_draw=dynamics.steps_per_draw,
        gradients=(dynamics.gradient.name,),
        stiffest=stiffest,
        softest=softest,
    )
    period = max(1, dynamics.order.period) * count
    inside = dynamics.steps_per_draw % period != 0
    made = predict(
        request,
        found.noise,
        found.steps,
        dynamics.gradient.name,
        batch_size=plan.batch_size,
        step_size=step_size,
        scheme=scheme_of(dynamics.order, count, inside),
    )
    if made is None:  # beyond stability
        infinite = np.full(plan.fit.dimension, np.inf)
        made = Prediction(infinite, np.zeros_like(infinite), {"instability": infinite})
    return made
