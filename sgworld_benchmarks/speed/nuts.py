"""Time NumPyro's NUTS, measured or extrapolated from fewer rows, for two lengths of a run.

At the first look at which the draws meet the criterion somebody who knows the truth could stop.
Somebody who does not know it makes a run of usual length, 500 + 1000 transitions.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from sgworld_benchmarks.accuracy.problem import Moments, Problem
from sgworld_benchmarks.accuracy.score import score
from sgworld_benchmarks.laplace import flat_model
from sgworld_benchmarks.speed.timing import Criterion, Timing

__all__ = ["gradient_seconds", "run_nuts", "run_nuts_extrapolated"]

GRADIENT_ROUNDS = 7
USUAL = 1000
FIRST_LOOK, USUAL_LENGTH = "NUTS, first look", f"NUTS, {USUAL} draws"


def run_nuts(
    problem: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    *,
    warmup: int = 500,
    chunk: int = 50,
    max_draws: int = 20_000,
    max_seconds: float = 3600.0,
) -> list[Timing]:
    """Run one chain of NumPyro's NUTS kernel with its default settings.

    One chain, one compilation and half of NumPyro's usual warm-up are the least work that a user of
    NUTS may hope for. The two timings are those of the module's introduction; there is only one if
    the time is over before the second.

    Parameters
    ----------
    warmup, chunk
        Numbers of transitions of the adaptation, and between two looks at the draws.
    max_draws, max_seconds
        Numbers of draws and seconds after which the run gives up.
    """
    kernel = NUTS(problem.model)
    arrays = tuple(jnp.asarray(x) for x in problem.arrays)

    @jax.jit
    def transitions(state, arrays):
        def transition(state, _):
            state = kernel.sample(state, problem.arguments(arrays), {})
            return state, (state.z, state.num_steps)

        return jax.lax.scan(transition, state, length=chunk)

    @jax.jit
    def constrain(z, arrays):
        return jax.vmap(kernel.postprocess_fn(problem.arguments(arrays), {}))(z)

    start = time.perf_counter()
    state = kernel.init(rng_key, warmup, None, problem.arguments(arrays), {})
    warmup_steps = 0
    for _ in range(-(-warmup // chunk)):
        state, (z, steps) = transitions(state, arrays)
        warmup_steps += int(jnp.sum(steps))
    after_warmup = seconds = time.perf_counter() - start
    parts, draw_steps, timings = [], 0, []
    while seconds < max_seconds and len(parts) * chunk < max_draws:
        start = time.perf_counter()
        state, (z, steps) = transitions(state, arrays)
        parts.append(jax.tree.map(np.asarray, constrain(z, arrays)))
        draw_steps += int(jnp.sum(steps))
        seconds += time.perf_counter() - start
        draws = len(parts) * chunk
        samples = {site: np.concatenate([p[site] for p in parts])[None] for site in parts[0]}
        found = score(samples, truth)
        met, labels = criterion.met(found), [t.label for t in timings]
        over = seconds >= max_seconds or draws >= max_draws
        due = [FIRST_LOOK] if met or over else []
        due += [USUAL_LENGTH] if draws >= USUAL else []
        for label in (label for label in due if label not in labels):
            ess = float(found.ess.min())
            details = {
                "warmup": warmup,
                "draws": draws,
                "warmup_leapfrogs": warmup_steps,
                "draw_leapfrogs": draw_steps,
                "seconds_of_warmup": after_warmup,
                "ess": ess,
            }
            note = (
                f"{warmup} + {draws} transitions, {warmup_steps} + {draw_steps} leapfrogs, one "
                "chain"
            )
            rate = ess / (seconds - after_warmup)
            timings.append(Timing(label, seconds, met, found, rate, note, details))
        if len(timings) == 2:
            break
    return timings


def run_nuts_extrapolated(
    problem: Problem,
    subset: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    **settings,
) -> list[Timing]:
    """Estimate the time of NUTS: leapfrogs counted on fewer rows, times a gradient of all rows.

    The posterior of the subset has the same shape up to its scale, so adapted NUTS builds trees of
    the same size. Compilation is not counted.

    Parameters
    ----------
    problem, subset
        All rows, and some of them.
    truth
        Moments of the *subset's* posterior.
    criterion, rng_key, settings
        Arguments of the run on the subset: see `run_nuts`.
    """
    gradient = gradient_seconds(problem)
    timings = []
    for small in run_nuts(subset, truth, criterion, rng_key, **settings):
        leapfrogs = small.details["warmup_leapfrogs"] + small.details["draw_leapfrogs"]
        note = (
            f"EXTRAPOLATED: {leapfrogs} leapfrogs counted at N={subset.size} times "
            f"{1e3 * gradient:.3g} ms for a gradient at N={problem.size}; compilation not charged"
        )
        timings.append(
            small._replace(
                label=f"{small.label} (extrapolated)",
                seconds=leapfrogs * gradient,
                rate=small.details["ess"] / (small.details["draw_leapfrogs"] * gradient),
                note=note,
                details=small.details | {"gradient_seconds": gradient, "subset": subset.size},
            )
        )
    return timings


def gradient_seconds(problem: Problem) -> float:
    """Return the median time of the potential and its gradient for all rows: one leapfrog."""
    model = flat_model(problem)
    function = jax.jit(jax.value_and_grad(model.potential))
    jax.block_until_ready(function(model.start, model.arrays))
    times = []
    for _ in range(GRADIENT_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(function(model.start, model.arrays))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
