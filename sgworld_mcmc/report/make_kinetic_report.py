"""Make the report of kinetic dynamics without a mode, from a plan, its data and draws."""

import jax
import numpy as np

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.report.control_run import control_check
from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.report.kinetic_report import KineticReport, Temperatures
from sgworld_mcmc.report.notes import few_effective_note, schedule_notes
from sgworld_mcmc.report.quantities import quantity_names
from sgworld_mcmc.report.quantity_mixing import QuantityMixing, quantity_mixing
from sgworld_mcmc.setup.run_plan import RunData, RunPlan
from sgworld_mcmc.slabs import r_hats, sample_sizes
from sgworld_mcmc.theory.mean_temperature import temperature_error

__all__ = ["kinetic_notes", "make_kinetic_report", "measured_temperatures"]

# Each chain is cut into this many blocks, whose scatter gives standard errors.
BLOCKS = 5
# The chains disagree above this R-hat of a quantity. It is the largest of hundreds.
LARGEST_R_HAT = 1.1
# Predictions of the rows are said to have mixed up to this R-hat, if other quantities have not.
MIXED = 1.02
# Up to so many parameters are looked at one by one.
MOST_PARAMETERS = 5000
# A temperature is wrong if it differs from one by more than this many standard errors, and by more
# than this for a single site.
SIGMAS, MATTERS = 4.0, 0.1


def make_kinetic_report(
    plan: RunPlan, data: RunData, draws: Draws, *, control: np.ndarray | None = None
) -> KineticReport:
    """Make the report of draws; ``control`` are quantities of a run at half the step size."""
    dynamics, quantities = plan.dynamics, draws.positions
    found = measured_temperatures(data.model, draws, dynamics.temperature or 1.0)
    predicted = _predicted(plan, draws.step_size)
    first = _first_draw(draws.checks["quantities"])
    expected, predictive = _expected_errors(draws, predicted, found, dynamics.temperature or 1.0)
    return KineticReport(
        sites=data.model.latents,
        temperatures=found,
        predicted_temperature_error=predicted,
        names=(*quantity_names(first), "potential"),
        r_hat=_r_hat(quantities),
        ess=sample_sizes(quantities),
        expected_error=expected,
        parameters=_parameters(data.model, draws),
        predictive_error=predictive,
        control=None if control is None else control_check(quantities, control),
        order=dynamics.order.name,
        batch_size=plan.batch_size,
        num_batches=dynamics.num_batches,
        step_size=draws.step_size,
        friction=dynamics.integrator.friction,
        steps_per_draw=dynamics.steps_per_draw,
        tolerance=plan.tolerance,
        notes=tuple(kinetic_notes(plan, data, draws)),
    )


def kinetic_notes(plan: RunPlan, data: RunData, draws: Draws) -> list[str]:
    """Return what a user should know about the draws, in whole sentences."""
    notes = schedule_notes(plan.dynamics, draws.last_state)
    count = draws.positions.shape[1]
    names = (*quantity_names(_first_draw(draws.checks["quantities"])), "potential")
    infinite = ~np.isfinite(draws.positions)
    if infinite.any() and np.isfinite(draws.checks["kinetic"]).all():
        place = int(np.argmax(infinite.any((0, 1))))
        return [
            *notes,
            f"The quantity {names[place]} is NaN or infinite at {int(infinite[..., place].sum())} "
            "draws: whether the chains have mixed, and how large the errors are, cannot be told.",
        ]
    if count < 20 or infinite.any():
        return [
            *notes,
            f"There are {count} draws in a chain: whether the chains have mixed, and how large the "
            "errors are, cannot be told from so few.",
        ]
    r_hat = _r_hat(draws.positions)
    if np.nanmax(r_hat) > LARGEST_R_HAT:
        energy = draws.checks["potential"].mean(1) / (plan.dynamics.temperature or 1.0)
        if data.sample is not None:  # that of some rows says little of single chains
            energy = np.zeros_like(energy)
        return [*notes, _not_mixed(names, r_hat, np.ravel(energy), data.model.dimension)]
    found = measured_temperatures(data.model, draws, plan.dynamics.temperature or 1.0)
    excess, error = abs(found.total - 1), SIGMAS * found.total_se
    if excess > max(error, 2 * plan.tolerance):
        notes.append(
            f"The draws have the temperature {found.total:.3f} ± {found.total_se:.3f} instead of "
            f"one: their variances are wrong by about {found.total - 1:+.0%} on average. "
            + _cure(plan)
        )
    sizes = _sizes(data.model)
    kinetic = float(found.kinetic @ sizes / sizes.sum())
    kinetic_se = float(np.sqrt(found.kinetic_se**2 @ sizes**2) / sizes.sum())
    if not notes and abs(kinetic - 1) > max(SIGMAS * kinetic_se, MATTERS):
        notes.append(
            f"The velocities have the temperature {kinetic:.2f} ± {kinetic_se:.2f} instead of one: "
            "minibatch noise or too large a step heats the chains. " + _cure(plan)
        )
    off = np.abs(found.configurational - 1)
    limit = SIGMAS + np.sqrt(2 * np.log(len(off)))
    wrong = (off > limit * found.configurational_se) & (off > MATTERS)
    if wrong.any() and not notes:
        worst = int(np.argmax(np.where(wrong, off, 0)))
        notes.append(
            f"The site {data.model.latents[worst]!r} has the temperature "
            f"{found.configurational[worst]:.2f} ± {found.configurational_se[worst]:.2f} instead "
            "of one. " + _cure(plan)
        )
    choice = plan.kinetic.choice
    if not choice.met and not notes:
        notes.append(
            f"The tolerance {plan.tolerance:g} could not be met: the predicted error of the "
            f"temperature is {choice.error:.2g}. " + _cure(plan)
        )
    chains = draws.positions.shape[0]
    return notes + few_effective_note(sample_sizes(draws.positions), chains * count, names)


def _not_mixed(
    names: tuple[str, ...], r_hat: np.ndarray, energy: np.ndarray, dimension: int
) -> str:
    """Say which of the quantities have not mixed, and what may help.

    ``energy`` (C,) are the mean potentials of the chains.
    """
    worst, above = int(np.nanargmax(r_hat)), int(np.sum(r_hat > LARGEST_R_HAT))
    said = (
        f"The chains have not mixed: R-hat is {r_hat[worst]:.2f} for {names[worst]}, and above "
        f"{LARGEST_R_HAT:g} for {above} of {len(r_hat)} quantities. "
    )
    rows = np.array([name.startswith("log_likelihood[") for name in names])
    if rows.any() and r_hat[rows].max() <= MIXED:
        said += (
            "The rows' log likelihoods have mixed (R-hat at most "
            f"{r_hat[rows].max():.3f}): predictions of such rows can be used. "
        )
    # Modes that are this much less probable hold little, however wide they are.
    far = energy - energy.min() > 5 + 2 * dimension**0.5 + dimension / 2
    if far.any():
        which = ", ".join(map(str, np.flatnonzero(far)))
        return said + (
            f"The mean potential of chain {which} lies {(energy - energy.min())[far].min():.0f} "
            "above that of the best: hardly any of the posterior is where it stays. Leave it out, "
            "start it elsewhere (`init_params`), or raise `num_warmup`."
        )
    return said + (
        "Raise `num_samples` or `steps_per_draw`; if chains stay in modes of their own, more of "
        "them (`num_chains`) average over the modes."
    )


def measured_temperatures(model: MinibatchModel, draws: Draws, temperature: float) -> Temperatures:
    """Return the temperatures of the sites over the draws, with errors from blocks of draws."""
    kinetic, kinetic_se = _block_mean(draws.checks["kinetic"] / temperature)
    values = draws.checks["configurational"] / temperature
    position, position_se = _block_mean(values)
    sizes = _sizes(model)
    total, total_se = _block_mean(values @ sizes[:, None] / sizes.sum())
    return Temperatures(
        kinetic, kinetic_se, position, position_se, float(total[0]), float(total_se[0])
    )


def _parameters(model: MinibatchModel, draws: Draws) -> QuantityMixing | None:
    """Return how the single parameters have mixed; None of many, of few draws, or with `keep=`."""
    sites = {name: draws.samples[name] for name in model.latents if name in draws.samples}
    few = draws.positions.shape[1] < 20 or model.dimension > MOST_PARAMETERS
    if few or not sites or not all(np.isfinite(x).all() for x in sites.values()):
        return None
    return quantity_mixing(sites)


def _sizes(model: MinibatchModel) -> np.ndarray:
    """Return the (S,) numbers of parameters of the sites."""
    return np.array([int(np.prod(shape)) for shape in model.shapes.values()])


def _predicted(plan: RunPlan, step_size: float) -> float:
    """Return the predicted error of the temperature at a step size."""
    fit, dynamics = plan.kinetic, plan.dynamics
    size = plan.description.size
    factor = size * (1 / plan.batch_size - 1 / size) / (dynamics.temperature or 1.0)
    return fit.factor * temperature_error(
        dynamics.integrator,
        step_size,
        dynamics.num_batches,
        fit.spectrum.curvature,
        fit.spectrum.weight,
        fit.spectrum.noise * factor,
        law=dynamics.order.law,
    )


def _expected_errors(draws: Draws, predicted: float, found: Temperatures, temperature: float):
    """Return (Q,) expected errors in standard deviations, and that of predictive probabilities.

    If all draws were at the temperature 1 + e, the mean of A would be off by e Cov(A, U) / tau
    (the fluctuation-response relation; docs/theory.md, K12).
    """
    if not np.isfinite(found.total):  # the potential of all rows is not known either
        return np.full(draws.positions.shape[2], np.nan), np.nan
    excess = max(abs(found.total - 1) - 2 * found.total_se, abs(predicted))
    excess = np.copysign(excess, found.total - 1)
    flat = draws.positions.reshape(-1, draws.positions.shape[2])
    energy = draws.checks["potential"].reshape(-1)
    energy = energy - energy.mean()
    sd = np.maximum(flat.std(0), 1e-300)
    shift = excess * ((flat - flat.mean(0)) * energy[:, None]).mean(0) / temperature
    likelihood = draws.checks["quantities"]
    likelihood = likelihood.get("log_likelihood") if isinstance(likelihood, dict) else None
    if likelihood is None or likelihood.ndim != 3:
        return shift / sd, np.nan
    densities = np.exp(likelihood.reshape(len(flat), -1))
    moved = excess * ((densities - densities.mean(0)) * energy[:, None]).mean(0) / temperature
    if likelihood.max() > 0:  # densities rather than probabilities
        moved = moved / densities.mean(0)
    return shift / sd, float(np.abs(moved).mean())


def _block_mean(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of (chains, draws, S) over the draws, and its standard error."""
    chains, draws, size = values.shape
    length = max(1, draws // BLOCKS)
    count = draws // length
    blocks = values[:, : count * length].reshape(chains * count, length, size).mean(1)
    return values.mean((0, 1)), blocks.std(0, ddof=1) / np.sqrt(len(blocks))


def _r_hat(quantities: np.ndarray) -> np.ndarray:
    """Return (Q,) split R-hat; one for a quantity that is constant."""
    moving = np.ptp(quantities, axis=(0, 1)) > 0
    r_hat = np.ones(quantities.shape[2])
    if quantities.shape[1] >= 4 and moving.any():
        r_hat[moving] = r_hats(quantities[:, :, moving])
    return r_hat


def _first_draw(quantities):
    return jax.tree.map(lambda x: x[0, 0], quantities)


def _cure(plan: RunPlan) -> str:
    if plan.fixed:
        return (
            "Leave `step_size`, `batch_size` and `friction` to the package, or halve `step_size`."
        )
    return "Halve `tolerance` (it rules the step size), or give a smaller `step_size`."
