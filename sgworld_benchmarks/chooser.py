"""Compare the settings that the package chooses with a grid search at the same measured error.

The problems are logistic regressions of several sizes. The default ``SGWORLD(model)`` is run with
many chains, and so is every combination of gradient, batch size and step size of a grid, in the
same coordinates. For each the errors of variances and means are measured against a run at a small
step size, and the rows read for each effective draw are counted. The best setting of the grid is
the cheapest one whose errors are no larger than those of the chosen one, or than the tolerance, up
to Monte Carlo noise; as in the package, a tolerance of 1 % for the variance is one of 0.02 sd for
the mean.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sgworld_benchmarks.regimes import plot_regimes, regimes
from sgworld_benchmarks.repeated_runs import (
    Moments,
    effective_draws,
    lay_out,
    moments,
    parameters,
    rerun,
    unconstrained,
)
from sgworld_benchmarks.speed.problems import logistic
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.setup.predict import MEAN_PER_VARIANCE

__all__ = ["Comparison", "Measured", "compare", "table"]

SIZES = ((100, 5), (1000, 5), (10_000, 20), (100_000, 20))
LARGE = ((1_000_000, 20), (2000, 1000))
GRADIENTS = ("taylor", "control_variate", "plain")
BATCH_SIZES = (10, 50, 200, 1000)
STEP_SIZES = (1.0, 0.5, 0.2, 0.05)
# The reference's step size is the first number, or the chosen one over the second if that is
# smaller. Its batches have REFERENCE_ROWS rows, or all rows if there are fewer.
REFERENCE_STEP, REFERENCE_RATIO, REFERENCE_ROWS = 0.2, 4, 2000
# Number of warm-up calls of the default, and length of the other runs' warm-up in relaxation times
# at the smallest step size. Chains start at draws of pilot chains or of the Gaussian approximation.
WARMUP, RELAXATIONS = 60, 10
# An error is taken to be larger than another one if it is so by this many standard errors.
SIGMAS = 2.0


class Measured(NamedTuple):
    """One setting, and its measured cost and errors.

    Attributes
    ----------
    gradient, batch_size, step_size, draws_at
        The setting; ``draws_at`` says which positions count as draws, ``"steps"`` or ``"epochs"``.
    examples
        Rows read for each effective draw, as a median over parameters.
    error, error_se
        Root mean square over parameters of the relative variance error, the Monte Carlo noise
        subtracted, and its standard error.
    shift, shift_se
        The same for the errors of the means, in posterior standard deviations.
    """

    gradient: str
    batch_size: int
    step_size: float
    draws_at: str
    examples: float
    error: float
    error_se: float
    shift: float
    shift_se: float

    def is_as_good(self, limit: float, limit_shift: float) -> bool:
        """Return whether both errors are within limits, up to noise; False if one is unknown."""
        told = self.error_se <= limit and self.shift_se <= limit_shift
        return told and (
            self.error - SIGMAS * self.error_se <= limit
            and self.shift - SIGMAS * self.shift_se <= limit_shift
        )

    def __str__(self) -> str:
        where = "" if self.draws_at == "steps" else " (epoch ends)"
        return f"{self.gradient} B={self.batch_size} h={self.step_size:.3g}{where}"


class Comparison(NamedTuple):
    """The chosen setting and the grid on one problem."""

    size: int
    dimension: int
    chosen: Measured
    best: Measured | None
    grid: tuple[Measured, ...]
    skipped: int

    @property
    def ratio(self) -> float:
        """Ratio of the chosen setting's rows for each effective draw to the best setting's.

        It is 1 if nothing in the grid is better.
        """
        return self.chosen.examples / self.best.examples if self.best else 1.0


def compare(
    num_data: int,
    dim: int,
    chains: int = 128,
    draws: int = 1000,
    tolerance: float = 0.02,
    seed: int = 0,
    batch_sizes: tuple[int, ...] = BATCH_SIZES,
    step_sizes: tuple[float, ...] = STEP_SIZES,
    gradients: tuple[str, ...] = GRADIENTS,
    report: Callable[[str], None] | None = None,
) -> Comparison:
    """Run the chosen setting and the grid on a logistic regression.

    Parameters
    ----------
    num_data, dim
        Number of rows N and dimension D.
    chains, draws
        Number of chains and draws of the chosen setting. A setting of the grid makes as many steps
        as draws, and at least two epochs if draws at the ends of epochs are tried.
    tolerance
        Tolerance of the package's choice.
    batch_sizes, step_sizes, gradients
        The grid; all rows in one batch are tried too. Batches larger than the number of rows that
        the chosen setting needs for an effective draw cannot be better, and are skipped.
    report
        Function that is called with a line of text for each setting.
    """
    check_integer("chains", chains, 2)
    problem = logistic(num_data, dim)
    keys = jax.random.split(jax.random.key(seed), 3)
    default = _sampler(problem, chains, draws, tolerance=tolerance)
    plan = lay_out(default, keys[0], *problem.data)
    say = report or (lambda _: None)

    rows = min(REFERENCE_ROWS, num_data)
    choice, step_size = plan.choice, plan.step_size
    smallest = min(REFERENCE_STEP, step_size / REFERENCE_RATIO)
    small = _fixed(
        plan,
        problem,
        chains,
        draws,
        "taylor" if rows < num_data else "plain",
        rows,
        smallest,
        round(REFERENCE_STEP / smallest),
    )
    lay_out(small, keys[0], *problem.data, like=default)
    reference = moments(parameters(small, keys[1], smallest))

    draws_of_default = parameters(default, keys[1])
    steps = plan.dynamics.steps_per_draw
    inside = steps % plan.num_batches != 0 or plan.num_batches == 1
    chosen = _measured(
        (choice.gradient, choice.batch_size, step_size),
        "steps" if inside else "epochs",
        draws_of_default,
        steps,
        reference,
    )
    say(f"chosen: {chosen}, {_numbers(chosen)}")
    found, skipped = [], 0
    spacing = 1
    if step_size < min(step_sizes):
        # The posterior needs steps smaller than those of the grid: the chosen one's neighbours are
        # tried instead.
        step_sizes = tuple(step_size * factor for factor in (4.0, 2.0, 1.0, 0.5))
        spacing = round(STEP_SIZES[-1] / step_size)
    for batch_size in sorted({*(b for b in batch_sizes if b <= num_data / 2), num_data}):
        for gradient in gradients if batch_size < num_data else ("plain",):
            if batch_size > chosen.examples:
                skipped += len(step_sizes)
                continue
            mcmc = _fixed(
                plan,
                problem,
                chains,
                draws,
                gradient,
                batch_size,
                min(step_sizes),
                spacing,
            )
            lay_out(mcmc, keys[0], *problem.data, like=default)
            for number, h in enumerate(step_sizes):
                made = _settings(mcmc, jax.random.fold_in(keys[2], number), h, reference)
                found += made
                for measured in made:
                    say(f"  {measured}, {_numbers(measured)}")
    limit = max(chosen.error + SIGMAS * chosen.error_se, tolerance)
    limit_shift = max(chosen.shift + SIGMAS * chosen.shift_se, MEAN_PER_VARIANCE * tolerance)
    good = [m for m in found if m.is_as_good(limit, limit_shift)]
    best = min(good, key=lambda m: m.examples, default=None)
    return Comparison(num_data, dim, chosen, best, tuple(found), skipped)


def _sampler(problem, chains, draws, warmup=WARMUP, **settings) -> SGWORLD:
    return SGWORLD(
        problem.model, num_chains=chains, num_samples=draws, num_warmup=warmup, **settings
    )


def _fixed(plan, problem, chains, draws, gradient, batch_size, smallest, spacing) -> SGWORLD:
    """Return a sampler with all settings fixed, in the default's coordinates.

    It makes a draw every few steps.
    """
    # A call of the warm-up makes at most an epoch of steps.
    steps = min(spacing, -(-problem.size // batch_size))
    return _sampler(
        problem,
        chains,
        draws,
        round(RELAXATIONS / (smallest * steps)),
        gradient=gradient,
        batch_size=batch_size,
        step_size=REFERENCE_STEP,
        steps_per_draw=spacing,
        preconditioner=plan.fit.coordinates.covariance(),
    )


def _settings(mcmc, rng_key, step_size, reference) -> list[Measured]:
    """Measure one run in two ways: with draws at all steps, and at the ends of epochs."""
    plan, made = mcmc.plan, rerun(mcmc, rng_key, step_size)
    count, draws = plan.num_batches, unconstrained(plan, made.positions)
    steps = plan.dynamics.steps_per_draw
    if not np.isfinite(draws).all() or made.stopped.any():
        return []
    setting = (plan.dynamics.gradient.name, plan.batch_size, step_size)
    made = [_measured(setting, "steps", draws, steps, reference)]
    # Epochs count from the first step of the warm-up; the autocorrelation needs a few draws.
    ends = draws[:, (count - 1 - mcmc.num_warmup) % count :: count]
    if count > 1 and steps == 1 and ends.shape[1] >= 10:
        made.append(_measured(setting, "epochs", ends, count, reference))
    return made


def _measured(setting, draws_at, draws, steps, reference: Moments) -> Measured:
    gradient, batch_size, step_size = setting
    found = moments(draws)
    relative = found.variance / reference.variance
    error, error_se = _root_mean_square(
        relative - 1,
        relative
        * np.hypot(found.variance_se / found.variance, reference.variance_se / reference.variance),
    )
    sd = np.sqrt(reference.variance)
    shift, shift_se = _root_mean_square(
        (found.mean - reference.mean) / sd, np.hypot(found.mean_se, reference.mean_se) / sd
    )
    total = draws.shape[0] * draws.shape[1] * steps * batch_size
    return Measured(
        gradient,
        batch_size,
        step_size,
        draws_at,
        float(total / np.median(effective_draws(draws))),
        error,
        error_se,
        shift,
        shift_se,
    )


def _root_mean_square(value, se) -> tuple[float, float]:
    """Return the root mean square of noisy values, without their noise, and its standard error."""
    square = np.mean(value**2 - se**2)
    known = max(square, 0.0)
    square_se = np.sqrt(np.mean(2 * se**4 + 4 * known * se**2) / len(se))
    return float(np.sqrt(known)), float(np.sqrt(known + square_se) - np.sqrt(known))


def _numbers(measured: Measured) -> str:
    error = f"{measured.error:.2%} ± {measured.error_se:.2%}"
    shift = f"{measured.shift:.3f} ± {measured.shift_se:.3f} sd"
    return f"{measured.examples:.4g} rows/ESS, variance error {error}, mean {shift}"


def table(results: list[Comparison]) -> str:
    """Return a line for each problem."""
    lines = [
        f"{'N':>9}{'D':>6}  {'chosen':30}{'rows/ESS':>10}{'error':>16}{'mean, sd':>16}  "
        f"{'best of the grid':38}{'rows/ESS':>10}{'error':>16}{'mean, sd':>16}{'ratio':>7}"
    ]
    for result in results:
        chosen, best = result.chosen, result.best
        text = f"{result.size:9}{result.dimension:6}  {chosen!s:30}{_columns(chosen)}  "
        if best is None:
            lines.append(text + "nothing in the grid is as good")
            continue
        lines.append(text + f"{best!s:38}{_columns(best)}{result.ratio:7.2f}")
    worst = max(result.ratio for result in results)
    lines += ["", f"Largest ratio of rows for each effective draw, chosen / best: {worst:.2f}"]
    return "\n".join(lines)


def _columns(measured: Measured) -> str:
    error = f"{measured.error:.2%} ± {measured.error_se:.2%}"
    shift = f"{measured.shift:.3f} ± {measured.shift_se:.3f}"
    return f"{measured.examples:10.4g}{error:>16}{shift:>16}"


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark chooser`` to an `argparse` parser."""
    for name, default, text in (
        ("chains", 128, "side by side"),
        ("draws", 1000, "of each chain"),
        ("seed", 0, "of partitions and noise"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--tolerance", type=float, default=0.02, help="of the package (0.02)")
    parser.add_argument(
        "--sizes", nargs="+", metavar="N,D", help="problems (default: 100,5 to 100000,20)"
    )
    parser.add_argument(
        "--large", action="store_true", help="also 1000000,20 and 2000,1000: many minutes"
    )
    parser.add_argument("--map", action="store_true", help="also the map of regimes (minutes)")
    parser.add_argument("--out", metavar="FOLDER", help="for chooser.json and regimes.png")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, and return 0."""
    sizes = SIZES + LARGE * namespace.large
    if namespace.sizes:
        sizes = [_size(text) for text in namespace.sizes]
    if namespace.out:
        Path(namespace.out).mkdir(parents=True, exist_ok=True)
    results = []
    for num_data, dim in sizes:
        print(f"N={num_data}, D={dim}", flush=True)
        results.append(
            compare(
                num_data,
                dim,
                chains=namespace.chains,
                draws=namespace.draws,
                tolerance=namespace.tolerance,
                seed=namespace.seed,
                report=lambda text: print(text, flush=True),
            )
        )
        jax.clear_caches()
    print("\n" + table(results))
    found = None
    if namespace.map:
        found = regimes(tolerance=namespace.tolerance, report=lambda text: print(text, flush=True))
    if namespace.out:
        folder = Path(namespace.out)
        values = [result._asdict() for result in results]
        (folder / "chooser.json").write_text(json.dumps(values, indent=1))
        if found is not None:
            plot_regimes(found, folder / "regimes.png")
    return 0


def _size(text: str) -> tuple[int, int]:
    try:
        num_data, dim = map(int, text.split(","))
    except ValueError:
        raise ValueError(f"--sizes takes pairs such as 1000,5, not {text!r}") from None
    return check_integer("N", num_data, 10), check_integer("D", dim, 1)
