"""The command ``sgworld-mcmc``.

Each subcommand imports what it needs when it runs, so that ``--help`` answers at once.
"""

import argparse
import importlib
import sys
from collections.abc import Sequence
from importlib import metadata

__all__ = ["main"]

BENCHMARKS = {
    "stationary": "bias of SGLD and SGWORLD against step size, exact posterior, no simulation",
    "auditor": "level and power of the audit of draws, on exact posteriors with known errors",
    "calibration": "ranks of true parameters among draws, for nine models (an hour)",
    "epoch": "time of one epoch in units of one full-data gradient",
    "kinetic": "epochs per effective draw against the condition number, kinetic and overdamped",
    "efficiency": "epochs per effective draw of SGLD and SGWORLD at the same bias",
    "bias": "variance errors that the package predicts, against measured ones",
    "chooser": "cost of the settings that the package chooses, against a grid search",
    "accuracy": "error of the default settings on models of many kinds",
    "models": "starts and errors of the default settings on models as people write them",
    "setup": "seconds, passes over the data and memory of the set-up, first and second run",
    "checkpoints": "time of a run that is saved, against one that is not",
    "devices": "draws and epochs on several devices of a CPU against one",
    "hosts": "rows a second of two processes against one, and a cost model of up to 1000 devices",
    "hierarchies": "thousands of latents by group, against NUTS",
    "networks": "predictions of neural networks, against NUTS",
    "speed": "seconds to a known posterior, against NUTS, Laplace and SVI",
    "streaming": "memory, passes and epoch speed of runs on files larger than the memory",
}
# Modules whose name is not that of their benchmark.
MODULES = {"setup": "setup_cost"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run ``sgworld-mcmc`` with the given arguments, and return the exit code.

    Parameters
    ----------
    argv
        Arguments without the program's name; by default those of the process.

    Raises
    ------
    SystemExit
        Raised by ``argparse``, with code 0 after ``--help`` and ``--version`` and code 2 for wrong
        arguments.

    Examples
    --------
    >>> main(["benchmark", "epoch", "--num-data", "200", "--dim", "2", "--rounds", "0"])
    Traceback (most recent call last):
    SystemExit: 2
    """
    parser = _parser()
    namespace = parser.parse_args(argv)
    if namespace.command == "benchmark":
        return _benchmark(namespace)
    module = {"demo": "demo.run", "shuffle": "streaming.shuffle_command"}[namespace.command]
    return _run(f"sgworld_mcmc.{module}", namespace, parser)


def _parser():
    parser = argparse.ArgumentParser(
        prog="sgworld-mcmc",
        description="Stochastic-gradient MCMC without replacement for NumPyro models.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="SGWORLD, SGLD, NUTS and Laplace side by side on real data",
        description=(
            "Linear regression on the diabetes data (exact posterior) and logistic regression on "
            "the breast-cancer data (long NUTS run as the truth): SGWORLD, SGLD, full-gradient "
            "Langevin, NUTS and Laplace with their errors, times and gradient counts. Takes some "
            "two minutes on two cores, most of it compilation. Needs scikit-learn: "
            "pip install 'sgworld-mcmc[demo]'."
        ),
    )
    demo.add_argument("--out", default="out", metavar="FOLDER", help="for the files (default: out)")
    demo.add_argument("--seed", type=int, default=0, help="of everything random (default: 0)")
    demo.add_argument(
        "--problem",
        choices=("diabetes", "breast-cancer", "both"),
        default="both",
        help="which data (default: both)",
    )
    demo.add_argument("--quick", action="store_true", help="a quarter of the draws")
    shuffle = commands.add_parser(
        "shuffle",
        help="write shuffled copies of files that are larger than the memory",
        description=(
            "Bring the rows of aligned files into one common random order, in two passes with "
            "bounded memory: .npy files, HDF5 files and Zarr groups. A shuffled file is the best "
            "one for a run that streams its rows."
        ),
    )
    shuffle.add_argument(
        "files", nargs="+", metavar="FILE", help=".npy, .h5, .hdf5 or .zarr, with the same rows"
    )
    shuffle.add_argument("--out", required=True, metavar="FOLDER", help="for the copies")
    shuffle.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")
    benchmark = commands.add_parser(
        "benchmark",
        help="measure bias or speed",
        description=(
            "Benchmarks; options of one: sgworld-mcmc benchmark NAME --help. Without a name all of "
            "them run, one after the other: an hour."
        ),
        epilog="\n".join(f"  {name:12}{text}" for name, text in BENCHMARKS.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    benchmark.add_argument(
        "name", nargs="?", default="all", choices=(*BENCHMARKS, "all"), help="which one (all)"
    )
    # Each benchmark parses its own options, once its module has been imported.
    benchmark.add_argument("options", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    return parser


def _benchmark(namespace):
    if namespace.name != "all":
        return _one_benchmark(namespace.name, namespace.options)
    for name, what in BENCHMARKS.items():
        print(f"\n=== {name}: {what}", flush=True)
        if code := _one_benchmark(name, namespace.options):
            return code
    return 0


def _one_benchmark(name, options):
    module = f"sgworld_benchmarks.{MODULES.get(name, name)}"
    parser = argparse.ArgumentParser(
        prog=f"sgworld-mcmc benchmark {name}",
        description=f"Measure {BENCHMARKS[name]}.",
    )
    importlib.import_module(module).add_arguments(parser)
    return _run(module, parser.parse_args(options), parser)


def _run(module, namespace, parser):
    """Run a command, and report errors in its arguments without a traceback."""
    run_cli = importlib.import_module(module).run_cli
    try:
        return run_cli(namespace)
    except ImportError as error:
        # Anything but our own message about an optional package means a broken installation.
        if "sgworld-mcmc[" not in str(error):
            raise
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        parser.error(str(error))
    except ValueError as error:
        # The benchmarks check their settings. In the demo a ValueError would be an error of ours.
        if namespace.__dict__.get("command") == "demo":
            raise
        parser.error(str(error))


def _version():
    try:
        number = metadata.version("sgworld-mcmc")
    except metadata.PackageNotFoundError:  # run from a source tree that is not installed
        from sgworld_mcmc import __version__ as number
    return f"sgworld-mcmc {number}"


if __name__ == "__main__":
    sys.exit(main())
