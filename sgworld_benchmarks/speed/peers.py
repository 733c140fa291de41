"""Time samplers of other packages: BlackJAX's MCLMC, MAMS and SGLD, and NumPyro's HMCECS.

Each runs one chain with the settings that its documentation gives, until its draws meet the
criterion: somebody who knows the truth would stop there. SGLD has no rule for its step size: it
gets the best of a few, the trials of the others are not charged, and the scale of the posterior
that the steps are multiples of is taken from the reference. HMCECS gets the mode of a Laplace
approximation as its reference point, whose search is charged, and a model that subsamples.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import blackjax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import HMCECS, NUTS, init_to_value

from sgworld_benchmarks import laplace
from sgworld_benchmarks.accuracy.problem import Moments, Problem
from sgworld_benchmarks.accuracy.regressions import logistic_model, normal_vector
from sgworld_benchmarks.accuracy.score import score
from sgworld_benchmarks.laplace import FlatModel, flat_model
from sgworld_benchmarks.speed.timing import Criterion, Timing

__all__ = ["run_peers"]

# Steps of MCLMC's and MAMS's adaptation, as in BlackJAX's own examples, and MAMS's acceptance rate.
TUNING, ACCEPTANCE = 10_000, 0.9
# Rows of a subsample of HMCECS, blocks that it is renewed in, and transitions of the warm-up, as in
# NumPyro's example on the covertype data.
SUBSAMPLE, BLOCKS, WARMUP = 1000, 100, 500
# Steps of SGLD, in units of the smallest variance, its rows, and the part that is thrown away.
STEPS, ROWS, BURN_IN = (0.02, 0.1, 0.5), 1000, 0.1
# Standard deviation of the prior of the logistic regression.
PRIOR = 2.0
# Draws between two looks, of those that are cheap and of those that are not; the largest number.
MANY, FEW, MOST = 2000, 50, 200_000


def run_peers(
    problem: Problem,
    truth: Moments,
    criterion: Criterion,
    rng_key: jax.Array,
    max_seconds: float = 600.0,
) -> list[Timing]:
    """Run all peers on a problem, those that subsample where the model is the logistic
    regression.

    Parameters
    ----------
    max_seconds
        Seconds after which each of them gives up.
    """
    keys = jax.random.split(rng_key, 3 + len(STEPS))
    limits = criterion, max_seconds
    timings = [_mclmc(problem, truth, keys[0], *limits), _mams(problem, truth, keys[1], *limits)]
    if problem.model is logistic_model:
        tried = [
            _sgld(problem, truth, key, *limits, step=step)
            for key, step in zip(keys[3:], STEPS, strict=True)
        ]
        timings.append(min(tried, key=lambda timing: (not timing.met, timing.seconds)))
        timings.append(_hmcecs(problem, truth, keys[2], *limits))
    return timings


def _mclmc(problem, truth, rng_key, criterion, max_seconds):
    started = time.perf_counter()
    model, density, constrain = _compiled(problem)
    kernel = blackjax.mclmc.build_kernel()
    init_key, tune_key, run_key = jax.random.split(rng_key, 3)

    @jax.jit
    def tune(arrays):
        state = blackjax.mclmc.init(model.start, density(arrays), init_key)
        return blackjax.mclmc_find_L_and_step_size(
            kernel, TUNING, state, tune_key, logdensity_fn=density(arrays)
        )[:2]

    @jax.jit
    def chunk(state, key, params, arrays):
        def step(state, key):
            state, _ = kernel(
                key, state, density(arrays), params.inverse_mass_matrix, params.L, params.step_size
            )
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(key, MANY))

    state, params = tune(model.arrays)
    advance = _keyed(lambda state, key: chunk(state, key, params, model.arrays), run_key)
    run = _Run("MCLMC", started, criterion, max_seconds)
    note = f"unadjusted, {TUNING} steps of tuning"
    return run.until_met(advance, state, constrain, truth, note)


def _mams(problem, truth, rng_key, criterion, max_seconds):
    started = time.perf_counter()
    model, density, constrain = _compiled(problem)
    kernel = blackjax.mcmc.adjusted_mclmc_dynamic.build_kernel(
        integration_steps_fn=lambda key, mean: 1 + jax.random.poisson(key, mean - 1)
    )
    init_key, tune_key, run_key = jax.random.split(rng_key, 3)

    def tuned(
        rng_key, state, logdensity_fn, step_size, inverse_mass_matrix, integration_steps_params
    ):
        return kernel(
            rng_key,
            state,
            logdensity_fn,
            step_size,
            inverse_mass_matrix=inverse_mass_matrix,
            integration_steps_params=integration_steps_params,
        )

    @jax.jit
    def tune(arrays):
        init = blackjax.mcmc.adjusted_mclmc_dynamic.init
        state = init(model.start, density(arrays), init_key)
        return blackjax.adjusted_mclmc_find_L_and_step_size(
            tuned, density(arrays), TUNING, state, tune_key, ACCEPTANCE
        )[:2]

    @jax.jit
    def chunk(state, key, params, arrays):
        def step(state, key):
            mean = (params.L / params.step_size,)
            state, _ = tuned(
                key, state, density(arrays), params.step_size, params.inverse_mass_matrix, mean
            )
            return state, state.position

        return jax.lax.scan(step, state, jax.random.split(key, MANY))

    state, params = tune(model.arrays)
    advance = _keyed(lambda state, key: chunk(state, key, params, model.arrays), run_key)
    run = _Run("MAMS", started, criterion, max_seconds)
    note = f"adjusted MCLMC, {TUNING} steps of tuning, acceptance {ACCEPTANCE}"
    return run.until_met(advance, state, constrain, truth, note)


def _sgld(problem, truth, rng_key, criterion, max_seconds, *, step):
    started = time.perf_counter()
    rows, size = tuple(jnp.asarray(x) for x in problem.arrays), problem.size
    step_size = step * float(np.min(truth.sd) ** 2)
    estimator = blackjax.sgmcmc.gradients.grad_estimator(
        lambda beta: dist.Normal(0, PRIOR).log_prob(beta).sum(),
        lambda beta, row: dist.Bernoulli(logits=row[0] @ beta).log_prob(row[1]),
        size,
    )
    sampler = blackjax.sgld(estimator)

    @jax.jit
    def chunk(state, key, rows):
        def one(state, key):
            pick, move = jax.random.split(key)
            index = jax.random.randint(pick, (ROWS,), 0, size)
            state = sampler.step(move, state, tuple(x[index] for x in rows), step_size)
            return state, state

        return jax.lax.scan(one, state, jax.random.split(key, MANY))

    advance = _keyed(lambda state, key: chunk(state, key, rows), rng_key)
    state = sampler.init(jnp.zeros(rows[0].shape[1]))
    run = _Run(f"SGLD, {ROWS} rows", started, criterion, max_seconds)
    note = f"BlackJAX, steps of {step:g} smallest variances, the best of {len(STEPS)}"
    return run.until_met(advance, state, lambda z: {"beta": z}, truth, note, BURN_IN)


def _hmcecs(problem, truth, rng_key, criterion, max_seconds):
    started = time.perf_counter()
    mode = {"beta": jnp.asarray(laplace.fit(problem).mode, jnp.result_type(float))}

    def model(X, y):
        beta = normal_vector("beta", X.shape[1], PRIOR)
        with numpyro.plate("data", y.shape[0], subsample_size=SUBSAMPLE):
            some = numpyro.subsample(X, event_dim=1), numpyro.subsample(y, event_dim=0)
            numpyro.sample("y", dist.Bernoulli(logits=some[0] @ beta), obs=some[1])

    inner = NUTS(model, init_strategy=init_to_value(values=mode))
    kernel = HMCECS(inner, num_blocks=BLOCKS, proxy=HMCECS.taylor_proxy(mode))
    rows = tuple(jnp.asarray(x) for x in problem.arrays)
    # The proxy computes sums over all rows here, and keeps the rows of this call.
    state = kernel.init(rng_key, WARMUP, None, rows, {})

    @partial(jax.jit, static_argnames="length")
    def chunk(state, rows, length):
        def one(state, _):
            state = kernel.sample(state, rows, {})
            return state, state.z["beta"]

        return jax.lax.scan(one, state, length=length)

    for _ in range(WARMUP // FEW):
        state, _ = chunk(state, rows, FEW)
    jax.block_until_ready(state)
    run = _Run(f"HMCECS, {SUBSAMPLE} rows", started, criterion, max_seconds)
    note = f"warm-up of {WARMUP}, {BLOCKS} blocks, Taylor proxy at the mode"
    advance = lambda state: chunk(state, rows, FEW)  # noqa: E731
    return run.until_met(advance, state, lambda z: {"beta": z}, truth, note)


class _Run(NamedTuple):
    """A run of one chain until its draws meet the criterion; the looks are not charged."""

    label: str
    started: float
    criterion: Criterion
    max_seconds: float

    def until_met(self, advance, state, constrain, truth, note, burn_in=0.0) -> Timing:
        """Return the line of the table.

        ``advance(state)`` returns the state and a chunk of draws, ``constrain`` their sites.
        """
        seconds, before, parts = time.perf_counter() - self.started, 0.0, []
        before = seconds
        while True:
            begin = time.perf_counter()
            state, drawn = jax.block_until_ready(advance(state))
            parts.append(jax.tree.map(np.asarray, constrain(drawn)))
            seconds += time.perf_counter() - begin
            samples = {site: np.concatenate([part[site] for part in parts]) for site in parts[0]}
            count = len(next(iter(samples.values())))
            chain = {site: x[int(burn_in * count) :][None] for site, x in samples.items()}
            found = score(chain, truth)
            if self.criterion.met(found) or seconds >= self.max_seconds or count >= MOST:
                break
        ess = float(found.ess.min())
        met, details = self.criterion.met(found), {"draws": count, "ess": ess}
        text = f"{count} draws, one chain; {note}"
        return Timing(self.label, seconds, met, found, ess / (seconds - before), text, details)


def _compiled(problem: Problem) -> tuple[FlatModel, Callable, Callable]:
    """Return the model, its log density given the arrays, and the sites of (S, D) positions."""
    model = flat_model(problem)
    density = lambda arrays: lambda flat: -model.potential(flat, arrays)  # noqa: E731
    sites = jax.jit(lambda z, arrays: jax.vmap(lambda x: model.constrain(x, arrays))(z))

    def constrain(z):
        found = sites(z, model.arrays)
        return {site: found[site] for site in problem.sites}

    return model, density, constrain


def _keyed(advance: Callable, rng_key: jax.Array) -> Callable:
    """Return ``advance(state, key)`` as a function of the state that splits a key each time."""
    keys = [rng_key]

    def each(state):
        keys[0], own = jax.random.split(keys[0])
        return advance(state, own)

    return each
