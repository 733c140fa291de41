"""Level and power of the auditor, on twenty exact posteriors with errors that are known.

Exact draws are audited as they are (how often are they blamed?), with all widths 10 % too large,
with all means off by 0.2 posterior standard deviations, and with the first parameter alone off by
as much. Draws are made in unconstrained coordinates. In every other set the draws without an error
are those of a lazy chain, which stays where it is in half of its steps: they are correlated, and
their law is exact all the same.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np
from numpyro.infer.util import unconstrain_fn
from scipy import stats

from sgworld_mcmc import Unconstrained, exact
from sgworld_mcmc.auditing.audit import Auditor

__all__ = ["ERRORS", "TARGETS", "add_arguments", "audit_target", "run_cli"]

EFFECTIVE = 1000
LEVEL = 0.01
WIDTH, SHIFT = 1.1, 0.2

TARGETS: dict[str, Callable] = {
    "mean-1": lambda: exact.GaussianMean(dim=1),
    "mean-3": lambda: exact.GaussianMean(dim=3),
    "mean-10": lambda: exact.GaussianMean(dim=10),
    "mean-30": lambda: exact.GaussianMean(dim=30),
    "mean-few": lambda: exact.GaussianMean(num_data=5, dim=2),
    "linear-2": lambda: exact.LinearRegression(dim=2),
    "linear-5": lambda: exact.LinearRegression(dim=5),
    "linear-20": lambda: exact.LinearRegression(dim=20),
    "linear-5-correlated": lambda: exact.LinearRegression(dim=5, correlation=0.9),
    "linear-20-correlated": lambda: exact.LinearRegression(dim=20, correlation=0.8),
    "linear-50": lambda: exact.LinearRegression(dim=50),
    "noise-1": lambda: exact.LinearRegressionUnknownNoise(dim=1),
    "noise-5": lambda: exact.LinearRegressionUnknownNoise(dim=5),
    "noise-few": lambda: exact.LinearRegressionUnknownNoise(num_data=12, dim=2),
    "noise-20": lambda: exact.LinearRegressionUnknownNoise(dim=20, correlation=0.5),
    "bernoulli-1000": lambda: exact.BetaBernoulli(),
    "bernoulli-20": lambda: exact.BetaBernoulli(num_data=20),
    "bernoulli-rare": lambda: exact.BetaBernoulli(num_data=200, probability=0.02),
    "poisson-1000": lambda: exact.GammaPoisson(),
    "poisson-5": lambda: exact.GammaPoisson(num_data=5),
}


def _wide(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return mean + WIDTH * (x - mean)


def _shifted(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return x + SHIFT * sd


def _one_wide(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.concatenate([_wide(x, mean, sd)[..., :1], x[..., 1:]], -1)


def _one_shifted(x: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    return np.concatenate([_shifted(x, mean, sd)[..., :1], x[..., 1:]], -1)


ERRORS: dict[str, Callable] = {
    "none": lambda x, mean, sd: x,
    "all widths": _wide,
    "all means": _shifted,
    "one width": _one_wide,
    "one mean": _one_shifted,
}


class Rates(NamedTuple):
    """How often draws of a target were blamed.

    Attributes
    ----------
    name, dimension
        The target, and its number of parameters.
    blamed
        Part of the sets of draws that were blamed, by kind of error.
    mean_error, width_error
        Errors that the auditor reports of draws with "all means" and "all widths", on average over
        parameters and sets: 0.2 and 1.1 are right.
    """

    name: str
    dimension: int
    blamed: dict[str, float]
    mean_error: float
    width_error: float


def audit_target(name: str, sets: int, seed: int = 0) -> Rates:
    """Audit sets of draws of one target, with each kind of error."""
    target = TARGETS[name]()
    auditor = Auditor(target.model, *target.data)
    exact_draws = _unconstrained(target, jax.random.key(seed), 100_000)
    sites, flat = _flat(exact_draws)
    mean, sd = flat.mean(0), flat.std(0)
    blamed, shifts, widths = {error: 0 for error in ERRORS}, [], []
    for number in range(sets):
        key = jax.random.fold_in(jax.random.key(seed + 1), number)
        _, x = _flat(_unconstrained(target, key, EFFECTIVE))
        x = x.reshape(4, -1, x.shape[1])
        for error, make in ERRORS.items():
            chains = _lazy(x, number) if error == "none" and number % 2 else x
            report = auditor(Unconstrained(sites(make(chains, mean, sd))))
            blamed[error] += not report.passed
            if error == "all means":
                shifts.append(report.mean_shift.mean())
            if error == "all widths":
                widths.append(report.width_ratio.mean())
    parts = {error: count / sets for error, count in blamed.items()}
    return Rates(name, len(mean), parts, float(np.mean(shifts)), float(np.mean(widths)))


def _lazy(x: np.ndarray, seed: int) -> np.ndarray:
    """Return chains (chains, draws, D) that repeat about every other one of these draws."""
    chains, draws = x.shape[:2]
    moves = np.random.default_rng(seed).random((chains, draws)) < 0.5
    places = np.maximum.accumulate(np.where(moves, np.arange(draws), 0), axis=1)
    return np.take_along_axis(x, places[..., None], axis=1)


def _unconstrained(target, key: jax.Array, number: int) -> dict[str, np.ndarray]:
    """Return exact draws in unconstrained coordinates."""
    draws = target.sample(key, number)
    with jax.enable_x64(True):
        free = jax.vmap(lambda d: unconstrain_fn(target.model, target.data, {}, d))
        return {site: np.asarray(x) for site, x in free(draws).items()}


def _flat(draws: dict[str, np.ndarray]) -> tuple[Callable, np.ndarray]:
    """Return draws as (S, D), and the function back to sites."""
    shapes = {site: x.shape[1:] for site, x in draws.items()}
    flat = np.concatenate([x.reshape(len(x), -1) for x in draws.values()], axis=1)

    def sites(x):
        result, start = {}, 0
        for site, shape in shapes.items():
            stop = start + int(np.prod(shape))
            result[site] = x[..., start:stop].reshape(*x.shape[:-1], *shape)
            start = stop
        return result

    return sites, flat


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark auditor`` to an `argparse` parser."""
    parser.add_argument("--sets", type=int, default=20, help="of draws for each target (20)")
    parser.add_argument("--targets", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--seed", type=int, default=0, help="of the keys (0)")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, and return 0."""
    start, sets = time.perf_counter(), namespace.sets
    print(f"Part of {sets} sets of draws that are blamed at a level of 1 %, ESS {EFFECTIVE}")
    print(f"{'target':22} {'D':>3}  " + "  ".join(f"{error:>10}" for error in ERRORS), end="")
    print("   mean error  width ratio (all widths)")
    found = []
    for name in namespace.targets:
        rates = audit_target(name, sets, namespace.seed)
        found.append(rates)
        row = "  ".join(f"{rates.blamed[error]:10.2f}" for error in ERRORS)
        print(f"{name:22} {rates.dimension:3}  {row}   {rates.mean_error:10.3f}", end="")
        print(f"  {rates.width_error:11.3f}")
    row = "  ".join(f"{np.mean([r.blamed[error] for r in found]):10.3f}" for error in ERRORS)
    print(f"{'all':22} {'':3}  {row}")
    number = sets * len(found)
    count = round(sum(r.blamed["none"] for r in found) * sets)
    low, high = stats.binomtest(count, number).proportion_ci(0.95)
    print(f"Level: {count} of {number} exact sets were blamed ({low:.3f} to {high:.3f}).")
    print(f"{time.perf_counter() - start:.0f} s")
    return 0
