"""NumPyro's NUTS until it meets the criterion, measured or extrapolated from fewer rows."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from sgworld_mcmc.benchmarks.accuracy.problem import Moments, Problem
from sgworld_mcmc.benchmarks.accuracy.score import score
from sgworld_mcmc.benchmarks.laplace import flat_model
from sgworld_mcmc.benchmarks.speed.timing import Criterion, Timing

__all__ = ["gradient_seconds", "run_nuts", "run_nuts_extrapolated"]

GRADIENT_ROUNDS = 7


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
) -> Timing:
    """NumPyro's NUTS kernel with its default settings, one chain, until the criterion is met.

    One chain, one compilation and half of NumPyro's usual warm-up: the fewest gradients that a
    user of NUTS may hope to get away with.

    Parameters
    ----------
    warmup, chunk
        Transitions of the adaptation, and between two looks at the draws.
    max_draws, max_seconds
        When to give up.
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
    parts, draw_steps, found = [], 0, None
    while not parts or (len(parts) * chunk < max_draws and seconds < max_seconds):
        start = time.perf_counter()
        state, (z, steps) = transitions(state, arrays)
        parts.append(jax.tree.map(np.asarray, constrain(z, arrays)))
        draw_steps += int(jnp.sum(steps))
        seconds += time.perf_counter() - start
        samples = {site: np.concatenate([p[site] for p in parts])[None] for site in parts[0]}
        found = score(samples, truth)
        if criterion.met(found):
            break
    draws = len(parts) * chunk
    ess = float(found.ess.min())
    details = {
        "warmup": warmup,
        "draws": draws,
        "warmup_leapfrogs": warmup_steps,
        "draw_leapfrogs": draw_steps,
        "seconds_of_warmup": after_warmup,
        "ess": ess,
    }
    note = f"{warmup} + {draws} transitions, {warmup_steps} + {draw_steps} leapfrogs, one chain"
    rate = ess / (seconds - after_warmup)
    return Timing("NUTS", seconds, criterion.met(found), found, rate, note, details)


def run_nuts_extrapolated(
    problem: Problem,
    subset: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    **settings,
) -> Timing:
    """Leapfrogs counted on fewer rows, times the seconds of a gradient on all of them.

    The posterior of the subset has the same shape up to its scale, so adapted NUTS builds trees of
    the same size; compilation is not charged.

    Parameters
    ----------
    problem, subset
        All rows, and some of them.
    truth
        Moments of the *subset's* posterior.
    criterion, rng_key, settings
        Of the run on the subset: see `run_nuts`.
    """
    small = run_nuts(subset, truth, criterion, rng_key, **settings)
    gradient = gradient_seconds(problem)
    leapfrogs = small.details["warmup_leapfrogs"] + small.details["draw_leapfrogs"]
    rate = small.details["ess"] / (small.details["draw_leapfrogs"] * gradient)
    note = (
        f"EXTRAPOLATED: {leapfrogs} leapfrogs counted at N={subset.size} times "
        f"{1e3 * gradient:.3g} ms for a gradient at N={problem.size}; compilation not charged"
    )
    details = small.details | {"gradient_seconds": gradient, "subset": subset.size}
    return Timing(
        "NUTS (extrapolated)", leapfrogs * gradient, small.met, small.score, rate, note, details
    )


def gradient_seconds(problem: Problem) -> float:
    """Median time of the potential and its gradient at all rows: that of one leapfrog."""
    model = flat_model(problem)
    function = jax.jit(jax.value_and_grad(model.potential))
    jax.block_until_ready(function(model.start, model.arrays))
    times = []
    for _ in range(GRADIENT_ROUNDS):
        start = time.perf_counter()
        jax.block_until_ready(function(model.start, model.arrays))
        times.append(time.perf_counter() - start)
    return float(np.median(times))
