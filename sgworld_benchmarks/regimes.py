"""Draw a map of the settings that the package chooses over rows N and dimension D.

There is one set of measurements for each logistic regression (mode, curvature, pilot chains, noise
of the rows). From it the package chooses three times: freely, without second-order control
variates, and with plain gradients only, as if there were no usable mode.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from sgworld_benchmarks.speed.problems import logistic
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.setup.choose import Choice, choose
from sgworld_mcmc.setup.request import request_of

__all__ = ["PANELS", "Regime", "plot_regimes", "regimes"]

ROWS = (100, 1000, 10_000, 100_000)
DIMENSIONS = (2, 5, 20, 50)
PANELS = {
    "all kinds": ("plain", "control_variate", "taylor"),
    "no second-order control variates": ("plain", "control_variate"),
    "plain gradients only": ("plain",),
}
SHORT = {"plain": "plain", "control_variate": "CV", "taylor": "Taylor"}


class Regime(NamedTuple):
    """The choices for one problem, by panel."""

    size: int
    dimension: int
    choices: dict[str, Choice]


def regimes(
    rows: tuple[int, ...] = ROWS,
    dimensions: tuple[int, ...] = DIMENSIONS,
    tolerance: float = 0.02,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> list[Regime]:
    """Choose the settings for logistic regressions of all these sizes.

    Sizes with N below 4 D are left out, because their posterior is close to the prior.
    """
    found = []
    for dim in dimensions:
        for num_data in rows:
            if num_data < 4 * dim:
                continue
            problem = logistic(num_data, dim)
            mcmc = SGWORLD(problem.model, tolerance=tolerance)
            plan = mcmc.set_up(jax.random.key(seed), *problem.data)
            request = request_of(mcmc.sampler.settings, num_data, plan.fit)
            measured = plan.measurements
            choices = {
                panel: choose(replace(request, gradients=kinds), measured.noise, measured.steps)
                for panel, kinds in PANELS.items()
            }
            found.append(Regime(num_data, dim, choices))
            if report is not None:
                texts = (f"{p}: {_label(c)}" for p, c in choices.items())
                report(f"N={num_data}, D={dim}: " + "; ".join(texts).replace("\n", ", "))
        jax.clear_caches()
    return found


def _label(choice: Choice) -> str:
    if choice.num_batches == 1:
        kind = "full gradient"
    else:
        kind = f"{SHORT[choice.gradient]}, B={choice.batch_size}"
    where = "" if choice.scheme == "all_phases" or choice.num_batches == 1 else ", epochs"
    unmet = "" if choice.met else " (!)"
    rows = f"{float(f'{choice.examples:.2g}'):,.0f}".replace(",", " ")
    return f"{kind}\nh={choice.step_size:.2g}{where}\n{rows} rows{unmet}"


def plot_regimes(found: list[Regime], path) -> None:
    """Save the map: colours show rows read for each effective draw, texts show the settings."""
    sizes = sorted({regime.size for regime in found})
    dims = sorted({regime.dimension for regime in found})
    costs = [c.examples for regime in found for c in regime.choices.values()]
    figure = Figure(figsize=(4.3 * len(PANELS) + 0.8, 0.8 * len(dims) + 1.5), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(PANELS), sharey=True)
    norm = LogNorm(min(costs), max(costs))
    for axes, panel in zip(panels, PANELS, strict=True):
        grid = np.full((len(dims), len(sizes)), np.nan)
        for regime in found:
            choice = regime.choices[panel]
            row, column = dims.index(regime.dimension), sizes.index(regime.size)
            grid[row, column] = choice.examples
            dark = norm(choice.examples) < 0.55
            text = _label(choice)
            axes.text(
                column,
                row,
                text,
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )
        image = axes.imshow(grid, norm=norm, cmap="viridis", origin="lower", aspect="auto")
        axes.set_xticks(range(len(sizes)), [f"{size:,}".replace(",", " ") for size in sizes])
        axes.set_yticks(range(len(dims)), dims)
        axes.set(title=panel, xlabel="rows N")
        axes.title.set_fontsize(10)
    panels[0].set_ylabel("dimension D")
    figure.colorbar(image, ax=panels, label="rows per effective draw (predicted)", pad=0.01)
    figure.savefig(path, dpi=105)
