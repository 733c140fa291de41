"""Time models with thousands of latents by group, against NUTS.

Both are timed from nothing to a worst effective sample size of 400: set-up or warm-up, compilation
and draws. A clock is read after the draws are ready. The draws of a run are charged in proportion,
seconds before the first draw + seconds of the draws x 400 / ESS, so that runs may be longer or
shorter than that; NUTS may be given few draws where it is slow. The ESS of SGWORLD is the worst of
all latents, that of NUTS the worst of the parameters that all groups share, because the worst of
thousands of latents is too noisy in few draws: this favours NUTS.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import NUTS

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.checks import check_choice
from sgworld_mcmc.progress import watch

__all__ = ["PROBLEMS", "Cost", "add_arguments", "compare", "run_cli"]

WANTED = 400
# Transitions of NUTS between two looks at the clock.
CHUNK = 25
DRAWING = ("warm-up", "draws")


class Cost(NamedTuple):
    """What a sampler has cost.

    Attributes
    ----------
    before, drawing
        Seconds before the first draw, and of the draws.
    draws, ess
        Number of draws, and their worst effective sample size.
    epochs
        Passes over the data for each effective draw.
    samples
        Constrained draws by site, (draws, ...).
    """

    before: float
    drawing: float
    draws: int
    ess: float
    epochs: float
    samples: dict[str, np.ndarray]

    @property
    def seconds(self) -> float:
        """Seconds from nothing to an effective sample size of 400."""
        return self.before + self.drawing * WANTED / self.ess


def intercepts(size: int, groups: int, features: int = 5, seed: int = 0):
    """Return a logistic regression with an intercept for each group, non-centred, and its data."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(size, features)).astype(np.float32)
    group = rng.integers(0, groups, size).astype(np.int32)
    logits = (0.8 * rng.normal(size=groups) - 0.5)[group] + X @ (0.5 * rng.normal(size=features))
    return intercepts_model, (X, group, _bernoulli(rng, logits), groups)


def centred(size: int, groups: int, features: int = 5, seed: int = 0):
    """Return the same with the intercepts themselves as latents."""
    return centred_model, intercepts(size, groups, features, seed)[1]


def slopes(size: int, groups: int, seed: int = 0):
    """Return a logistic regression with correlated intercepts and slopes by group, and its data."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=size).astype(np.float32)
    group = rng.integers(0, groups, size).astype(np.int32)
    lower = np.linalg.cholesky([[0.64, -0.2], [-0.2, 0.25]])
    own = np.array([-0.5, 0.7]) + rng.normal(size=(groups, 2)) @ lower.T
    y = _bernoulli(rng, own[group, 0] + own[group, 1] * x)
    return slopes_model, (x, group, y, groups)


def crossed(size: int, groups: int, seed: int = 0):
    """Return a normal model with two crossed groupings, the second of a third as many levels."""
    rng = np.random.default_rng(seed)
    others = groups // 3
    first = rng.integers(0, groups, size).astype(np.int32)
    second = rng.integers(0, others, size).astype(np.int32)
    mean = 0.3 + 0.7 * rng.normal(size=groups)[first] + 0.5 * rng.normal(size=others)[second]
    y = (mean + rng.normal(size=size)).astype(np.float32)
    return crossed_model, (first, second, y, groups, others)


# The function that makes a problem, its numbers of rows and of groups.
PROBLEMS: dict[str, tuple[Callable, int, int]] = {
    "intercepts": (intercepts, 100_000, 1000),
    "centred": (centred, 100_000, 1000),
    "intercepts-1e6": (intercepts, 1_000_000, 1000),
    "intercepts-1e6-5000": (intercepts, 1_000_000, 5000),
    "centred-1e6-5000": (centred, 1_000_000, 5000),
    "slopes": (slopes, 100_000, 1000),
    "crossed": (crossed, 75_000, 3000),
}


def run_sgworld(model: Callable, data: tuple, seed: int = 0, **settings) -> Cost:
    """Run SGWORLD with default settings and length."""
    mcmc = SGWORLD(model, **settings)
    start = time.perf_counter()
    with watch() as seen:
        mcmc.run(jax.random.key(seed), *data)
        samples = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
    seconds = time.perf_counter() - start
    samples = {site: np.asarray(x, float) for site, x in samples.items()}
    drawing = sum(stage.seconds for stage in seen.stages() if stage.name in DRAWING)
    chains, length = next(iter(samples.values())).shape[:2]
    ess = min(map(worst_ess, samples.values()))
    dynamics = mcmc.plan.dynamics
    epochs = chains * length * dynamics.steps_per_draw / dynamics.num_batches / ess
    flat = {site: x.reshape(chains * length, *x.shape[2:]) for site, x in samples.items()}
    return Cost(seconds - drawing, drawing, chains * length, ess, epochs, flat)


def run_nuts(
    model: Callable, data: tuple, seed: int, *, warmup: int, draws: int, max_seconds: float
) -> Cost:
    """Run one chain of NumPyro's NUTS with its default settings.

    The warm-up is ``warmup`` transitions long; the draws end early when the time is over.
    """
    kernel = NUTS(model)
    arrays = tuple(jax.numpy.asarray(x) for x in data if np.ndim(x))
    numbers = tuple(x for x in data if not np.ndim(x))

    @jax.jit
    def transitions(state, arrays):
        def one(state, _):
            state = kernel.sample(state, (*arrays, *numbers), {})
            return state, (state.z, state.num_steps)

        return jax.lax.scan(one, state, length=CHUNK)

    start = time.perf_counter()
    state = kernel.init(jax.random.key(seed), warmup, None, (*arrays, *numbers), {})
    for _ in range(-(-warmup // CHUNK)):
        state, _ = jax.block_until_ready(transitions(state, arrays))
    before, parts, steps = time.perf_counter() - start, [], 0
    while len(parts) * CHUNK < draws and time.perf_counter() - start < before + max_seconds:
        state, (z, number) = jax.block_until_ready(transitions(state, arrays))
        parts.append(jax.tree.map(np.asarray, z))
        steps += int(number.sum())
    drawing = time.perf_counter() - start - before
    z = {site: np.concatenate([part[site] for part in parts]) for site in parts[0]}
    samples = jax.vmap(kernel.postprocess_fn((*arrays, *numbers), {}))(z)
    samples = {site: np.asarray(x, float) for site, x in samples.items() if site in z}
    shared = [x for x in samples.values() if max(x.shape[1:], default=0) < 20]
    ess = min(worst_ess(x[None]) for x in shared)
    return Cost(before, drawing, len(z[next(iter(z))]), ess, steps / ess, samples)


def worst_ess(samples: np.ndarray) -> float:
    """Return the smallest effective sample size of (chains, draws, ...) numbers that vary."""
    flat = samples.reshape(*samples.shape[:2], -1)
    moving = flat.std((0, 1)) > 0
    return float(np.min(effective_sample_size(flat[:, :, moving])))


def disagreement(ours: Cost, other: Cost) -> tuple[float, float]:
    """Return the largest distance of means of shared parameters in sd, and of log sd.

    The Monte Carlo errors of both are part of it.
    """
    far, wide = 0.0, 0.0
    for site, reference in other.samples.items():
        mine = ours.samples[site]
        if max(reference.shape[1:], default=0) >= 20:
            continue
        sd = reference.std(0)
        moving = sd > 0
        shift = np.abs(mine.mean(0) - reference.mean(0)) / np.where(moving, sd, 1)
        ratio = np.log(np.where(moving, mine.std(0), 1) / np.where(moving, sd, 1))
        far = max(far, float(np.max(np.where(moving, shift, 0))))
        wide = max(wide, float(np.abs(ratio).max()))
    return far, wide


def compare(
    name: str, *, seed: int = 0, warmup: int = 500, draws: int = 500, max_seconds: float = 600.0
) -> tuple[Cost, Cost]:
    """Run both samplers on a problem, one after the other; NUTS with a warm-up of 500."""
    check_choice("problem", name, tuple(PROBLEMS))
    make, size, groups = PROBLEMS[name]
    model, data = make(size, groups)
    ours = run_sgworld(model, data, seed)
    limits = {"warmup": warmup, "draws": draws, "max_seconds": max_seconds}
    return ours, run_nuts(model, data, seed, **limits)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark hierarchies`` to an `argparse` parser."""
    parser.add_argument("--problem", choices=PROBLEMS, default="intercepts", help="(intercepts)")
    parser.add_argument("--seed", type=int, default=0, help="of the keys (0)")
    parser.add_argument("--warmup", type=int, default=500, help="of NUTS (500)")
    parser.add_argument("--draws", type=int, default=500, help="of NUTS at most (500)")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="for NUTS's draws (600)")


def run_cli(namespace) -> int:
    """Run with the parsed options, print what both cost, and return 0."""
    ours, other = compare(
        namespace.problem,
        seed=namespace.seed,
        warmup=namespace.warmup,
        draws=namespace.draws,
        max_seconds=namespace.max_seconds,
    )
    _, size, groups = PROBLEMS[namespace.problem]
    print(f"{namespace.problem}: N={size}, {groups} groups; seconds to a worst ESS of {WANTED}")
    for label, cost in (("SGWORLD", ours), (f"NUTS, warm-up {namespace.warmup}", other)):
        print(
            f"{label:18} {cost.seconds:8.1f} s ({cost.before:.1f} s before the first draw, "
            f"{cost.draws} draws in {cost.drawing:.1f} s, worst ESS {cost.ess:.0f}, "
            f"{cost.epochs:.2f} passes for each effective draw)"
        )
    far, wide = disagreement(ours, other)
    print(f"ratio {other.seconds / ours.seconds:.1f}; ", end="")
    print(f"shared parameters differ by at most {far:.2f} sd, their log sd by {wide:.2f}")
    return 0


def _bernoulli(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    return (rng.random(len(logits)) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def intercepts_model(X, group, y, groups):
    """Logistic regression with non-centred intercepts."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups]).to_event(1))
    with numpyro.plate("rows", len(y)):
        logits = (mu + tau * z)[group] + X @ beta
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def centred_model(X, group, y, groups):
    """Logistic regression with centred intercepts."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5))
    tau = numpyro.sample("tau", dist.HalfNormal(1.0))
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    intercept = numpyro.sample("intercept", dist.Normal(mu, tau).expand([groups]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=intercept[group] + X @ beta), obs=y)


def slopes_model(x, group, y, groups):
    """Logistic regression with correlated intercepts and slopes."""
    mu = numpyro.sample("mu", dist.Normal(0, 1.5).expand([2]).to_event(1))
    sd = numpyro.sample("sd", dist.HalfNormal(1.0).expand([2]).to_event(1))
    lower = numpyro.sample("lower", dist.LKJCholesky(2, 2.0))
    z = numpyro.sample("z", dist.Normal(0, 1).expand([groups, 2]).to_event(2))
    own = mu + z @ (sd[:, None] * lower).T
    with numpyro.plate("rows", len(y)):
        logits = own[group, 0] + own[group, 1] * x
        numpyro.sample("y", dist.Bernoulli(logits=logits), obs=y)


def crossed_model(first, second, y, groups, others):
    """Normal rows with two crossed groupings, non-centred."""
    mu = numpyro.sample("mu", dist.Normal(0, 2))
    s1 = numpyro.sample("s1", dist.HalfNormal(1.0))
    s2 = numpyro.sample("s2", dist.HalfNormal(1.0))
    sigma = numpyro.sample("sigma", dist.HalfNormal(2.0))
    u = numpyro.sample("u", dist.Normal(0, 1).expand([groups]).to_event(1))
    v = numpyro.sample("v", dist.Normal(0, 1).expand([others]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(mu + s1 * u[first] + s2 * v[second], sigma), obs=y)
