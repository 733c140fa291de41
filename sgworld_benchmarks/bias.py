"""Compare predicted and measured errors of posterior variances over a grid of step sizes.

Three posteriors are known exactly: linear regression with known noise (Gaussian), with unknown
noise (Student t and, for the log variance, log inverse gamma), and the log rate of Poisson counts
(log gamma). For each kind of sampler the step sizes are those at which the package predicts errors
of 1, 2, 5 and 10 %; many chains then measure them.

A prediction is the mean over the ways to deal the rows into batches. One partition into M batches
has its own noise, which differs by a fraction of about sqrt(2 / (M - 1)). So the measurement is a
mean over several partitions, with the standard error from their scatter. The scatter is shown too:
a user's single partition adds as much. A prediction holds if the measured error is within a factor
1.5 of it, or if the difference may be Monte Carlo error.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sgworld_benchmarks.bias_plot import plot_bias
from sgworld_benchmarks.bias_targets import TARGETS, Target
from sgworld_benchmarks.repeated_runs import deal_anew, lay_out, moments, parameters
from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.report.predictions import predicted_errors

__all__ = ["KINDS", "Kind", "Point", "run", "table"]

FACTOR = 1.5
SIGMAS = 3.0
ERRORS = (0.01, 0.02, 0.05, 0.1)
STEP_SIZES = np.geomspace(1e-4, 1.6, 400)


class Kind(NamedTuple):
    """A kind of sampler: its class, its settings, and the distance between draws.

    Draws are ``epochs`` epochs apart, or if that is None ``steps`` minibatch steps, which are no
    whole number of epochs.
    """

    label: str
    sampler: Callable
    gradient: str
    num_batches: int
    epochs: int | None = None
    steps: int | None = None
    settings: dict = {}  # noqa: RUF012


KINDS = (
    Kind("SGWORLD, plain", SGWORLD, "plain", 16, epochs=1),
    Kind(
        "SGWORLD, plain, symmetric", SGWORLD, "plain", 16, epochs=2, settings={"order": "symmetric"}
    ),
    Kind("SGLD, plain", SGLD, "plain", 16, epochs=8),
    Kind("SGWORLD, control variates", SGWORLD, "control_variate", 16, steps=3),
    Kind("SGLD, control variates", SGLD, "control_variate", 16, steps=3),
    Kind("SGWORLD, Taylor", SGWORLD, "taylor", 16, steps=3),
    Kind(
        "full gradient, independent noise",
        SGWORLD,
        "plain",
        1,
        steps=20,
        settings={"noise": "independent"},
    ),
)


class Point(NamedTuple):
    """The result at one step size of one kind of sampler on one posterior.

    The errors are those of the parameter with the largest predicted error.

    Attributes
    ----------
    target, kind, parameter
        Labels.
    step_size
        Step size h in whitened coordinates.
    predicted, measured, error
        Predicted and measured relative error of the variance, and standard error of the latter.
    scatter
        Standard deviation of the measured error from partition to partition.
    held, parameters
        Number of parameters for which the prediction holds, and number of all parameters.
    worst
        (predicted, measured, error) of the parameter that is farthest from its prediction, in
        standard errors outside of the factor.
    """

    target: str
    kind: str
    parameter: str
    step_size: float
    predicted: float
    measured: float
    error: float
    scatter: float
    held: int
    parameters: int
    worst: tuple[float, float, float]

    @property
    def within(self) -> bool:
        """Return whether the measured error is within the factor of the predicted one."""
        return 1 / FACTOR <= self.measured / self.predicted <= FACTOR

    @property
    def verdict(self) -> str:
        """Return ``"within"``, ``"noise"`` (Monte Carlo error cannot tell) or ``"OFF"``."""
        if self.within:
            return "within"
        return "noise" if _outside(self.predicted, self.measured, self.error) < SIGMAS else "OFF"


def _outside(predicted, measured, error):
    """Return how far, in standard errors, a measured error is outside of the factor."""
    ends = np.sort(np.stack([np.multiply(predicted, FACTOR), np.divide(predicted, FACTOR)]), axis=0)
    beyond = np.maximum(measured - ends[1], ends[0] - measured)
    return np.maximum(beyond, 0) / error


def run(
    targets: tuple[str, ...] = tuple(TARGETS),
    kinds: tuple[Kind, ...] = KINDS,
    errors: tuple[float, ...] = ERRORS,
    chains: int = 64,
    draws: int = 600,
    partitions: int = 8,
    seed: int = 0,
    report: Callable[[Point], None] | None = None,
) -> list[Point]:
    """Measure all kinds of sampler on all targets.

    Parameters
    ----------
    targets
        Names among `TARGETS`.
    errors
        The predicted errors to test, which decide the step sizes. An error is left out if the
        prediction stays below it at every step size.
    chains, draws, partitions
        For each point: number of chains on each partition, draws of each chain, and partitions.
    report
        Function that is called with each point as soon as it is known.
    """
    check_integer("chains", chains, 2)
    check_integer("draws", draws, 2)
    check_integer("partitions", partitions, 2)
    points = []
    for name in targets:
        target, first = TARGETS[name](), None
        for number, kind in enumerate(kinds):
            rng_key = jax.random.fold_in(jax.random.key(seed), number)
            mcmc = _sampler(target, kind, chains, draws)
            plan = lay_out(mcmc, rng_key, *target.posterior.data, like=first)
            first = first or mcmc
            for index, h in enumerate(_step_sizes(plan, errors)):
                key = jax.random.fold_in(rng_key, index)
                points.append(_measure(target, kind, mcmc, key, h, partitions))
                if report is not None:
                    report(points[-1])
        jax.clear_caches()
    return points


def _sampler(target: Target, kind: Kind, chains: int, draws: int):
    size = len(target.posterior.data[0])
    batch_size = -(-size // kind.num_batches)
    count = -(-size // batch_size)
    steps = kind.steps if kind.epochs is None else kind.epochs * count
    return kind.sampler(
        target.posterior.model,
        num_chains=chains,
        num_samples=draws,
        num_warmup=200,
        gradient=kind.gradient,
        batch_size=batch_size,
        steps_per_draw=steps,
        **kind.settings,
    )


def _step_sizes(plan, errors) -> list[float]:
    """Return the smallest step sizes at which these errors are predicted for some parameter."""
    chosen, previous = [], 0.0
    for h in STEP_SIZES[STEP_SIZES <= 1 / plan.fit.extremes()[0]]:
        made = predicted_errors(plan, plan.measurements, float(h))
        size = float(np.abs(made.variance_error).max())
        if not np.isfinite(size):
            break
        if any(previous < error <= size for error in errors):
            chosen.append(float(h))
        previous = max(previous, size)
    return chosen


def _measure(target, kind, mcmc, rng_key, step_size, partitions) -> Point:
    """Run the chains on each of several partitions of the rows, and return their errors."""
    generator = np.random.default_rng(np.asarray(jax.random.key_data(rng_key)).tolist())
    found = []
    for key in jax.random.split(rng_key, partitions):
        deal_anew(mcmc, generator)
        draws = parameters(mcmc, key, step_size)
        found.append(moments(draws).variance / target.variance - 1)
    predicted = predicted_errors(mcmc.plan, mcmc.plan.measurements, step_size).variance_error
    measured, scatter = np.mean(found, axis=0), np.std(found, axis=0, ddof=1)
    error = scatter / np.sqrt(partitions)
    shown = int(np.argmax(np.abs(predicted)))
    outside = _outside(predicted, measured, error)
    worst = int(np.argmax(outside))
    return Point(
        target.label,
        kind.label,
        mcmc.data.model.scalar_names()[shown],
        step_size,
        float(predicted[shown]),
        float(measured[shown]),
        float(error[shown]),
        float(scatter[shown]),
        int(np.sum(outside < SIGMAS)),
        len(predicted),
        (float(predicted[worst]), float(measured[worst]), float(error[worst])),
    )


def line(point: Point) -> str:
    """Return one line of the table."""
    measured = f"{point.measured:+.2%} ± {point.error:.2%}"
    held = f"{point.held}/{point.parameters}"
    return (
        f"{point.target:34}{point.kind:34}{point.parameter:>9}{point.step_size:10.3g}"
        f"{point.predicted:+11.2%}{measured:>20}{point.scatter:9.2%}"
        f"{point.measured / point.predicted:8.2f}"
        f"{point.verdict:>8}{held:>6}"
    )


def head() -> str:
    """Return the names of the columns of `line`."""
    return (
        f"{'posterior':34}{'sampler':34}{'parameter':>9}{'h':>10}{'predicted':>11}{'measured':>20}{'scatter':>9}"
        f"{'ratio':>8}{'':>8}{'all':>6}"
    )


def table(points: list[Point]) -> str:
    """Return a line for each point, and a summary."""
    verdicts = [point.verdict for point in points]
    counts = ", ".join(f"{v}: {verdicts.count(v)}" for v in ("within", "noise", "OFF"))
    everywhere = sum(p.held for p in points), sum(p.parameters for p in points)
    summary = (
        f"{len(points)} points: {counts} (factor {FACTOR:g}; noise: within {SIGMAS:g} standard "
        f"errors of it). All parameters: {everywhere[0]} of {everywhere[1]} hold."
    )
    return "\n".join([head(), *map(line, points), "", summary])


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark bias`` to an `argparse` parser."""
    names = tuple(TARGETS)
    parser.add_argument("--targets", nargs="+", choices=names, default=names, help="which (all)")
    parser.add_argument("--chains", type=int, default=64, help="side by side (64)")
    parser.add_argument("--draws", type=int, default=600, help="of each chain (600)")
    parser.add_argument("--partitions", type=int, default=8, help="into batches (8)")
    parser.add_argument("--seed", type=int, default=0, help="of partitions and noise (0)")
    parser.add_argument("--out", metavar="FOLDER", help="for bias.png and bias.json")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, draw the picture, and return 0."""
    if namespace.out:
        Path(namespace.out).mkdir(parents=True, exist_ok=True)
    points = run(
        targets=tuple(namespace.targets),
        chains=namespace.chains,
        draws=namespace.draws,
        partitions=namespace.partitions,
        seed=namespace.seed,
        report=lambda point: print(line(point), flush=True),
    )
    print("\n" + table(points))
    if namespace.out:
        folder = Path(namespace.out)
        (folder / "bias.json").write_text(json.dumps([p._asdict() for p in points], indent=1))
        plot_bias(points, folder / "bias.png", FACTOR)
    return 0
