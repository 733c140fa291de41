"""What the benchmarks that run many models share: names, options, the loop and its output."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import jax

from sgworld_benchmarks.accuracy.problem import Problem
from sgworld_benchmarks.accuracy.run import Outcome

__all__ = ["add_options", "named", "run_and_print", "run_each", "show_outcome", "write"]

Builders = dict[str, Callable[[], Problem]]


def named(builders: Builders, names: Iterable[str] = ()) -> Builders:
    """Return the builders with these names, or all of them if no name is given.

    Raises
    ------
    ValueError
        If there is no model of a given name; no data are made then.
    """
    for name in names:
        if name not in builders:
            raise ValueError(f"There is no model {name!r}; choose from {', '.join(builders)}.")
    return {name: builders[name] for name in names or builders}


def run_each(
    builders: Builders,
    names: Iterable[str],
    seed: int,
    run_one: Callable[[str, Callable[[], Problem], jax.Array], Outcome],
    progress: Callable[[Outcome], None] | None = None,
) -> list[Outcome]:
    """Run models one after the other.

    Parameters
    ----------
    builders
        All models of the suite. Each has a key of its own, whatever other models are run.
    names
        Names of those to run; empty for all.
    seed
        Seed of the runs.
    run_one
        Function of a model's name, its builder and a random key.
    progress
        Function that is called with each outcome as soon as it is known.
    """
    outcomes = []
    for name, build in named(builders, names).items():
        key = jax.random.fold_in(jax.random.key(seed), list(builders).index(name))
        outcomes.append(run_one(name, build, key))
        # The compiled programs of one model are of no use to the next, and fill the memory.
        jax.clear_caches()
        if progress is not None:
            progress(outcomes[-1])
    return outcomes


def add_options(parser, builders: Builders, which: str, file: str) -> None:
    """Add the options of a benchmark of many models to an `argparse` parser.

    Parameters
    ----------
    builders
        All models of the suite.
    which
        The option that names models.
    file
        Name of the file with the results.
    """
    parser.epilog = f"Models: {', '.join(builders)}."
    parser.add_argument(
        which,
        dest="names",
        nargs="+",
        default=(),
        metavar="NAME",
        help="which models (default: all)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--out", metavar="FOLDER", help=f"for {file}, with every scalar")


def run_and_print(
    namespace,
    run: Callable[..., list[Outcome]],
    file: str,
    *,
    header: str,
    line: Callable[[Outcome], str],
    summary: Callable[[list[Outcome]], str],
    details: Callable[[Outcome], str | None] | None = None,
) -> list[Outcome]:
    """Run with the parsed options, print the table and write the file if it is asked for.

    Parameters
    ----------
    namespace
        The options of :func:`add_options`.
    run
        Function of names, seed and progress that returns the outcomes.
    file
        Name of the file with the results.
    header, line, summary
        The table: its first line, a line for an outcome, and what follows.
    details
        Returns what is printed after an outcome's warnings; None leaves the warnings out, too.
    """
    if namespace.out:
        Path(namespace.out).mkdir(parents=True, exist_ok=True)
    print(header, flush=True)
    show = lambda outcome: show_outcome(outcome, line, details)  # noqa: E731
    outcomes = run(tuple(namespace.names), namespace.seed, show)
    print(summary(outcomes))
    write(outcomes, namespace.out, file)
    return outcomes


def show_outcome(
    outcome: Outcome,
    line: Callable[[Outcome], str],
    details: Callable[[Outcome], str | None] | None,
) -> None:
    """Print the line of an outcome, and its warnings and details if these are wanted."""
    print(line(outcome), flush=True)
    if details is not None:
        print("\n".join([*outcome.warnings, details(outcome) or ""]), flush=True)


def write(outcomes: list[Outcome], folder: str | None, file: str) -> None:
    """Write all numbers of the outcomes to a file in the folder, if one is given."""
    if folder:
        Path(folder).mkdir(parents=True, exist_ok=True)
        rows = [outcome.to_dict() for outcome in outcomes]
        (Path(folder) / file).write_text(json.dumps(rows, indent=1, default=str))
