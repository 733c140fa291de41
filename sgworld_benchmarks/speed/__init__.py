"""Measure the seconds until the posterior is known, for SGWORLD and its alternatives.

``sgworld-mcmc benchmark speed`` has four parts: ``logistic`` (N = 100 000, D = 50), ``million``
(N = 1 000 000, D = 20, NUTS extrapolated), ``skewed`` (three posteriors that are visibly not
Gaussian) and ``cost`` (examples per effective draw at two sizes).
"""

import json
from pathlib import Path

import jax
import numpy as np

from sgworld_benchmarks.accuracy.problem import Problem
from sgworld_benchmarks.speed.contenders import run_laplace, run_sgworld, run_svi
from sgworld_benchmarks.speed.nuts import run_nuts, run_nuts_extrapolated
from sgworld_benchmarks.speed.peers import run_peers
from sgworld_benchmarks.speed.problems import SKEWED, logistic, truth
from sgworld_benchmarks.speed.timing import Criterion, Timing, table
from sgworld_mcmc.checks import check_integer

__all__ = ["PARTS", "add_arguments", "examples_per_effective_draw", "run_cli"]

PARTS = ("logistic", "million", "skewed", "cost")
ROUGH = Criterion(0.1, 0.10)
FINE = Criterion(0.1, 0.07)
# Laplace is visibly off if the mean of some scalar is off by more than the first number of standard
# deviations, or its standard deviation by more than the second number as a fraction.
VISIBLE = (0.2, 0.15)
SUBSET = 20_000
# The correlation of neighbouring features in the second of two designs. The first design, without
# correlations, is the easiest for NUTS.
CORRELATION = 0.9
SIZES = (100_000, 1_000_000)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark speed`` to an `argparse` parser."""
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=PARTS, help="which parts (default: all)"
    )
    parser.add_argument(
        "--scale",
        type=float,
        default=1.0,
        help="times the number of rows, for a trial (default: 1)",
    )
    parser.add_argument(
        "--dim", type=int, help="D of the logistic regressions (default: 50 and 20)"
    )
    parser.add_argument(
        "--nuts",
        choices=("run", "extrapolate", "skip"),
        default="run",
        help="NUTS until it meets the criterion (default); from a gradient's time and the "
        "leapfrogs on 20 000 rows (always so in part million); or not at all",
    )
    parser.add_argument(
        "--nuts-seconds", type=float, default=3600.0, help="when NUTS gives up (default: 3600)"
    )
    parser.add_argument(
        "--peers",
        action="store_true",
        help="also MCLMC, MAMS and SGLD of BlackJAX, and NumPyro's HMCECS",
    )
    parser.add_argument(
        "--peer-seconds", type=float, default=600.0, help="when each of them gives up (600)"
    )
    parser.add_argument(
        "--svi-steps", type=int, default=5000, help="when SVI gives up; 0: no SVI (default: 5000)"
    )
    parser.add_argument(
        "--reference-draws",
        type=int,
        default=20_000,
        help="of the importance sampling where no reference is stored (default: 20000)",
    )
    parser.add_argument(
        "--store", action="store_true", help="keep new references (full size) in the package"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the samplers (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help="for speed.json, with every scalar")


def run_cli(namespace) -> int:
    """Run the parts that are asked for, print their tables, and return 0."""
    check_integer("seed", namespace.seed, 0)
    check_integer("svi_steps", namespace.svi_steps, 0)
    check_integer("reference_draws", namespace.reference_draws, 100)
    if not namespace.scale > 0:
        raise ValueError(f"`scale` is {namespace.scale:g}; it must be positive.")
    if namespace.store and namespace.scale != 1:
        raise ValueError("`store` keeps references of the full size only: leave out `scale`.")
    if namespace.out:
        Path(namespace.out).mkdir(parents=True, exist_ok=True)
    parts = {
        "logistic": _logistic,
        "million": _million,
        "skewed": _skewed,
        "cost": _cost,
    }
    results = {}
    for index, part in enumerate(PARTS):
        if part in namespace.parts:
            key = jax.random.fold_in(jax.random.key(namespace.seed), index)
            results[part] = parts[part](namespace, key)
            jax.clear_caches()
    if namespace.out:
        path = Path(namespace.out) / "speed.json"
        path.write_text(json.dumps(results, indent=1, default=_plain))
    return 0


def _logistic(namespace, key):
    size, dim = _rows(100_000, namespace.scale), namespace.dim or 50
    return {
        name: _compare(name, logistic(size, dim, rho), ROUGH, namespace, key, svi=True)
        for name, rho in (("logistic", 0.0), ("logistic, correlated", CORRELATION))
    }


def _million(namespace, key):
    size, dim = _rows(1_000_000, namespace.scale), namespace.dim or 20
    return {
        name: _compare(name, logistic(size, dim, rho), ROUGH, namespace, key, nuts="extrapolate")
        for name, rho in (("million", 0.0), ("million, correlated", CORRELATION))
    }


def _skewed(namespace, key):
    results = {}
    for index, (name, make) in enumerate(SKEWED.items()):
        problem, own_key = make(namespace.scale), jax.random.fold_in(key, index)
        results[name] = _compare(name, problem, FINE, namespace, own_key, df=8.0, nuts="run")
    return results


def _compare(name, problem, criterion, namespace, key, *, df=None, nuts=None, svi=False):
    """Run all contenders on one problem, print the table, and return the entry for JSON."""
    draws = namespace.reference_draws
    known = truth(name, problem, draws, df, namespace.store)
    print(f"\n{problem.title} (N={problem.size}); reference: {known.source}", flush=True)
    keys = jax.random.split(key, 5)
    timings = [run_sgworld(problem, known.moments, criterion, keys[0])[0]]
    timings.append(run_laplace(problem, known.moments, criterion, keys[1]))
    nuts = namespace.nuts if nuts is None or namespace.nuts == "skip" else nuts
    limit = namespace.nuts_seconds
    if nuts == "run":
        timings += run_nuts(problem, known.moments, criterion, keys[2], max_seconds=limit)
    elif nuts == "extrapolate":
        subset = _subset(problem, min(SUBSET, problem.size))
        part = truth(f"{name}, subset", subset, draws, df, namespace.store)
        timings += run_nuts_extrapolated(
            problem, subset, part.moments, criterion, keys[2], max_seconds=limit
        )
    if namespace.peers:
        timings += run_peers(problem, known.moments, criterion, keys[4], namespace.peer_seconds)
    if svi and namespace.svi_steps:
        timings.append(run_svi(problem, known.moments, criterion, keys[3], namespace.svi_steps))
    print(
        f"criterion: every mean within {criterion.mean:g} sd, every sd within {criterion.sd:.0%}; "
        f"all seconds charged, on {jax.devices()[0]}"
    )
    print(table(timings), flush=True)
    if df is not None:
        print(_visible(timings[1]), flush=True)
    return {
        "title": problem.title,
        "reference": known.source,
        "criterion": criterion._asdict(),
        "contenders": [t._asdict() | {"score": t.score._asdict()} for t in timings],
    }


def _visible(laplace):
    mean = np.abs(laplace.score.mean_error).max()
    sd = np.abs(laplace.score.sd_ratio - 1).max()
    word = "visibly not Gaussian" if mean > VISIBLE[0] or sd > VISIBLE[1] else "nearly Gaussian"
    return f"the posterior is {word}: Laplace is off by {mean:.2f} sd and {sd:.0%} of an sd"


def _cost(namespace, key):
    """Compare the rows read per effective draw at two sizes, without set-up and warm-up."""
    results, dim = {}, namespace.dim or 20
    print(f"\nexamples per effective draw after set-up, logistic regression, D={dim}")
    for index, size in enumerate(SIZES):
        problem = logistic(_rows(size, namespace.scale), dim)
        name = "million" if size == SIZES[1] else "cost"
        known = truth(name, problem, namespace.reference_draws, save=namespace.store)
        own_key = jax.random.fold_in(key, index)
        timing, mcmc = run_sgworld(problem, known.moments, FINE, own_key)
        cost = examples_per_effective_draw(mcmc, timing)
        seconds = timing.details["seconds_of_further_run"] / (mcmc.num_chains * mcmc.num_samples)
        results[problem.size] = {
            "examples": cost,
            "seconds": seconds,
            "note": timing.note,
            "met": timing.met,
        }
        text = (
            "unknown: bias_report() does not tell the batch size" if cost is None else f"{cost:.4g}"
        )
        print(
            f"N={problem.size:8d}: {text}; {1e6 * seconds:.3g} microseconds for a draw; "
            f"{'within' if timing.met else 'NOT within'} 0.1 sd and 7 %; {timing.note}",
            flush=True,
        )
    small, large = results.values()
    if small["examples"] and large["examples"]:
        results["ratio"] = large["examples"] / small["examples"]
        print(
            f"ratio {results['ratio']:.3g} of the examples, "
            f"{large['seconds'] / small['seconds']:.3g} of the seconds"
        )
    return results


def examples_per_effective_draw(mcmc, timing: Timing) -> float | None:
    """Return steps times batch size of all draws over the smallest effective sample size.

    With control variates too a step reads the rows of its batch; the sums over all rows at the mode
    belong to the set-up. None if the bias report has no batch size or number of steps.
    """
    settings = timing.details["settings"]
    if "batch_size" not in settings or "steps_per_draw" not in settings:
        return None
    draws = mcmc.num_chains * mcmc.num_samples  # thinned-out draws cost as much as the others
    return draws * settings["steps_per_draw"] * settings["batch_size"] / timing.score.ess.min()


def _subset(problem: Problem, rows: int) -> Problem:
    data = tuple(x[:rows] if isinstance(x, np.ndarray) else x for x in problem.data)
    return problem._replace(data=data, exact=None)


def _rows(size, scale):
    return max(200, round(size * scale))


def _plain(value):
    return np.asarray(value).tolist()
