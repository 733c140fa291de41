"""Make the bias report of a finished run, and the notes that a run issues as warnings."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from sgworld_mcmc.data.in_memory import generator_of, is_large
from sgworld_mcmc.passes import count_rows, stage
from sgworld_mcmc.report.bias_report import BiasReport, Check
from sgworld_mcmc.report.detailed_balance import measured_detailed_balance
from sgworld_mcmc.report.heavy_tails import heavy_tails
from sgworld_mcmc.setup.choose import Prediction, Request, predict
from sgworld_mcmc.setup.coordinates_from_mode import set_up_batches, zero_anchor
from sgworld_mcmc.setup.measurements import Measurements, measure
from sgworld_mcmc.setup.posterior import Bench
from sgworld_mcmc.setup.prepare import Preparation, Settings, bench_of, request_of

__all__ = ["can_be_checked", "contradiction", "make_report", "notes_of", "scheme_of"]

# Multiplications that the check with full gradients may spend, in a report and after every run,
# and its smallest number of draws.
BUDGET, SMALL_BUDGET = 4e9, 1e9
FEWEST = 32
BLOCKS = 5
# Draws whose gradients are estimated from parts of the rows where all rows would be too many, what
# such an estimate costs in gradients of its rows, and the smallest part that is worth it.
PART_DRAWS, PART_COST, PART_ROWS = 256, 3, 1024


def notes_of(prepared: Preparation, settings: Settings, positions: np.ndarray) -> list[str]:
    """What a user should know of a run: ``positions`` (chains, draws, D) are its draws."""
    notes = []
    center, choice, found = prepared.center, prepared.choice, prepared.measurements
    if not center.converged or (center.indefinite and not center.fitted):
        notes.append(
            "No usable posterior mode was found: the density may be unbounded (a scale parameter "
            "that goes to zero in a centred hierarchy), improper or flat. The sampler's "
            "coordinates come from "
            + ("a Gaussian fitted to the posterior" if center.fitted else "the best point found")
            + ", and its predictions are rough. Use a non-centred parametrisation or proper "
            "priors, give `init_params`, or compare with NUTS."
        )
    if center.other_modes:
        far = ", ".join(f"{distance:.0f}" for distance in center.other_modes)
        notes.append(
            f"The posterior has other modes, {far} standard deviations away: the chains stay at "
            "one of them. Remove the symmetry (an ordered constraint for mixtures), or compare "
            "chains with different `init_params`."
        )
    if prepared.too_coarse:
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
            "many), or NUTS."
        )
    if choice is not None and not choice.met:
        given = (
            settings.batch_size,
            settings.step_size,
            settings.gradient,
            settings.steps_per_draw,
        )
        independent = settings.noise == "independent"
        fixed = independent or any(value is not None for value in given)
        notes.append(
            f"The tolerance {settings.tolerance:g} could not be met"
            + (" with the settings given" if fixed else "")
            + f": the predicted error is {choice.prediction.worst():.2g}. "
            + (
                "Leave `step_size`, `batch_size`, `gradient`, `steps_per_draw` and `noise` to the "
                "package, or accept a larger `tolerance`."
                if fixed
                else "The posterior is far from Gaussian: reparametrise it, or use NUTS."
            )
        )
    notes += _mixing_notes(found, positions, settings.temperature or 1.0)
    return notes


def _mixing_notes(found: Measurements | None, positions: np.ndarray, tau: float) -> list[str]:
    """Do the chains agree, and do they agree with the pilot chains?"""
    chains, draws, _ = positions.shape
    if draws < 50 or not np.isfinite(positions).all():
        return []
    notes = []
    flat = positions.reshape(chains * draws, -1)
    moving = flat.std(0) > 0
    if not moving.any():
        return []
    if chains > 1:
        r_hat = float(np.max(split_gelman_rubin(positions[:, :, moving])))
        if r_hat > 1.1:
            notes.append(
                f"The chains do not agree (R-hat {r_hat:.2f}): they have not mixed. Raise "
                "`num_samples` and `num_warmup`, reparametrise, or use NUTS."
            )
    far = np.abs(flat).max() / np.sqrt(tau)
    if found is not None and far > 12 + 2 * np.sqrt(2 * np.log(flat.size)):
        notes.append(
            f"Some draws lie {far:.0f} standard deviations of the Gaussian approximation from its "
            "center: tails that heavy make step sizes and predictions unreliable. Compare with "
            "NUTS on part of the rows."
        )
    if found is not None and chains * draws >= 400:
        ess = np.asarray(effective_sample_size(positions[:, :, moving]))
        spread = np.asarray(found.starts)[:, moving]
        ratio = flat[:, moving].std(0) / np.maximum(spread.std(0), 1e-12)
        shift = np.abs(flat[:, moving].mean(0) - spread.mean(0)) / spread.std(0)
        noise = 5 * np.sqrt(1 / len(spread) + 1 / np.maximum(ess, 1.0))
        if (np.abs(np.log(ratio)) > 0.25 + noise).any() or (shift > 0.3 + noise).any():
            notes.append(
                "The draws spread differently from the pilot chains that the settings rest on "
                f"(sd ratio {ratio.min():.2f} to {ratio.max():.2f}, shift up to "
                f"{shift.max():.2f} sd): the posterior is far from Gaussian, and the predicted "
                "errors may be too small. Compare with NUTS, or reduce `tolerance`."
            )
    return notes


def scheme_of(request: Request, batch_size: int, steps_per_draw: int) -> str:
    """The closed form that holds for draws this many steps apart."""
    count = -(-request.size // batch_size)
    period = 2 * count if request.order == "symmetric" else count
    if request.order == "replacement" or count == 1 or steps_per_draw % period == 0:
        return request.order
    return "all_phases"


def can_be_checked(mcmc: Any, positions: np.ndarray) -> bool:
    """Whether `contradiction` can tell: something was predicted, and there are enough draws."""
    chains, draws, _ = positions.shape
    predicted = mcmc._prepared[1].measurements is not None
    stopped = np.any(np.asarray(mcmc.last_state.diverged_at) >= 0)
    whole = np.isfinite(positions).all() and positions.std((0, 1)).all()
    return bool(predicted and chains * draws >= 400 and whole and not stopped)


def contradiction(mcmc: Any, positions: np.ndarray) -> str | None:
    """What a run should say if gradients of all rows at its draws contradict the predictions."""
    return make_report(mcmc, positions, None, brief=True).disagreement()


def make_report(
    mcmc: Any, positions: np.ndarray, control: np.ndarray | None, *, brief: bool = False
) -> BiasReport:
    """The report of a finished run.

    Parameters
    ----------
    mcmc
        :class:`sgworld_mcmc.SGWORLD` or :class:`sgworld_mcmc.SGLD` after a run.
    positions
        (chains, draws, D) its draws in preconditioned coordinates.
    control
        The same of a run at half the step size, or None.
    brief
        Only predictions and a smaller check.
    """
    prepared, settings = mcmc._prepared[1], mcmc.sampler.settings
    data, dynamics = prepared.data, prepared.data.dynamics
    step_size = float(np.max(np.asarray(mcmc.last_state.step_size)))
    with jax.enable_x64(prepared.double):
        bench = bench_of(prepared, settings)
        found = prepared.measurements
        if found is None:
            found = measure(generator_of(jax.random.key(0)), bench, adapt=False)
        request = request_of(settings, data.model.size, prepared.center)
        batch_size = -(-data.model.size // dynamics.num_batches)
        scheme = scheme_of(request, batch_size, dynamics.steps_per_draw)

        def predicted(h):
            made = predict(
                request,
                found.noise,
                found.steps,
                dynamics.gradient,
                batch_size=batch_size,
                step_size=h,
                scheme=scheme,
            )
            if made is None:  # beyond stability
                infinite = np.full(positions.shape[-1], np.inf)
                made = Prediction(infinite, np.zeros_like(infinite), {"instability": infinite})
            return made

        made, half = predicted(step_size), predicted(step_size / 2)
        directions = bench.directions
        along = (lambda z: z) if directions is None else (lambda z: z @ directions.T)
        with stage("check after the run"):
            stein = _stein_check(bench, positions, along, SMALL_BUDGET if brief else BUDGET)
    balance, source = (None, "") if brief else measured_detailed_balance(mcmc, positions)
    scale, notes = prepared.center.scale, ()
    if not brief:
        samples = (mcmc._states or {}).get("z", {})
        tails = heavy_tails(samples, data.model.latents)
        notes = (*notes_of(prepared, settings, positions), *tails)
    ess = np.asarray(effective_sample_size(along(positions)))
    rows = positions.shape[0] * positions.shape[1] * dynamics.steps_per_draw * batch_size
    return BiasReport(
        names=tuple(data.model.scalar_names()),
        predicted_variance_error=made.variance_error,
        predicted_mean_shift=made.mean_shift,
        parts=made.parts,
        stein=stein,
        control=None if control is None else _control_check(along(positions), along(control)),
        predicted_change=made.variance_error - half.variance_error,
        detailed_balance=balance,
        detailed_balance_source=source,
        gradient=dynamics.gradient,
        order=settings.order,
        noise=settings.noise,
        batch_size=batch_size,
        num_batches=dynamics.num_batches,
        step_size=step_size,
        steps_per_draw=dynamics.steps_per_draw,
        time_per_epoch=step_size * dynamics.num_batches * request.stiffest,
        examples_per_effective_draw=float(rows / max(np.nanmin(ess), 1e-12)),
        tolerance=settings.tolerance,
        covariance=scale @ scale.T if scale.ndim == 2 else scale**2,
        center=prepared.center.position,
        double=prepared.double,
        notes=notes,
    )


def _stein_check(bench: Bench, positions: np.ndarray, along, budget: float) -> Check:
    """E[(y - E y) dU/dy] = tau and E[dU/dy] = 0, at every other draw or fewer.

    Gradients of all rows where the budget is enough for that, else estimates from parts of them.
    These are unbiased, and the standard errors from the draws' scatter include their noise.
    """
    chains, draws, dimension = positions.shape
    affordable = budget / (4 * bench.size * dimension)
    parts = affordable < FEWEST and is_large(bench.size)
    number = int(np.clip(PART_DRAWS if parts else affordable, FEWEST, chains * draws / 2))
    each = max(number // chains, 1)
    chosen = positions[:, np.linspace(0, draws - 1, each).astype(int)]
    flat = chosen.reshape(-1, dimension)
    if parts:
        rows = min(bench.size // 2, int(budget / (4 * PART_COST * dimension)))
        length = min(max(rows // len(flat), PART_ROWS), bench.size // len(flat))
        gradients = _part_gradients(bench, flat, length)
    else:
        gradients = _gradients(bench, flat)
    tau = bench.temperature
    slope = -along(np.asarray(gradients, float).reshape(chosen.shape)) / tau
    y = along(chosen)
    products = (y - y.mean((0, 1))) * slope
    # Squares of few draws that are all small look more certain than they are: no error below
    # that of a Gaussian.
    variance, variance_se = _mean_and_error(products, np.sqrt(2))
    shift, shift_se = _mean_and_error(slope * np.sqrt(tau), 1.0)
    return Check("Stein identity", variance - 1, variance_se, shift, shift_se, chains * each)


def _gradients(bench: Bench, positions: np.ndarray) -> np.ndarray:
    """(S, D) gradients of all rows at positions (S, D)."""
    dtype = jnp.zeros(()).dtype
    count_rows(len(positions) * bench.size)
    return bench.functions.gradients(
        jnp.asarray(positions, dtype),
        jnp.asarray(bench.center.position, dtype),
        jnp.asarray(bench.center.scale, dtype),
        set_up_batches(bench.rows),
        bench.constants,
    )


def _part_gradients(bench: Bench, positions: np.ndarray, length: int) -> np.ndarray:
    """(S, D) estimates of the same, each from ``length`` rows of its own."""
    dtype = jnp.zeros(()).dtype
    count_rows(len(positions) * length)
    return bench.functions.part_gradients(
        jnp.asarray(positions, dtype),
        jnp.asarray(bench.center.position, dtype),
        jnp.asarray(bench.center.scale, dtype),
        zero_anchor(bench.center, bench.gradient(), 1.0, dtype),
        bench.rows,
        bench.constants,
        length=length,
    )


def _mean_and_error(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean over chains and draws, and its error from the draws or, if larger, from the chains.

    The draws' standard deviation counts as ``least`` or more.
    """
    chains, draws = values.shape[:2]
    error = np.maximum(values.std((0, 1), ddof=1), least) / np.sqrt(chains * draws)
    if chains > 1:
        error = np.maximum(error, values.mean(1).std(0, ddof=1) / np.sqrt(chains))
    return values.mean((0, 1)), error


def _control_check(whole: np.ndarray, half: np.ndarray) -> Check:
    """Changes of log variance and mean from half the step size to the whole, with block errors."""
    (mean, variance, mean_se, variance_se), other = _block_moments(whole), _block_moments(half)
    sd = np.sqrt(other[1])
    return Check(
        "half-step control run",
        np.log(variance / other[1]),
        np.hypot(variance_se / variance, other[3] / other[1]),
        (mean - other[0]) / sd,
        np.hypot(mean_se, other[2]) / sd,
        half.shape[0] * half.shape[1],
    )


def _block_moments(y: np.ndarray):
    """Mean and variance of (chains, draws, D), with standard errors from blocks of the chains."""
    chains, draws, dimension = y.shape
    length = draws // BLOCKS
    mean, variance = y.mean((0, 1)), y.var((0, 1))
    blocks = y[:, : BLOCKS * length].reshape(chains * BLOCKS, length, dimension)
    first = blocks.mean(1)
    second = ((blocks - mean) ** 2).mean(1)
    root = np.sqrt(chains * BLOCKS)
    return mean, variance, first.std(0, ddof=1) / root, second.std(0, ddof=1) / root
