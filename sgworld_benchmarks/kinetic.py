"""Compute the epochs per effective draw of overdamped and of kinetic Langevin dynamics.

The posterior is a Gaussian with the eigenvalues 1 and 1 / kappa of its curvature, and nothing but
the coordinates' scale is known about it: one step size and one friction serve both modes. Plain
gradients of a well-specified model have the batch noise C0 = M * curvature in a mode. Step size and
friction are searched for the least epochs per effective draw at which no error of a variance
exceeds the tolerance. Errors and autocorrelation times follow from
:mod:`sgworld_mcmc.theory.affine_recursion`, so that nothing is simulated.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sgworld_benchmarks.kinetic_plot import plot_kinetic
from sgworld_benchmarks.kinetic_search import NOISES, SCHEMES, Search, Setting
from sgworld_mcmc.checks import check_integer

__all__ = ["COARSE", "Table", "run"]

CONDITIONS = tuple(10 ** (k / 2) for k in range(9))  # 1 to 10^4

# The same table from another search, on a coarse grid and by other code, for 100 batches and a
# tolerance of 2 %: what this benchmark finds should be about as good or better.
COARSE = {
    1.0: (53.0, 2.9, 2.7, 51.0, 2.8, 2.5),
    100.0: (5312.0, 282.0, 210.0, 5100.0, 59.0, 33.0),
    10_000.0: (5.3e5, 28_214.0, 21_037.0, 5.1e5, 2738.0, 1315.0),
}


class Table(NamedTuple):
    """The best settings by scheme and condition number.

    Attributes
    ----------
    settings
        By condition number, a setting for each of ``SCHEMES``.
    num_batches, tolerance, noise
        What they were searched for.
    """

    settings: dict[float, tuple[Setting, ...]]
    num_batches: int
    tolerance: float
    noise: str

    def ratios(self) -> dict[float, tuple[float, ...]]:
        """Return epochs per effective draw over those of ``COARSE``, where these exist."""
        if (self.num_batches, self.tolerance) != (100, 0.02):
            return {}
        return {
            kappa: tuple(s.epochs / c for s, c in zip(self.settings[kappa], coarse, strict=True))
            for kappa, coarse in COARSE.items()
            if kappa in self.settings
        }

    def text(self) -> str:
        """Return epochs per effective draw, their ratios to the coarse search, and settings."""
        head = f"{'kappa':>8}" + "".join(f"{scheme.name:>22}" for scheme in SCHEMES)
        lines = [
            f"Epochs per effective draw at a variance error of {self.tolerance:.2%} or less, "
            f"M = {self.num_batches}, {self.noise} noise",
            head,
        ]
        for kappa, settings in self.settings.items():
            lines.append(f"{kappa:8.4g}" + "".join(f"{s.epochs:22.4g}" for s in settings))
        if ratios := self.ratios():
            lines += ["", "Coarse search: its epochs, and the ratio of those above to it", head]
            for kappa, row in ratios.items():
                cells = (f"{c:.4g}  {r:.2f}" for c, r in zip(COARSE[kappa], row, strict=True))
                lines.append(f"{kappa:8.4g}" + "".join(f"{cell:>22}" for cell in cells))
        lines += ["", "Step size h and friction", head]
        for kappa, settings in self.settings.items():
            cells = (
                f"{s.step_size:.3g}" + (f"  {s.friction:.3g}" if np.isfinite(s.friction) else "")
                for s in settings
            )
            lines.append(f"{kappa:8.4g}" + "".join(f"{cell:>22}" for cell in cells))
        return "\n".join(lines)

    def write_csv(self, path) -> None:
        """Write a file with one row for each condition number and scheme."""
        with open(path, "w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("condition", "scheme", "noise", *Setting._fields))
            for kappa, settings in self.settings.items():
                for scheme, setting in zip(SCHEMES, settings, strict=True):
                    noise = "" if scheme.kinetic else self.noise
                    numbers = (f"{value:.6g}" for value in setting)
                    writer.writerow((f"{kappa:g}", scheme.name, noise, *numbers))


def run(
    conditions: Sequence[float] = CONDITIONS,
    num_batches: int = 100,
    tolerance: float = 0.02,
    noise: str = "independent",
) -> Table:
    """Search the best settings of all schemes.

    Parameters
    ----------
    conditions
        Condition numbers, 1 or larger.
    num_batches
        Number of batches M, which is the batch noise of a mode over its curvature.
    tolerance
        Largest relative error of a variance, between 0 and 1.
    noise
        ``"independent"`` (SGLD as published) or ``"averaged"``, of overdamped dynamics.

    Examples
    --------
    With a condition number of 1 a velocity gains little:

    >>> print(*(f"{setting.epochs:.1f}" for setting in run((1.0,)).settings[1.0]))
    50.5 2.8 2.6 50.0 2.5 2.4
    """
    check_integer("num_batches", num_batches, 2)
    if not 0 < tolerance < 1:
        raise ValueError(f"`tolerance` must be between 0 and 1, not {tolerance!r}.")
    if noise not in NOISES:
        raise ValueError(f"`noise` must be one of {', '.join(NOISES)}, not {noise!r}.")
    for kappa in conditions:
        if not 1 <= kappa < np.inf:
            raise ValueError(f"`conditions` must be finite numbers of at least 1, not {kappa!r}.")
    settings = {
        float(kappa): tuple(
            Search(scheme, float(kappa), num_batches, tolerance, noise).best() for scheme in SCHEMES
        )
        for kappa in conditions
    }
    return Table(settings, num_batches, tolerance, noise)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark kinetic`` to an `argparse` parser."""
    parser.add_argument("--num-batches", type=int, default=100, help="batches (default 100)")
    parser.add_argument("--tolerance", type=float, default=0.02, help="variance error (0.02)")
    parser.add_argument(
        "--noise", choices=tuple(NOISES), default="independent", help="of overdamped dynamics"
    )
    parser.add_argument(
        "--conditions", type=float, nargs="+", default=CONDITIONS, help="condition numbers"
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder (default out)")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, write kinetic.png and .csv, and return 0."""
    table = run(namespace.conditions, namespace.num_batches, namespace.tolerance, namespace.noise)
    folder = Path(namespace.out)
    folder.mkdir(parents=True, exist_ok=True)
    table.write_csv(folder / "kinetic.csv")
    names = [scheme.name for scheme in SCHEMES]
    epochs = {kappa: [s.epochs for s in row] for kappa, row in table.settings.items()}
    plot_kinetic(names, epochs, folder / "kinetic.png")
    print(table.text())
    print(f"\nWrote {folder / 'kinetic.png'} and {folder / 'kinetic.csv'}")
    return 0
