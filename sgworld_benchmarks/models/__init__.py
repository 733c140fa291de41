"""Run models written in the ways in which people write NumPyro models, with default settings.

``sgworld-mcmc benchmark models`` says of every model whether it starts, and whether its means are
within 0.1 posterior standard deviations and its standard deviations within 7 % of long NUTS runs,
or the package gave a warning.
"""

import time
from pathlib import Path

import jax

from sgworld_benchmarks.accuracy.problem import describe
from sgworld_benchmarks.accuracy.references import (
    check_fingerprint,
    moments_from,
    regenerate,
    smallest_ess,
    stored,
)
from sgworld_benchmarks.accuracy.run import Outcome, run_problem
from sgworld_benchmarks.accuracy.suite import add_options, named, run_and_print, run_each
from sgworld_benchmarks.models.problems import MODELS
from sgworld_benchmarks.models.table import HEADER, line, summary, verdict
from sgworld_mcmc.checks import check_integer

__all__ = ["REFERENCES", "add_arguments", "run", "run_cli", "run_one"]

FILE = "models.json"
REFERENCES = Path(__file__).with_name("references.json")
# Half of what the accuracy benchmark asks for: here there are many models, and an error of 0.1 sd
# is what matters.
MINIMUM_ESS = 2000


def run(models: tuple[str, ...] = (), seed: int = 0, progress=None) -> list[Outcome]:
    """Run SGWORLD with default settings (4 chains of 1000 draws) on models of the suite.

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
        If a name is unknown. An error of one model is part of its outcome.

    Examples
    --------
    >>> run(("no such model",))
    Traceback (most recent call last):
    ValueError: There is no model 'no such model'; choose from ...
    """
    return run_each(MODELS, models, seed, run_one, progress)


def run_one(name: str, build, rng_key: jax.Array, path: Path = REFERENCES) -> Outcome:
    """Run one model, and compare it with its stored reference if there is one.

    Parameters
    ----------
    name, build
        Name of the model, and the function that makes its `Problem`.
    rng_key
        Random key of the run.
    path
        JSON file of the references.
    """
    start = time.perf_counter()
    try:
        problem = build()
        posterior = describe(problem)
        truth = problem.exact
        entry = stored(path).get(name)
        if truth is None and entry is not None:
            check_fingerprint(name, entry, posterior.fingerprint)
            truth = moments_from(entry)
        return run_problem(name, problem, truth, posterior.dimension, rng_key, show_errors=False)
    except Exception as error:  # of the model, its reference or the comparison: a result, too
        seconds = time.perf_counter() - start
        text = f"{type(error).__name__}: {error}"
        return Outcome(name, 0, 0, None, seconds, 0.0, (), text, {}, {}, None)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark models`` to an `argparse` parser."""
    add_options(parser, MODELS, "--only", FILE)
    parser.add_argument("--messages", action="store_true", help="print warnings and whole errors")
    parser.add_argument(
        "--reference",
        action="store_true",
        help="instead: run NUTS in double precision on the models (without --only: on those "
        "without a reference), and store its moments with the package",
    )


def run_cli(namespace) -> int:
    """Run with the parsed options and print the table; return 1 if a miss went unnoticed."""
    check_integer("seed", namespace.seed, 0)
    if namespace.reference:
        return _make_references(namespace.names, namespace.seed)
    print("SGWORLD(model).run(key, ...), 4 chains of 1000 draws, against long runs of NUTS")
    details = (lambda outcome: outcome.error) if namespace.messages else None
    outcomes = run_and_print(
        namespace, run, FILE, header=HEADER, line=line, summary=summary, details=details
    )
    return int(any(verdict(outcome) == "MISS" for outcome in outcomes))


def _make_references(names, seed):
    """Make references of models that can be compared, and name those that fail."""
    known, failed = stored(REFERENCES), 0
    builders = (
        named(MODELS, names) if names else {n: b for n, b in MODELS.items() if n not in known}
    )
    for name, build in builders.items():
        problem = build()
        if not problem.sites:
            continue
        try:
            entry = regenerate(name, problem, seed, REFERENCES, MINIMUM_ESS)
        except Exception as error:  # the other models go on
            print(f"{name}: {type(error).__name__}: {error}", flush=True)
            failed += 1
        else:
            ess, seconds = smallest_ess(entry), entry["seconds"]
            print(f"{name:24} ESS at least {ess:.0f}, {seconds:.0f} s", flush=True)
        jax.clear_caches()
    return int(failed > 0)
