"""The command ``sgworld-mcmc demo``, which compares the samplers on real data."""

import time
from pathlib import Path

import jax
from rich.console import Console

from sgworld_mcmc.checks import check_choice
from sgworld_mcmc.demo.problems import Problem, breast_cancer, diabetes
from sgworld_mcmc.demo.report import FOOTNOTE, explain_table, make_table, write_files
from sgworld_mcmc.demo.samplers import NUTSSampler, Run, laplace, sgworld, variants
from sgworld_mcmc.demo.scores import Score, score

__all__ = ["run", "run_cli"]


PROBLEMS = {"diabetes": diabetes, "breast-cancer": breast_cancer}


def run(
    out: str | Path = "out", seed: int = 0, quick: bool = False, problem: str = "both"
) -> dict[str, list[tuple[Run, Score]]]:
    """Sample both problems with every sampler, print the tables, and write the files.

    Parameters
    ----------
    out
        Folder for pictures, netCDF and CSV files. It is made if it does not exist.
    seed
        Seed of everything random.
    quick
        Take a quarter of the draws and a shorter reference run, for a look and not for conclusions.
    problem
        ``"diabetes"``, ``"breast-cancer"`` or ``"both"``.

    Returns
    -------
    dict
        Name of the problem to a list of (:class:`Run`, :class:`Score`), the default run first.

    Raises
    ------
    MissingExtraError
        If scikit-learn, which has the data, is not installed.
    OSError
        If the folder cannot be made.
    """
    check_choice("problem", problem, (*PROBLEMS, "both"))
    chosen = {name: make() for name, make in PROBLEMS.items() if problem in (name, "both")}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)  # an error should come before the work, not after it
    num_samples, reference_samples = (250, 500) if quick else (1000, 2000)
    console, start = Console(), time.perf_counter()
    if not console.is_terminal:
        console = Console(width=120)
    results = {}
    # Each problem has its own key, whether or not the other one is sampled too.
    keys = dict(zip(PROBLEMS, jax.random.split(jax.random.key(seed)), strict=True))
    for name, one in chosen.items():
        rows, reference = _compare(one, keys[name], num_samples, reference_samples, console)
        results[name] = rows
        console.print(make_table(one, rows))
        console.print(explain_table(rows), highlight=False)
        if reference is not None:
            console.print(_describe_reference(reference), highlight=False)
        paths = write_files(out, one, rows, reference)
        names = ", ".join(path.name for path in paths)
        console.print(f"Wrote to {out}: {names}\n", highlight=False)
    console.print(FOOTNOTE, style="dim", highlight=False)
    console.print(f"Whole demo: {time.perf_counter() - start:.0f} s.", highlight=False)
    return results


def run_cli(namespace) -> int:
    """Run the demo with the parsed options, and return the exit code."""
    run(namespace.out, namespace.seed, namespace.quick, namespace.problem)
    return 0


def _compare(
    problem: Problem, rng_key: jax.Array, num_samples: int, reference_samples: int, console: Console
) -> tuple[list[tuple[Run, Score]], Run | None]:
    """Return the rows of one table, and the reference run if there is no exact posterior."""
    keys = jax.random.split(rng_key, 5)
    with console.status(f"{problem.name}: SGWORLD with its defaults ..."):
        runs = [sgworld(problem, keys[0], num_samples)]
    with console.status(f"{problem.name}: plain and full gradients ..."):
        runs += variants(problem, keys[1], runs[0], num_samples)
    with console.status(f"{problem.name}: NUTS and Laplace ..."):
        nuts = NUTSSampler(problem, chunk=min(500, num_samples))
        runs.append(nuts.run("NUTS", keys[2], num_samples))
        runs.append(laplace(problem, keys[3], runs[0], num_samples))
        reference = None
        if problem.exact is None:
            reference = nuts.run("long NUTS run", keys[4], reference_samples)
    return [(run, score(problem, run, reference)) for run in runs], reference


def _describe_reference(reference: Run) -> str:
    chains, draws = next(iter(reference.samples.values())).shape[:2]
    return (
        f"* Reference: NUTS, {chains} chains of {draws} draws after a warm-up of its own, "
        f"{reference.epochs:.0f} full gradients, {reference.run_seconds:.1f} s; its Monte Carlo "
        "errors are part of the errors given."
    )
