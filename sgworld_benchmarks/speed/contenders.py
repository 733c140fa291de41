"""Run SGWORLD, Laplace and SVI on one problem, timed from nothing to the draws.

The time of every contender includes everything: search for the mode, curvature, adaptation and
compilation. Runs of NUTS (:mod:`sgworld_benchmarks.speed.nuts`) and SVI grow until they meet the
criterion. They stop at the first look at which they do; the looks themselves are not timed.
"""

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoMultivariateNormal
from numpyro.optim import optax_to_numpyro
from optax import adam, cosine_decay_schedule

from sgworld_benchmarks import laplace
from sgworld_benchmarks.accuracy.problem import Moments, Problem
from sgworld_benchmarks.accuracy.run import package_warnings, settings_of
from sgworld_benchmarks.accuracy.score import score
from sgworld_benchmarks.speed.timing import Criterion, Timing
from sgworld_mcmc import SGWORLD

__all__ = ["run_laplace", "run_sgworld", "run_svi"]

SVI_CHUNK = 500
DRAWS = 4000


def run_sgworld(
    problem: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    sampler: Callable = SGWORLD,
) -> tuple[Timing, Any]:
    """Run SGWORLD with default settings and length, then make further runs for the rate.

    Returns
    -------
    (timing, mcmc)
        The rate is that of the second of two further runs, which neither compiles nor sets up.
    """
    with package_warnings() as messages:
        start = time.perf_counter()
        mcmc = sampler(problem.model)
        mcmc.run(rng_key, *problem.data)
        samples = _numpy(mcmc.get_samples(group_by_chain=True))
        seconds = time.perf_counter() - start
        report = mcmc.bias_report() if hasattr(mcmc, "bias_report") else None
    found = score(samples, truth)
    for _ in range(2):
        mcmc.post_warmup_state = mcmc.last_state
        start = time.perf_counter()
        mcmc.run(mcmc.last_state.rng_key, *problem.data)
        samples = _numpy(mcmc.get_samples(group_by_chain=True))
        further = time.perf_counter() - start
    rate = score(samples, truth).ess.min() / further
    settings = settings_of(report)
    chosen = [
        f"{field} {value if isinstance(value, str) else f'{value:.4g}'}"
        for field, value in settings.items()
    ]
    note = "; ".join([", ".join(chosen) or "default settings", *messages])
    details = {"settings": settings, "warnings": messages, "seconds_of_further_run": further}
    timing = Timing("SGWORLD, defaults", seconds, criterion.met(found), found, rate, note, details)
    return timing, mcmc


def run_laplace(
    problem: Problem, truth: Moments, criterion: Criterion, rng_key: jax.Array
) -> Timing:
    """Draw 4000 times from the Gaussian approximation at the mode in unconstrained coordinates."""
    start = time.perf_counter()
    samples = laplace.draws_of(laplace.fit(problem), rng_key, DRAWS)
    seconds = time.perf_counter() - start
    found = score(samples, truth)
    note = f"{DRAWS} independent draws of the Gaussian at the mode"
    return Timing("Laplace", seconds, criterion.met(found), found, None, note, {})


def run_svi(
    problem: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    steps: int = 5000,
) -> Timing:
    """Run NumPyro's SVI with a multivariate normal guide until it meets the criterion.

    The guide is AutoMultivariateNormal. Adam has a cosine schedule from 0.01 to 0 over all
    ``steps``, with full data and one particle.
    """
    guide = AutoMultivariateNormal(problem.model, init_scale=0.01)
    schedule = cosine_decay_schedule(0.01, steps)
    svi = SVI(problem.model, guide, optax_to_numpyro(adam(schedule)), Trace_ELBO())
    chunk = min(steps, SVI_CHUNK)
    init_key, *draw_keys = jax.random.split(rng_key, 2 + -(-steps // chunk))
    arrays = tuple(jnp.asarray(x) for x in problem.arrays)

    @jax.jit
    def update(state, arrays):
        data = problem.arguments(arrays)
        return jax.lax.scan(lambda s, _: svi.update(s, *data), state, length=chunk)[0]

    start = time.perf_counter()
    state = svi.init(init_key, *problem.data)
    seconds, done = time.perf_counter() - start, 0
    for key in draw_keys:
        start = time.perf_counter()
        state = jax.block_until_ready(update(state, arrays))
        done += chunk
        seconds += time.perf_counter() - start
        draws = guide.sample_posterior(
            key, svi.get_params(state), *problem.data, sample_shape=(DRAWS,)
        )
        found = score({site: np.asarray(draws[site])[None] for site in problem.sites}, truth)
        if criterion.met(found) or done >= steps:
            break
    note = f"{done} steps of Adam with all rows; drawing not charged"
    return Timing("SVI", seconds, criterion.met(found), found, None, note, {"steps": done})


def _numpy(samples):
    return jax.tree.map(np.asarray, samples)
