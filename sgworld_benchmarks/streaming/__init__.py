"""Measure runs on data that do not fit in memory.

A linear regression with known noise is written to two ``.npy`` files, and the sums of its normal
equations, from which the exact posterior follows, are added up while the rows are made. Then

* a fresh process with a limit of its data segment runs the defaults on the memory maps: seconds,
  passes over the file, largest anonymous memory, and errors of means and standard deviations;
* epochs with plain gradients are timed on streamed rows and on the same rows in memory, in turn;
* with ``--disk`` instead, epochs of the file while it is not in the page cache, and reading it from
  end to end, in turn.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from sgworld_benchmarks.streaming.disk import disk_rates
from sgworld_benchmarks.streaming.epochs import epochs
from sgworld_benchmarks.streaming.problem import write_problem
from sgworld_mcmc.checks import check_integer

__all__ = ["add_arguments", "run_cli"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this benchmark."""
    parser.add_argument(
        "--gigabytes", type=float, default=0.5, help="size of the files, 10^9 bytes (default: 0.5)"
    )
    parser.add_argument(
        "--rows", type=int, default=None, help="number of rows N, in place of --gigabytes"
    )
    parser.add_argument("--dim", type=int, default=20, help="number of regressors (default: 20)")
    parser.add_argument(
        "--limit", type=float, default=2.0, help="limit of the data segment, 10^9 bytes (2)"
    )
    parser.add_argument(
        "--sorted", action="store_true", help="sort the rows by the first regressor, piece by piece"
    )
    parser.add_argument(
        "--epoch-rows", type=int, default=2_000_000, help="rows of the timed epochs; 0 for none"
    )
    parser.add_argument(
        "--disk",
        action="store_true",
        help="instead: epochs of a file that is not in the page cache, against reading it",
    )
    parser.add_argument("--folder", default=None, help="where the files are made (temporary)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    parser.add_argument("--json", default=None, metavar="PATH", help="write the numbers there")


def run_cli(namespace: argparse.Namespace) -> int:
    """Run the benchmark and print its numbers."""
    dim = check_integer("dim", namespace.dim, 1)
    rows = namespace.rows or int(namespace.gigabytes * 1e9 / (4 * (dim + 1)))
    check_integer("rows", rows, 1000)
    folder = Path(tempfile.mkdtemp(prefix="sgworld-streaming-", dir=namespace.folder))
    found = {}
    try:
        print(f"writing {rows:,} rows of {dim} regressors", flush=True)
        write_problem(folder, rows, dim, namespace.seed, ordered=namespace.sorted)
        if namespace.disk:
            found["disk"] = disk_rates(folder, namespace.seed)
            for made in found["disk"]:
                print(
                    f"{made['bytes'] / 1e9:.3g} GB, {_chains(made)}: sequential reads "
                    f"{made['sequential'] / 1e6:.0f} MB/s, an epoch {made['epochs'] / 1e6:.0f} "
                    f"MB/s, ratio {made['ratio']:.0%} ({min(made['ratios']):.0%} to "
                    f"{max(made['ratios']):.0%} in single turns)"
                )
            return _write(namespace.json, found)
        command = [sys.executable, "-m", "sgworld_benchmarks.streaming.limited", str(folder)]
        command += [str(namespace.limit), str(namespace.seed)]
        made = subprocess.run(command, capture_output=True, text=True)
        if made.returncode:
            print(made.stdout, made.stderr, file=sys.stderr)
            return 1
        found["limited"] = json.loads(made.stdout.splitlines()[-1])
        _print_limited(found["limited"], namespace.limit)
        if namespace.epoch_rows:
            found["epochs"] = epochs(folder, min(rows, namespace.epoch_rows), namespace.seed)
            for made in found["epochs"]:
                print(
                    f"epoch of {made['rows']:,} rows, batches of {made['batch_size']}, "
                    f"{_chains(made)}, {made['order']}: in memory {made['memory']:.3f} s, "
                    f"streamed {made['streamed']:.3f} s, speed {made['speed']:.0%} of in memory"
                )
    finally:
        shutil.rmtree(folder)
    return _write(namespace.json, found)


def _write(path: str | None, found: dict) -> int:
    if path:
        Path(path).write_text(json.dumps(found, indent=1))
    return 0


def _chains(made: dict) -> str:
    return f"{made['chains']} chains" + made["share_batches"] * " that share batches"


def _print_limited(found: dict, limit: float) -> None:
    print(
        f"N = {found['rows']:,}, D = {found['dim']} ({found['bytes'] / 1e9:.3g} GB) under a "
        f"limit of {limit:g} GB of data\n"
        f"  {'streamed' if found['streamed'] else 'IN MEMORY'}, {found['gradient']} gradients, "
        f"batches of {found['batch_size']}, {found['draws']} draws\n"
        f"  from nothing to the draws: {found['seconds']:.1f} s, set-up {found['set_up']:.1f} s\n"
        f"  passes over the file: {found['passes']:.2f}, of them the set-up "
        f"{found['set_up_passes']:.2f}\n"
        f"  largest anonymous memory: {found['anonymous'] / 1e9:.2f} GB "
        f"({found['before'] / 1e9:.2f} GB before the run)\n"
        f"  largest error of a mean {found['mean_error']:.3f} sd (Monte Carlo error "
        f"{found['mean_se']:.3f}), sd ratio {found['sd_low']:.3f} to {found['sd_high']:.3f} "
        f"(Monte Carlo error {found['sd_se']:.3f})"
    )
