"""Compare the predictions of Bayesian neural networks with those of long NUTS runs.

``sgworld-mcmc benchmark networks`` runs SGWORLD with default settings on six networks: what is
compared are predictions at test rows, since the weights' posterior is the same for every order of
the hidden units. ``--time`` runs one chain of NUTS in the same process, ``--against-epochs``
compares samplers with and without replacement at the same step size and budget, and ``--reference``
makes a stored reference again. What large networks cost is printed by ``--step`` (against a step of
Adam), ``--set-up``, ``--memory`` and ``--sizes``.
"""

from pathlib import Path

import jax

from sgworld_benchmarks.networks import epochs, large
from sgworld_benchmarks.networks.epochs_plot import plot_epochs
from sgworld_benchmarks.networks.nuts import NutsChains
from sgworld_benchmarks.networks.problems import PROBLEMS
from sgworld_benchmarks.networks.references import load, make
from sgworld_benchmarks.networks.runs import run_network
from sgworld_benchmarks.networks.sizes_plot import plot_sizes
from sgworld_mcmc.checks import check_integer

__all__ = ["add_arguments", "run_cli"]

DYNAMICS = ("auto", "kinetic", "overdamped")
# Transitions of the chain of NUTS that is timed: warm-up, and as many draws.
TIMED = 400
# Widths of the hidden layer: D is about 10^4, 10^5 and 10^6.
WIDTHS = (13, 126, 1258)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark networks`` to an `argparse` parser."""
    parser.add_argument("--problems", nargs="+", choices=PROBLEMS, default=(*PROBLEMS,))
    parser.add_argument(
        "--dynamics", nargs="+", choices=DYNAMICS, default=("auto",), help="setting (auto)"
    )
    parser.add_argument(
        "--time", action="store_true", help=f"time a chain of NUTS too, {TIMED} + {TIMED}"
    )
    parser.add_argument("--messages", action="store_true", help="print warnings and reports")
    parser.add_argument(
        "--reference", nargs="+", choices=PROBLEMS, help="make these references again, only"
    )
    parser.add_argument(
        "--against-epochs", action="store_true", help="with and without replacement, on digits only"
    )
    parser.add_argument(
        "--step", action="store_true", help="a kinetic step against one of Adam, D = 101 770"
    )
    parser.add_argument(
        "--set-up", action="store_true", help="cost of the set-up, N = 60 000 and D = 101 770"
    )
    parser.add_argument(
        "--memory", action="store_true", help="memory of a run over what it keeps, D = 100 000"
    )
    parser.add_argument(
        "--sizes", nargs="*", type=int, help="seconds of a step and memory for layers so wide"
    )
    parser.add_argument(
        "--budgets", nargs="+", type=int, default=epochs.BUDGETS, help="epochs of these runs"
    )
    parser.add_argument("--step-size", type=float, default=0.013, help="of these runs (0.013)")
    parser.add_argument("--friction", type=float, default=1.0, help="of these runs (1)")
    parser.add_argument("--batch-size", type=int, default=200, help="of these runs (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the samplers (0)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default out)")


def run_cli(namespace) -> int:
    """Run the parts that are asked for, print what they found, and return 0."""
    check_integer("seed", namespace.seed, 0)
    if namespace.reference:
        for name in namespace.reference:
            make(name)
    elif namespace.against_epochs:
        _against_epochs(namespace)
    elif namespace.step or namespace.set_up or namespace.memory or namespace.sizes is not None:
        _large(namespace)
    else:
        for index, name in enumerate(PROBLEMS):
            if name in namespace.problems:
                _compare(name, jax.random.fold_in(jax.random.key(namespace.seed), index), namespace)
                jax.clear_caches()
    return 0


def _large(namespace):
    if namespace.step:
        print(large.step_times(), flush=True)
    if namespace.set_up:
        print(large.measure_set_up(), flush=True)
    if namespace.memory:
        ratio, kept = large.measure_memory()
        print(f"memory of a run: {ratio:.2f} times the {kept / 2**20:.0f} MiB that it keeps")
    if namespace.sizes is not None:
        sizes = []
        for width in namespace.sizes or WIDTHS:
            sizes.append(large.measure_size(width))
            print(sizes[-1], flush=True)
        namespace.out.mkdir(parents=True, exist_ok=True)
        plot_sizes(sizes, namespace.out / "network-sizes.png")
        print(f"Wrote {namespace.out / 'network-sizes.png'}")


def _compare(name, rng_key, namespace):
    network = PROBLEMS[name]()
    reference = load(name, network)
    about = reference.about
    print(
        f"\n{name}: {network.title}, N = {len(network.y)}; reference: {len(about['seeds'])} chains "
        f"of NUTS, {about['warmup']} + {about['draws']}",
        flush=True,
    )
    outcomes = []
    for dynamics in namespace.dynamics:
        label = "SGWORLD(model)" if dynamics == "auto" else f"SGWORLD, dynamics={dynamics!r}"
        outcome = run_network(network, reference, rng_key, label, dynamics=dynamics)
        print(outcome, flush=True)
        if namespace.messages:
            print(*(f"  ! {text}" for text in outcome.warnings), outcome.report or "", sep="\n")
        outcomes.append(outcome)
    if namespace.time:
        chain = NutsChains(network, TIMED, TIMED).run(namespace.seed)
        print(
            f"NUTS, one chain: {chain.seconds:.1f} s ({chain.cpu_seconds:.1f} s of processor), "
            f"{chain.leapfrogs} gradients"
        )
        for outcome in outcomes:
            print(
                f"  {outcome.label}: {outcome.seconds / chain.seconds:.2f} of it "
                f"({outcome.cpu_seconds / chain.cpu_seconds:.2f})",
                flush=True,
            )


def _against_epochs(namespace):
    network = PROBLEMS["digits"]()
    table = epochs.run(
        network,
        load("digits", network),
        jax.random.key(namespace.seed),
        budgets=namespace.budgets,
        step_size=namespace.step_size,
        friction=namespace.friction,
        batch_size=namespace.batch_size,
    )
    folder = namespace.out
    folder.mkdir(parents=True, exist_ok=True)
    plot_epochs(table, folder / "networks.png")
    print(table.text())
    print(f"\nWrote {folder / 'networks.png'}")
