"""Simulation-based calibration: are true parameters ranked among the draws as they should be?

For every model, parameters are drawn from the prior and data given them; then the samplers run on
each data set. SGWORLD is run as a user runs it, ``SGWORLD(model).run(key, *inputs, y)`` with no
setting and with its whole set-up, on every data set. SGLD has SGWORLD's coordinates and step size,
and plain gradients of batches drawn with replacement. NUTS shows that the models, the data and the
ranks are right.
"""

from pathlib import Path

from sgworld_benchmarks.calibration.models import MODELS
from sgworld_benchmarks.calibration.ranks import LEVELS, SIGNIFICANCE, Ranks, Verdict, judge
from sgworld_benchmarks.calibration.run import calibrate, calibrate_kept
from sgworld_benchmarks.calibration.samplers import SAMPLERS
from sgworld_mcmc.checks import check_choice, check_integer

__all__ = ["add_arguments", "calibrate", "judge", "run_cli"]

HEADER = (
    f"{'model':13}{'sampler':9}{'sets':>5}{'smallest p':>12}{'ECDFs out':>11}"
    f"{'50 % intervals (z)':>24}{'90 % intervals (z)':>24}{'warned':>8}{'seconds':>9}"
)
# Fewer data sets than this say nothing about ranks.
FEWEST = 40


def line(name: str, sampler: str, found: Ranks, verdict: Verdict) -> str:
    """Return one line of the table; intervals are those of the quantity farthest from the level."""
    text = f"{name:13}{sampler:9}{len(found.ranks):5d}{verdict.p.min():12.2g}"
    text += f"{f'{verdict.outside.sum()} of {len(verdict.p)}':>11}"
    for place in range(len(LEVELS)):
        worst = abs(verdict.z[:, place]).argmax()
        part = f"{verdict.coverage[worst, place]:.3f} ({verdict.z[worst, place]:+.1f})"
        text += f"{part:>24}"
    return f"{text}{found.warned.sum():8d}{found.seconds:9.0f}"


def summary(sampler: str, found: dict[str, Ranks]) -> str:
    """Return what the ranks of all models say about a sampler."""
    verdicts = {name: judge(one) for name, one in found.items()}
    count = sum(len(v.p) for v in verdicts.values())
    smallest = min(v.p.min() for v in verdicts.values())
    limit = SIGNIFICANCE / count
    failed = [name for name, v in verdicts.items() if v.failed]
    far = sum(int((abs(v.z) > 3).sum()) for v in verdicts.values())
    farthest = max(abs(v.z).max() for v in verdicts.values())
    return (
        f"{sampler}: smallest p of {count} quantities {smallest:.2g} (limit {limit:.2g}: "
        f"{'not uniform' if smallest < limit else 'uniform'}); failing models: "
        f"{', '.join(failed) or 'none'}; {far} of {2 * count} coverages farther than three "
        f"standard errors, the farthest {farthest:.1f}"
    )


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark calibration`` to an `argparse` parser."""
    names = ", ".join(MODELS)
    parser.add_argument(
        "--models", nargs="+", default=tuple(MODELS), metavar="NAME", help=f"of {names} (all)"
    )
    parser.add_argument("--replicates", type=int, default=500, help="data sets of each model (500)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument(
        "--simuk",
        type=int,
        default=0,
        metavar="NUMBER",
        help="instead: let simuk calibrate SGWORLD on so many data sets of the first model",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="for calibration.png and ranks.png, and for the ranks: those there are not made anew",
    )


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table and return 0."""
    for name in namespace.models:
        check_choice("models", name, tuple(MODELS))
    if namespace.simuk:
        from sgworld_benchmarks.calibration.cross_check import cross_check

        print(cross_check(namespace.models[0], namespace.simuk, namespace.seed))
        return 0
    check_integer("replicates", namespace.replicates, FEWEST)
    print(HEADER, flush=True)
    found = {sampler: {} for sampler in SAMPLERS}
    for name in namespace.models:
        chosen = None
        for sampler, ranks in found.items():
            one = calibrate_kept(
                namespace.out, name, sampler, namespace.replicates, namespace.seed, chosen
            )
            chosen = one if chosen is None else chosen
            ranks[name] = one
            print(line(name, sampler, one, judge(one)), flush=True)
            if one.warned.any() and (~one.warned).sum() >= FEWEST:
                rest = one.unwarned()
                print(line("  not warned", sampler, rest, judge(rest)), flush=True)
    for sampler, ranks in found.items():
        print(summary(sampler, ranks))
        if any(one.warned.any() for one in ranks.values()):
            rest = {name: one.unwarned() for name, one in ranks.items()}
            rest = {name: one for name, one in rest.items() if len(one.ranks) >= FEWEST}
            if rest:
                print(f"  data sets without a warning: {summary(sampler, rest)}")
    if namespace.out:
        _draw(found, Path(namespace.out))
    return 0


def _draw(found: dict[str, dict[str, Ranks]], folder: Path) -> None:
    from sgworld_benchmarks.calibration.pictures import plot_distributions, plot_histograms

    folder.mkdir(parents=True, exist_ok=True)
    plot_distributions(found, folder / "calibration.png")
    plot_histograms(found, folder / "ranks.png")
