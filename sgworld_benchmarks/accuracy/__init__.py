"""Compare the default settings with exact posteriors and long NUTS runs, on models of many kinds.

For every model ``sgworld-mcmc benchmark accuracy`` measures whether all means are within 0.1
posterior standard deviations and all standard deviations within 7 %, and if not, whether the
package gave a warning.
"""

import sys

import jax

from sgworld_benchmarks.accuracy import tally
from sgworld_benchmarks.accuracy.problem import describe
from sgworld_benchmarks.accuracy.problems import PROBLEMS
from sgworld_benchmarks.accuracy.references import (
    REFERENCES,
    reference,
    regenerate,
    regenerate_by_importance,
    smallest_ess,
)
from sgworld_benchmarks.accuracy.run import Outcome, run_problem
from sgworld_benchmarks.accuracy.suite import (
    add_options,
    named,
    run_and_print,
    run_each,
    show_outcome,
    write,
)
from sgworld_mcmc.checks import check_integer

__all__ = ["add_arguments", "run", "run_cli", "run_seeds", "summary", "table"]

FILE = "accuracy.json"


def run(models: tuple[str, ...] = (), seed: int = 0, progress=None) -> list[Outcome]:
    """Run SGWORLD with default settings (4 chains of 1000 draws) on models of the benchmark.

    Parameters
    ----------
    models
        Names of models; empty for all.
    seed
        Seed of the runs. Each model has a key of its own, whatever other models are run.
    progress
        Function that is called with each outcome as soon as it is known.

    Raises
    ------
    ValueError
        If a name is unknown, or a stored reference does not belong to its model.

    Examples
    --------
    >>> outcomes = run(("beta_bernoulli",), seed=1)
    >>> outcomes[0].dimension
    1
    """
    return run_each(PROBLEMS, models, seed, _run_one, progress)


def run_seeds(
    models: tuple[str, ...] = (), seeds: range = range(1), progress=None
) -> dict[str, list[Outcome]]:
    """Run every model with each of several seeds, and return its outcomes by name.

    Parameters
    ----------
    models
        Names of models; empty for all.
    seeds
        The seeds.
    progress
        Function that is called with the outcomes of each model as soon as they are known.

    Examples
    --------
    >>> len(run_seeds(("beta_bernoulli",), range(2))["beta_bernoulli"])
    2
    """
    found = {}
    for name in named(PROBLEMS, models):
        found[name] = [outcome for seed in seeds for outcome in run((name,), seed)]
        if progress is not None:
            progress(found[name])
    return found


def table(outcomes: list[Outcome]) -> str:
    """Return the outcomes as text, one line for each model."""
    return "\n".join([HEADER, *map(line, outcomes)])


def line(outcome: Outcome) -> str:
    """Return one line of the table."""
    start = f"{outcome.name:21}{outcome.size:6d}{outcome.dimension:5d}"
    warned = "yes" if outcome.warnings else "no"
    if outcome.score is None:
        return f"{start}  raised {outcome.error.splitlines()[0][:90]}"
    found, worst = outcome.score, outcome.score.worst_mean
    mean = f"{abs(found.mean_error[worst]):.3f} ± {found.mean_error_se[worst]:.3f}"
    ratios = f"{found.sd_ratio.min():.3f}-{found.sd_ratio.max():.3f}"
    settings = outcome.settings
    step = f"{settings['step_size']:.3g}" if "step_size" in settings else "-"
    return (
        f"{start}  {mean:>14}  {ratios:>12}  {'yes' if outcome.within else 'NO':3}"
        f"{found.ess.min():7.0f}  {settings.get('gradient', '-'):16}{step:>9}"
        f"{outcome.seconds:8.1f}  {warned}"
    )


HEADER = (
    f"{'model':21}{'N':>6}{'D':>5}  {'mean error, sd':>14}  {'sd ratio':>12}  ok {'ESS':>7}  "
    f"{'gradient':16}{'step':>9}{'seconds':>8}  warned"
)


def summary(outcomes: list[Outcome]) -> str:
    """Say how many models are within the tolerances, and which were missed without a warning."""
    within = sum(outcome.within for outcome in outcomes)
    silent = [outcome.name for outcome in outcomes if outcome.silent_miss]
    needless = [o.name for o in outcomes if o.within and o.warnings]
    lines = [
        f"{within} of {len(outcomes)} within; misses without warning: {', '.join(silent) or 'none'}"
    ]
    if needless:
        lines.append(f"within, but warned: {', '.join(needless)}")
    return "\n".join(lines)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark accuracy`` to an `argparse` parser."""
    add_options(parser, PROBLEMS, "--models", FILE)
    parser.add_argument(
        "--seeds",
        type=int,
        default=1,
        metavar="NUMBER",
        help="run each model with so many seeds, from --seed on, and count misses and warnings",
    )
    parser.add_argument("--reports", action="store_true", help="print warnings and bias reports")
    parser.add_argument(
        "--regenerate",
        action="store_true",
        help="instead: run NUTS in double precision, and store its moments with the package",
    )
    parser.add_argument(
        "--method",
        choices=("nuts", "importance"),
        default="nuts",
        help="of --regenerate: NUTS, or importance sampling from a Laplace approximation",
    )


def run_cli(namespace) -> int:
    """Run with the parsed options and print the table; return 1 if a miss went unnoticed."""
    check_integer("seed", namespace.seed, 0)
    check_integer("seeds", namespace.seeds, 1)
    if namespace.regenerate:
        return _regenerate(namespace.names, namespace.seed, namespace.method)
    print(
        "SGWORLD(model).run(key, *data), 4 chains of 1000 draws; ok: every mean within 0.1 sd, "
        "every sd within 7 %"
    )
    details = (lambda outcome: outcome.report) if namespace.reports else None
    if namespace.seeds > 1:
        outcomes = _run_seeds(namespace, details)
    else:
        outcomes = run_and_print(
            namespace, run, FILE, header=HEADER, line=line, summary=summary, details=details
        )
    return int(any(outcome.silent_miss for outcome in outcomes))


def _run_seeds(namespace, details) -> list[Outcome]:
    """Print the table of misses and warnings over seeds, and return all outcomes."""
    print(tally.HEADER, flush=True)
    tallies = []

    def show(outcomes):
        tallies.append(tally.tally(outcomes[0].name, outcomes))
        print(tally.line(tallies[-1]), flush=True)
        for outcome in outcomes:
            if not outcome.within or (details is not None and outcome.warnings):
                show_outcome(outcome, line, details)

    every = range(namespace.seed, namespace.seed + namespace.seeds)
    found = run_seeds(tuple(namespace.names), every, show)
    print(tally.summary(tallies))
    outcomes = [outcome for outcomes in found.values() for outcome in outcomes]
    write(outcomes, namespace.out, FILE)
    return outcomes


def _run_one(name, build, rng_key):
    """Run one model, and compare it with its exact or stored moments."""
    problem = build()
    truth = reference(name, problem)
    return run_problem(name, problem, truth, describe(problem).dimension, rng_key)


def _regenerate(models, seed, method):
    """Make references again, and name those that fail."""
    make = regenerate if method == "nuts" else regenerate_by_importance
    problems, failed = named(PROBLEMS, models), 0
    for name, build in problems.items():
        try:
            entry = make(name, build(), seed)
        except ValueError as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed += 1
            continue
        rest = (
            f"R-hat at most {max(entry['rhat']):.4f}"
            if "rhat" in entry
            else (f"k-hat {entry['k_hat']:.2f}")
        )
        ess, seconds = smallest_ess(entry), entry["seconds"]
        print(f"{name:21} ESS at least {ess:.0f}, {rest}, {seconds:.0f} s", flush=True)
        jax.clear_caches()
    print(f"{len(problems) - failed} of {len(problems)} stored in {REFERENCES}")
    return int(failed > 0)
