"""Print the demo's tables, explain them in words, and write pictures, netCDF and CSV files."""

import csv
from pathlib import Path

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.table import Table

from sgworld_mcmc.demo.problems import Problem
from sgworld_mcmc.demo.samplers import Run
from sgworld_mcmc.demo.scores import MEAN_TOLERANCE, SD_TOLERANCE, SIGNIFICANT, Score
from sgworld_mcmc.diagnostics import plot_density, plot_trace, to_arviz

__all__ = ["FOOTNOTE", "explain_table", "make_table", "write_files"]

FOOTNOTE = (
    "Mean error: the largest of all parameters, in posterior sd, ± its Monte Carlo error. KS, ESS: "
    "the largest distance, the smallest effective sample size. ok: every mean within "
    f"{MEAN_TOLERANCE:g} sd and every sd within {SD_TOLERANCE:.0%}; ?: beyond, but by less than "
    "three Monte Carlo errors. Epochs: gradient evaluations of all chains, warm-up included, in "
    "full-data gradients (without the set-up of the minibatch rows). The rows from plain to full "
    "gradients take the default run's preconditioner and compiled set-up. Seconds: wall clock, "
    "compilation apart; on a shared machine they vary by a factor."
)
_MARKS = {"yes": "ok", "no": "no", "noise": "?"}
# From the beginning of a row's label to its name in the picture.
_DRAWN = {
    "SGWORLD, defaults": "SGWORLD",
    "SGWORLD, plain": "SGWORLD, plain",
    "SGLD, same step": "SGLD, same step",
    "NUTS": "NUTS",
    "Laplace": "Laplace",
}


def make_table(problem: Problem, rows: list[tuple[Run, Score]]) -> Table:
    """Make a table with one line for each run."""
    table = Table(title=problem.title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("sampler", no_wrap=True)
    for heading in ("mean error", "sd ratio", "KS", "ESS", "compile s", "run s", "epochs", "ok"):
        table.add_column(heading, justify="right", no_wrap=True)
    for run, score in rows:
        worst = score.worst_mean
        table.add_row(
            run.label,
            f"{abs(score.mean_error[worst]):.3f} ± {score.mean_error_se[worst]:.3f}",
            f"{score.sd_ratio.min():.3f}-{score.sd_ratio.max():.3f}",
            f"{score.ks.max():.3f}",
            f"{score.ess.min():.0f}",
            f"{run.compile_seconds:.1f}",
            f"{run.run_seconds:.2f}",
            f"{run.epochs:.0f}",
            _MARKS[score.verdict()],
        )
    return table


def explain_table(rows: list[tuple[Run, Score]]) -> str:
    """Explain the table in words, all of which follow from its numbers."""
    verdicts = {run.label: score.verdict() for run, score in rows}
    lines = []
    for mark, words in (
        ("yes", "Within tolerance"),
        ("noise", "Not told apart from the tolerance by so few draws"),
        ("no", "Outside"),
    ):
        found = [
            run.label + ("" if mark == "yes" else f" ({_worst(score)})")
            for run, score in rows
            if verdicts[run.label] == mark
        ]
        if found:
            lines.append(f"{words}: {'; '.join(found)}.")
    lines += [_replacement(rows), _plain_bias(rows), _laplace(rows), _cost(rows), _time(rows)]
    return "\n".join(f"* {line}" for line in lines if line)


def write_files(
    folder: Path, problem: Problem, rows: list[tuple[Run, Score]], reference: Run | None
) -> list[Path]:
    """Write densities, traces, the ArviZ file of the default run, and the table as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    names = ("density.png", "trace.png", "sgworld.nc", "table.csv")
    paths = [folder / f"{problem.name}_{name}" for name in names]
    curves = {name: _find(rows, start)[0].samples for start, name in _DRAWN.items()}
    if reference is None:
        plot_density(curves, problem.exact, path=paths[0], columns=6)
    else:
        del curves["NUTS"]  # a NUTS run is already drawn as the truth
        plot_density(curves, reference.samples, exact_label="long NUTS", path=paths[0], columns=6)
    default = rows[0][0]
    plot_trace(default.samples, path=paths[1])
    to_arviz(default.mcmc).to_netcdf(paths[2], engine="h5netcdf")
    with open(paths[3], "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(
            "sampler parameter mean_error mean_error_se sd_ratio sd_ratio_se ks ess "
            "compile_seconds run_seconds epochs".split()
        )
        for run, score in rows:
            whole = (f"{x:.4g}" for x in (run.compile_seconds, run.run_seconds))
            whole = (*whole, f"{run.epochs:.1f}")
            for name, *values in zip(*score, strict=True):
                writer.writerow((run.label, name, *(f"{x:.5g}" for x in values), *whole))
    return paths


def _find(rows, start):
    return next(((run, score) for run, score in rows if run.label.startswith(start)), (None, None))


def _worst(score: Score) -> str:
    mean, sd = score.worst_mean, score.worst_sd
    mean_excess = abs(score.mean_error[mean]) / MEAN_TOLERANCE
    sd_excess = abs(score.sd_ratio[sd] - 1) / SD_TOLERANCE
    if mean_excess > sd_excess:
        return f"mean of {score.names[mean]} off by {score.mean_error[mean]:+.2f} sd"
    return f"sd of {score.names[sd]} times {score.sd_ratio[sd]:.2f}"


def _replacement(rows):
    _, without = _find(rows, "SGWORLD, plain")
    _, same_step = _find(rows, "SGLD, same step")
    small, same_bias = _find(rows, "SGLD, same bias")
    world, _ = _find(rows, "SGWORLD, plain")
    return (
        f"Minibatches with and without replacement, all else equal: the standard deviations are "
        f"on average {same_step.sd_ratio.mean() - 1:+.1%} off with (SGLD) and "
        f"{without.sd_ratio.mean() - 1:+.1%} off without (SGWORLD) at the same step; SGLD at the "
        f"step predicted to have the same bias: {same_bias.sd_ratio.mean() - 1:+.1%}, for "
        f"{small.epochs / world.epochs:.0f} times the epochs."
    )


def _plain_bias(rows):
    """Describe the bias of plain gradients, if control variates are measurably better.

    Otherwise the noise of the minibatches is not the cause, and the text is empty.
    """
    _, plain = _find(rows, "SGWORLD, plain")
    _, default = _find(rows, "SGWORLD, defaults")
    worst = plain.worst_mean
    gain = abs(plain.mean_error[worst]) - abs(default.mean_error[worst])
    if gain < SIGNIFICANT * np.hypot(plain.mean_error_se[worst], default.mean_error_se[worst]):
        return ""
    return (
        f"Plain minibatch gradients shift the mean of {plain.names[worst]} by "
        f"{plain.mean_error[worst]:+.2f} sd, beyond Monte Carlo error: a true bias of the finite "
        f"step, which adds (h/4) trace C, the noise of the batches, to the potential. The default "
        f"control variates leave {default.mean_error[worst]:+.2f} ± "
        f"{default.mean_error_se[worst]:.2f} sd."
    )


def _laplace(rows):
    run, score = _find(rows, "Laplace")
    verdict = score.verdict()
    if verdict == "no":
        return f"Laplace is not enough here ({_worst(score)}): sample instead."
    if verdict == "noise":
        return f"Laplace is at the tolerance ({_worst(score)})."
    return (
        f"This posterior is close to Gaussian: the Laplace approximation is within tolerance for "
        f"{run.epochs:.0f} full gradients and is the better choice."
    )


def _cost(rows):
    """Compare the cost of an effective draw, among samplers that are not outside the tolerance."""
    good = [
        (run, score)
        for run, score in rows
        if score.verdict() != "no" and not run.label.startswith("Laplace")
    ]
    if not good:
        return "No sampler is within tolerance: take smaller steps or more draws."
    costs = {
        run.label + (" (?)" if score.verdict() == "noise" else ""): run.epochs / score.ess.min()
        for run, score in good
    }
    cheapest = min(costs, key=costs.get)
    listing = ", ".join(f"{label}: {costs[label]:.3g}" for label in sorted(costs, key=costs.get))
    text = (
        "Full-data gradients for each effective draw of the slowest parameter, of the samplers not "
        f"outside: {listing}."
    )
    if "NUTS" in costs and cheapest != "NUTS":
        text += f" NUTS takes {costs['NUTS'] / costs[cheapest]:.0f} times those of {cheapest}."
    return text


def _time(rows):
    """Compare the times of SGWORLD and NUTS; other rows start where the default run ended."""
    default, nuts = _find(rows, "SGWORLD, defaults"), _find(rows, "NUTS")
    seconds = [run.compile_seconds + run.run_seconds for run, _ in (default, nuts)]
    better = "NUTS" if seconds[1] < seconds[0] else "SGWORLD"
    marks = [_MARKS[score.verdict()] for _, score in (default, nuts)]
    text = (
        f"Compilation included, SGWORLD took {seconds[0]:.0f} s ({marks[0]}) and NUTS "
        f"{seconds[1]:.0f} s ({marks[1]}) here: {better} was done first."
    )
    if marks[1] == "ok" and (marks[0] != "ok" or better == "NUTS"):
        text += " NUTS is the better choice on so few rows."
    return text
