"""The notes on a run, which appear in its report and are issued as warnings."""

from collections.abc import Mapping, Sequence

import numpy as np

from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.report.spread import spread_note
from sgworld_mcmc.sampling.chain import SGMCMCState
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.run_plan import RunPlan
from sgworld_mcmc.slabs import by_slabs, largest_r_hat, r_hats, sample_sizes

__all__ = ["few_effective_note", "not_finite_note", "notes_of", "schedule_notes"]

# Draws that are worth fewer independent ones than this are too few for any summary.
FEWEST_EFFECTIVE = 100
# A note names so many parameters at most.
MOST_NAMES = 5


def notes_of(plan: RunPlan, draws: Draws) -> list[str]:
    """Return what a user should know about a run, in whole sentences."""
    notes = []
    fit, choice, found = plan.fit, plan.choice, plan.measurements
    if fit.jumps:
        sites = ", ".join(map(repr, fit.jumps[:MOST_NAMES]))
        return [
            f"The log density jumps along {sites}: a comparison with a latent value (`t < tau`), a "
            "rounded or an integer value of it. Gradients do not see jumps, and these draws are "
            "not the posterior's. Sum the alternatives out (a discrete site with "
            "infer={'enumerate': 'parallel'}), or write a smooth step, jax.nn.sigmoid((tau - t) / "
            "width)."
        ]
    known = fit.converged or fit.kinked
    if not known or (fit.indefinite and not fit.fitted):
        notes.append(
            "No usable posterior mode was found: the density may be unbounded (a scale parameter "
            "that goes to zero in a centred hierarchy), improper or flat. The sampler's "
            "coordinates come from "
            + ("a Gaussian fitted to the posterior" if fit.fitted else "the best point found")
            + ", and its predictions are rough. Use a non-centred parametrisation or proper "
            "priors, give `init_params`, or compare with NUTS."
        )
    if fit.other_modes:
        far = ", ".join(f"{distance:.0f}" for distance in fit.other_modes)
        notes.append(
            f"The posterior has other modes, {far} standard deviations away: the chains stay at "
            "one of them, or seldom change. Remove the symmetry (an ordered constraint for "
            "mixtures), or compare chains with different `init_params`."
        )
    if fit.decided:
        some, more = ", ".join(fit.decided[:MOST_NAMES]), len(fit.decided) > MOST_NAMES
        notes.append(
            f"Single rows seem to decide about {some}{' and more' * more}: minibatches seldom read "
            "them, and draws of these parameters may be those of the Gaussian at the mode. A run "
            "of one process that leaves its settings to the package has such rows in every batch; "
            "else give these parameters informative priors, or merge rare levels."
        )
    if plan.streaming is not None and plan.streaming.note() is not None:
        notes.append(plan.streaming.note())
    if plan.too_coarse:
        notes.append(
            "Single precision is too coarse for this posterior's correlations, and the model "
            "closes over NumPy arrays, which JAX cannot trace in two precisions. Standardise the "
            "regressors, pass the arrays as arguments or make them with jnp.asarray, or start "
            "with jax.config.update('jax_enable_x64', True)."
        )
    if found is not None and found.lost > 0:
        notes.append(
            f"{found.lost:.0%} of the pilot chains were lost even at a small step: the posterior "
            "is far from the Gaussian at its mode (a funnel, or heavy tails). Use another "
            "parametrisation (of a hierarchy non-centred for few rows in a group, centred for "
            "many), or compare with NUTS if it is that already."
        )
    if choice is not None and not choice.met:
        notes.append(
            f"The tolerance {plan.tolerance:g} could not be met"
            + (" with the settings given" if plan.fixed else "")
            + f": the predicted error is {choice.prediction.worst():.2g}. "
            + (
                "Leave `step_size`, `batch_size`, `gradient`, `steps_per_draw` and `noise` to the "
                "package, or accept a larger `tolerance`."
                if plan.fixed
                else "No settings have a smaller one: accept a larger `tolerance`, reparametrise "
                "the model, or use NUTS."
            )
        )
    notes += schedule_notes(plan.dynamics, draws.last_state)
    widths = fit.widths() * np.sqrt(plan.dynamics.temperature or 1.0)
    notes += _mixing_notes(found, draws.positions, widths)
    return notes


def not_finite_note(kept: Mapping[str, np.ndarray], setting: str = "keep") -> list[str]:
    """Return a note if some of the numbers that a function of the draws has given are not finite.

    Parameters
    ----------
    kept
        What was kept of the draws, by name, (chains, draws, ...).
    setting
        The setting that is the function.
    """
    shares = {name: float(np.mean(~np.isfinite(x))) for name, x in kept.items()}
    bad = [f"`{name}` ({share:.2g} of its numbers)" for name, share in shares.items() if share > 0]
    if not bad:
        return []
    return [
        f"What `{setting}` returned is not finite in {', '.join(bad)}: look for a logarithm or a "
        "root of a negative number, a division by zero or an overflow in that function."
    ]


def schedule_notes(dynamics: Dynamics, last_state: SGMCMCState) -> list[str]:
    """Return a note if the temperature was not yet what it will be when the draws began."""
    schedule = dynamics.temperature_schedule
    if schedule is None:
        return []
    first = int(np.max(last_state.num_warmup)) * dynamics.steps_per_warmup
    hot = float(schedule(np.int32(first)))
    if abs(hot - dynamics.temperature) <= 0.01 * dynamics.temperature:
        return []
    return [
        f"The temperature still changes while draws are taken: it is {hot:.3g} at the first of "
        f"them (step {first}) and {dynamics.temperature:.3g} in the end. Raise `num_warmup`, or "
        "shorten the schedule."
    ]


def _mixing_notes(
    found: Measurements | None, positions: np.ndarray, widths: np.ndarray | float
) -> list[str]:
    """Return notes if the chains disagree with each other or with the pilot chains.

    ``widths`` are the standard deviations, one for all or (D,), of the Gaussian approximation.
    """
    chains, draws, dimension = positions.shape
    if draws < 50 or not np.isfinite(positions).all():
        return []
    moving = by_slabs(lambda x: np.ptp(x, (0, 1)), positions) > 0
    if not moving.any():
        return []
    positions = positions if moving.all() else positions[:, :, moving]
    flat = positions.reshape(chains * draws, -1)
    if chains > 1:
        r_hat = float(np.max(r_hats(positions)))
        if r_hat > largest_r_hat(chains, draws, int(moving.sum())):
            # What follows compares all draws with one Gaussian: it would say the same again.
            return [
                f"The chains do not agree (R-hat {r_hat:.2f}): they have not mixed. Raise "
                "`num_samples` and `num_warmup`, reparametrise, or use NUTS."
            ]
    if found is None:
        return []
    notes = []
    widths = np.broadcast_to(widths, dimension)[moving]
    far = float((np.maximum(flat.max(0), -flat.min(0)) / widths).max())
    if far > 12 + 2 * np.sqrt(2 * np.log(flat.size)):
        notes.append(
            f"Some draws lie {far:.0f} standard deviations of the Gaussian approximation from its "
            "center: tails that heavy make step sizes and predictions unreliable. Compare with "
            "NUTS on part of the rows."
        )
    if chains * draws >= 400:
        sizes = sample_sizes(positions)
        notes += spread_note(flat, sizes, np.asarray(found.starts)[:, moving])
        notes += few_effective_note(sizes, chains * draws)
    return notes


def few_effective_note(sizes: np.ndarray, count: int, names: Sequence[str] = ()) -> list[str]:
    """Return a note if ``count`` draws are worth few, by the effective sample sizes (Q,).

    R-hat says nothing of this: chains that agree may know next to nothing.
    """
    if count < 4 * FEWEST_EFFECTIVE or not np.nanmin(sizes) < FEWEST_EFFECTIVE:
        return []
    worst = int(np.nanargmin(sizes))
    which = f" of {names[worst]}" if names else ""
    return [
        f"The {count} draws are worth {sizes[worst]:.0f} independent ones{which} (effective sample "
        f"size): that mean is known to {sizes[worst] ** -0.5:.2f} posterior standard deviations. "
        "Raise `num_samples` or `steps_per_draw`."
    ]
