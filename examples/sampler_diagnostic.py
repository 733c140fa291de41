"""Does a sampler violate detailed balance? SGLD and SGWORLD on an exact posterior.

python examples/sampler_diagnostic.py [--chains 128] [--epochs 4000] [--seed 0]

A linear regression whose scatter depends on the features, so that the noise of the minibatches is
not matched to the curvature and probability circulates. For several step sizes, beside the true
bias (an exact recursion), the entropy production and the test of detailed balance are measured from
moments recorded at every step; R-hat and effective sample size, from the same runs, see nothing.
The same posterior in whitened coordinates shows what the test cannot see: there any noise keeps
detailed balance, to leading order, however large the bias.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.sgmcmc.gradients import grad_estimator
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

import sgworld_mcmc as sg
from sgworld_mcmc import exact
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.data.fixed_partition import partition
from sgworld_mcmc.nonequilibrium import linear_chain_entropy_production_rate, recorded_moments
from sgworld_mcmc.sampling import lagged_moments as moments
from sgworld_mcmc.theory.epoch_maps import center, epoch_maps, replacement_map
from sgworld_mcmc.theory.stationary_recursion import stationary_path
from sgworld_mcmc.theory.step_matrices import steps_of

SIZE, BATCH, DIM = 200, 10, 3
COUNT = SIZE // BATCH
TIMES = (0.06, 0.12, 0.25, 0.5)
SAMPLERS = {
    "SGLD": ("replacement", False),
    "SGWORLD": ("batches", False),
    "SGLD, whitened": ("replacement", True),
}
STYLES = {
    "SGLD": ("#D55E00", "o"),
    "SGWORLD": ("#0072B2", "s"),
    "SGLD, whitened": ("#CC79A7", "v"),
}


class Problem(NamedTuple):
    """Batches in coordinates z with theta = scale z, and the posterior there."""

    batches: object  # of (features, responses)
    prior: np.ndarray  # (D, D) precision
    mean: np.ndarray
    covariance: np.ndarray
    stiffest: float  # largest curvature


class Row(NamedTuple):
    """Results for one sampler at one step size; production is per epoch, in nats."""

    time: float  # per epoch, in units of the stiffest curvature
    variance_error: float  # exact: the largest in any direction, relative
    production: float  # exact
    measured: float
    measured_error: float
    p_value: float
    r_hat: float
    ess: float  # of the least effective coordinate


def make_problem(seed, whitened):
    """Make a regression whose scatter grows with two features, but is modelled as constant."""
    rng = np.random.default_rng(seed)
    unit = rng.standard_normal((SIZE, DIM))
    features = unit * [1.0, 0.6, 0.4]
    # The gradient is noisy along the sum of two features whose curvatures differ.
    scatter = 0.1 + (unit[:, 0] + unit[:, 1]) ** 2
    responses = features @ [1.0, -1.0, 0.5] + scatter * rng.standard_normal(SIZE)
    noise = float(np.sqrt(np.mean(scatter**2)))
    posterior = exact.LinearRegression.from_data(features, responses, noise_scale=noise)
    mean, covariance = np.asarray(posterior.mean["beta"]), np.asarray(posterior.covariance)
    scale = np.linalg.cholesky(covariance) if whitened else np.eye(DIM)
    rows = (features @ scale / noise, responses / noise)
    inverse = np.linalg.inv(scale)
    covariance = inverse @ covariance @ inverse.T
    prior = scale.T @ scale / 10.0**2  # prior_scale of LinearRegression
    stiffest = 1 / np.linalg.eigvalsh(covariance)[0]
    batches = partition(jax.random.key(seed), rows, BATCH)
    return Problem(batches, prior, inverse @ mean, covariance, float(stiffest))


def predict(problem, order, steps):
    """Compute the exact stationary moments and the production per time step for each step size.

    A time step is a minibatch step with replacement and an epoch without; its mean map A and the
    covariance S determine the linear chain of the same second moments (docs/nonequilibrium.md,
    N11).
    """
    x, y = (np.asarray(part, float) for part in problem.batches.main)
    matrices = problem.prior + COUNT * np.einsum("bni,bnj->bij", x, x)
    offsets = COUNT * np.einsum("bni,bn->bi", x, y)
    stationary = stationary_path(matrices, offsets, steps, order=order)
    terms = center(matrices, offsets, None, None, None)
    kernels = [steps_of("independent", h, terms.hessian, 1.0) for h in steps]
    if order == "replacement":
        maps = [replacement_map(terms, kernel)[0].a for kernel in kernels]
    else:
        groups = epoch_maps(terms, kernels, order, "epoch", 2000, 0)
        maps = [np.mean([epoch.a for epoch, _ in group], axis=0) for group in groups]
    rates = []  # below 1e-10 they are rounding errors
    for a, moment in zip(maps, stationary, strict=True):
        noise = moment.covariance - a @ moment.covariance @ a.T
        rates.append(linear_chain_entropy_production_rate(a, (noise + noise.T) / 2))
    return stationary, rates


def _log_likelihood(position, row):
    return -0.5 * (row[1] - row[0] @ position) ** 2


@partial(quick_jit, static_argnames=("order", "epochs"))
def simulate(rng_key, start, batches, prior, step_size, order, epochs):
    """Run chains from ``start`` (chains, D); return positions after each epoch, and moments.

    Moments are recorded at every minibatch step with replacement, at every epoch without.
    """
    log_prior = lambda position: -0.5 * position @ prior @ position  # noqa: E731
    estimator = grad_estimator(log_prior, _log_likelihood, SIZE)
    record = moments.init(start, chains=True)
    chains = len(start)
    sgld, sgworld = sg.sgld(estimator), sg.sgworld.build_kernel(order)

    def one_step(key, state):
        batch_key, step_key = jax.random.split(key)
        rows = batches.fetch((), jax.random.randint(batch_key, (), 0, COUNT)).main
        return sgld.step(step_key, state, rows, step_size)[0]

    def one_epoch(key, state):
        return sgworld(key, state, estimator, batches, step_size)[0]

    advance = jax.vmap(one_step if order == "replacement" else one_epoch)

    def step(carry, key):
        state, record = carry
        state = advance(jax.random.split(key, chains), state)
        return (state, moments.update(record, state.position)), None

    def epoch(carry, key):
        keys = jax.random.split(key, COUNT if order == "replacement" else 1)
        carry, _ = jax.lax.scan(step, carry, keys)
        return carry, carry[0].position

    init_key, run_key = jax.random.split(rng_key)
    if order == "replacement":
        state = jax.vmap(sgld.init)(start)
    else:
        init = partial(sg.sgworld.init, num_batches=COUNT, order=order)
        state = jax.vmap(init)(start, jax.random.split(init_key, chains))
    (_, record), path = jax.lax.scan(epoch, (state, record), jax.random.split(run_key, epochs))
    return path.swapaxes(0, 1), record


def measure(problem, order, times, chains, epochs, seed):
    """Measure one sampler; its chains start in the predicted stationary Gaussian."""
    steps = np.asarray(times) / (COUNT * problem.stiffest)
    stationary, rates = predict(problem, order, steps)
    per_epoch = COUNT if order == "replacement" else 1
    factor = np.linalg.inv(np.linalg.cholesky(problem.covariance))
    rng = np.random.default_rng(seed)
    rows = []
    for k, (h, moment, rate) in enumerate(zip(steps, stationary, rates, strict=True)):
        start = rng.multivariate_normal(moment.mean, moment.covariance, chains)
        path, record = simulate(
            jax.random.fold_in(jax.random.key(seed), k),
            jnp.asarray(start, jnp.float32),
            problem.batches,
            jnp.asarray(problem.prior, jnp.float32),
            jnp.float32(h),
            order,
            epochs,
        )
        found = recorded_moments(record)
        production = found.plug_in_entropy_production()
        errors = np.linalg.eigvalsh(factor @ moment.covariance @ factor.T) - 1
        path = np.asarray(path, float)
        rows.append(
            Row(
                float(times[k]),
                float(errors[np.abs(errors).argmax()]),
                rate * per_epoch,
                production.rate * per_epoch,
                production.standard_error * per_epoch,
                found.detailed_balance_violation().p_value,
                float(np.max(split_gelman_rubin(path))),
                float(np.min(effective_sample_size(path))),
            )
        )
    return rows


def table(results):
    """Format the results as a table."""
    head = (
        f"{'T':>5} {'variance error':>14} {'production / epoch':>19} {'measured':>21} "
        f"{'p':>8} {'R-hat':>6} {'ESS':>7}"
    )
    lines = []
    for name, rows in results.items():
        lines += [name, head]
        for r in rows:
            lines.append(
                f"{r.time:5.3g} {r.variance_error:14.2%} {r.production:19.2e} "
                f"{r.measured:11.2e} ± {r.measured_error:.0e} {r.p_value:8.1e} {r.r_hat:6.3f} "
                f"{r.ess:7.0f}"
            )
        lines.append("")
    return "\n".join(lines)


def plot(results, path):
    """Plot true bias, entropy production and p against the time per epoch."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    FigureCanvasAgg(figure)
    bias, production, chance = figure.subplots(1, 3)
    for name, rows in results.items():
        color, marker = STYLES[name]
        style = {"color": color, "marker": marker, "ms": 5}
        t, error, rate, measured, se, p, *_ = np.array(rows).T
        bias.plot(t, np.abs(error), label=name, **style)
        production.plot(t, np.maximum(rate, 1e-12), color=color, lw=1)
        seen = measured > 2 * se
        shown = {**style, "ls": "", "capsize": 3}
        production.errorbar(t[seen], measured[seen], 2 * se[seen], **shown)
        # An arrow marks an upper limit if nothing is seen.
        limit = {"color": color, "marker": "$\\downarrow$", "ls": "", "ms": 8}
        production.plot(t[~seen], np.maximum(measured, 0)[~seen] + 2 * se[~seen], **limit)
        chance.plot(t, np.maximum(p, 1e-100), **style)
    chance.axhline(0.01, color="0.5", lw=0.8, ls="--")
    bias.set(title="true bias", ylabel="|relative error of the variance|, worst direction")
    production.set(title="entropy production", ylabel="nats per epoch")
    note = {"transform": production.transAxes, "va": "top", "fontsize": 8}
    production.text(0.03, 0.97, "lines: exact; arrows: not seen, below this", **note)
    production.set_ylim(bottom=1e-7)
    chance.set(title="test of detailed balance", ylabel="p (dashed: 0.01)")
    for ax in (bias, production, chance):
        ax.set(xscale="log", yscale="log", xlabel="time per epoch $T = h M \\lambda_{max}$")
        ax.set_xticks(t, [f"{time:g}" for time in t])
        ax.minorticks_off()
        ax.grid(True, which="major", lw=0.4, alpha=0.5)
    bias.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main(argv=None):
    """Print the table, write the picture, and return a dict of sampler name to list of `Row`."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--chains", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=4000, help="epochs of each chain")
    parser.add_argument(
        "--times", type=float, nargs="+", default=TIMES, help="step sizes as times per epoch"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of data, partition and chains")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of the picture")
    options = parser.parse_args(argv)
    if options.chains < 2 or options.epochs < 20 or min(options.times) <= 0:
        parser.error("at least 2 chains of 20 epochs are needed, and positive times")
    results = {}
    for name, (order, whitened) in SAMPLERS.items():
        problem = make_problem(options.seed, whitened)
        sizes = (options.times, options.chains, options.epochs, options.seed + 1)
        results[name] = measure(problem, order, *sizes)
    print(f"{SIZE} rows in {COUNT} batches; {options.chains} chains of {options.epochs} epochs")
    print(table(results))
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "diagnostic.png"
    plot(results, path)
    print(path)
    return results


if __name__ == "__main__":
    main()
