"""Time models with thousands of latents by group, against NUTS.

Both are timed from nothing to a worst effective sample size of 400: set-up or warm-up, compilation
and draws. A clock is read after the draws are ready. The draws of a run are charged in proportion,
seconds before the first draw + seconds of the draws x 400 / ESS, so that runs may be longer or
shorter than that; NUTS may be given few draws where it is slow. The ESS of SGWORLD is the worst of
all latents, that of NUTS the worst of the parameters that all groups share, because the worst of
thousands of latents is too noisy in few draws: this favours NUTS.

Where NUTS would take hours it is run on fewer rows with as many groups, and its seconds are
multiplied by what a gradient of all rows costs, in gradients of those. A posterior of fewer rows is
wider, and NUTS needs no more gradients for a draw of it: this favours NUTS too.

With ``--kinetic`` overdamped Langevin dynamics are compared with kinetic ones in place of NUTS.
Both choose their own batches and step sizes. With ``--streamed`` rows in memory are compared with
the same rows streamed from files.
"""

import tempfile
from pathlib import Path

import numpy as np

from sgworld_benchmarks.hierarchies.problems import PROBLEMS
from sgworld_benchmarks.hierarchies.samplers import (
    WANTED,
    Cost,
    run_nuts,
    run_sgworld,
    seconds_of_gradient,
)
from sgworld_mcmc.checks import check_choice

__all__ = ["add_arguments", "compare", "compare_streamed", "disagreement", "run_cli"]


def compare(
    name: str,
    *,
    seed: int = 0,
    warmup: int = 500,
    draws: int = 500,
    max_seconds: float = 600.0,
    nuts_rows: int | None = None,
) -> tuple[Cost, Cost]:
    """Run both samplers on a problem, one after the other; NUTS with a warm-up of 500.

    With ``nuts_rows``, NUTS is run on so many rows, and its seconds are scaled to all of them.
    """
    check_choice("problem", name, tuple(PROBLEMS))
    make, size, groups = PROBLEMS[name]
    model, data = make(size, groups)
    ours = run_sgworld(model, data, seed)
    limits = {"warmup": warmup, "draws": draws, "max_seconds": max_seconds}
    if nuts_rows is None:
        return ours, run_nuts(model, data, seed, **limits)
    few = make(nuts_rows, groups)[1]
    times = seconds_of_gradient(model, data) / seconds_of_gradient(model, few)
    return ours, run_nuts(model, few, seed, times=times, **limits)


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


def compare_streamed(name: str, folder: Path, seed: int = 0) -> tuple[Cost, Cost]:
    """Run SGWORLD on rows in memory and on the same rows in files, which are made in a folder."""
    check_choice("problem", name, tuple(PROBLEMS))
    make, size, groups = PROBLEMS[name]
    model, data = make(size, groups)
    files = []
    for number, values in enumerate(data):
        if np.ndim(values):
            path = folder / f"{number}.npy"
            np.save(path, values)
            values = np.load(path, mmap_mode="r")
        files.append(values)
    streamed = run_sgworld(model, tuple(files), seed, stream=True)
    return run_sgworld(model, data, seed), streamed


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark hierarchies`` to an `argparse` parser."""
    parser.add_argument("--problem", choices=PROBLEMS, default="intercepts", help="(intercepts)")
    parser.add_argument("--seed", type=int, default=0, help="of the keys (0)")
    parser.add_argument("--warmup", type=int, default=500, help="of NUTS (500)")
    parser.add_argument("--draws", type=int, default=500, help="of NUTS at most (500)")
    parser.add_argument("--nuts-rows", type=int, help="rows for NUTS, if not all (all)")
    parser.add_argument("--max-seconds", type=float, default=600.0, help="for NUTS's draws (600)")
    words = "compare overdamped with kinetic dynamics, not with NUTS"
    kinds = parser.add_mutually_exclusive_group()
    kinds.add_argument("--kinetic", action="store_true", help=words)
    words = "compare rows in memory with rows that are streamed from files, not with NUTS"
    kinds.add_argument("--streamed", action="store_true", help=words)


def run_cli(namespace) -> int:
    """Run with the parsed options, print what both cost, and return 0."""
    name, rows = namespace.problem, namespace.nuts_rows
    make, size, groups = PROBLEMS[name]
    if namespace.kinetic:
        model, data = make(size, groups)
        labels = ("overdamped", "kinetic")
        costs = [run_sgworld(model, data, namespace.seed, dynamics=kind) for kind in labels]
    elif namespace.streamed:
        labels = ("in memory", "streamed")
        with tempfile.TemporaryDirectory(prefix="sgworld-hierarchies-") as folder:
            costs = compare_streamed(name, Path(folder), namespace.seed)
    else:
        few = "" if rows is None else f" on {rows} rows, scaled"
        labels = ("SGWORLD", f"NUTS, warm-up {namespace.warmup}{few}")
        costs = compare(
            name,
            seed=namespace.seed,
            warmup=namespace.warmup,
            draws=namespace.draws,
            max_seconds=namespace.max_seconds,
            nuts_rows=rows,
        )
    print(f"{name}: N={size}, {groups} groups; seconds to a worst ESS of {WANTED}")
    for label, cost in zip(labels, costs, strict=True):
        print(
            f"{label:18} {cost.seconds:8.1f} s ({cost.before:.1f} s before the first draw, "
            f"{cost.draws} draws in {cost.drawing:.1f} s, worst ESS {cost.ess:.0f}, "
            f"{cost.epochs:.2f} passes for each effective draw)"
        )
    ours, other = costs
    print(f"ratio {other.seconds / ours.seconds:.1f}; of passes {other.epochs / ours.epochs:.2f}")
    if namespace.kinetic or namespace.streamed or rows is None:
        far, wide = disagreement(ours, other)
        print(f"shared parameters differ by at most {far:.2f} sd, their log sd by {wide:.2f}")
    return 0
