"""How much more noise streamed batches have than batches of rows drawn at random.

Rows that lie together in a file are often alike: of one day, one hospital, one class. Their mean
then says less than that of as many random rows. The factor by which its variance is larger, the
design effect of survey sampling, is n Var(mean of n neighbours) / Var(row); it is one in a shuffled
file. All kinds of noise of docs/theory.md are multiplied by it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Coordinates, Integrator
from sgworld_mcmc.setup.row_noise import RowNoise
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives
from sgworld_mcmc.theory.affine_recursion import variance_parts

__all__ = ["BlockFactors", "between", "block_factors", "chunk_time", "scaled_noise"]

# A factor that differs from one by fewer standard errors than this is taken for one.
ERRORS = 4.0


class BlockFactors(NamedTuple):
    """Factors of the noise by kind of gradient, (Q,) each along a direction.

    Attributes
    ----------
    blocks
        The factors of the means of blocks: what is left if rows are shuffled within a chunk.
    batches
        Those of single batches; one if rows are shuffled.
    """

    blocks: dict[str, np.ndarray]
    batches: dict[str, np.ndarray]

    def at(self, time: float, chunks: int) -> dict[str, np.ndarray]:
        """Return the factors for C chunks that last as long as :func:`chunk_time` says.

        Noise that lasts longer than a chain's memory (time two) moves it no farther. A chunk has a
        C-th of all blocks, without replacement.
        """
        last = min(1.0, 2.0 / max(time, 1e-300)) * (1 - 1 / chunks)
        return {k: np.maximum(self.batches[k], last * x) for k, x in self.blocks.items()}

    def shuffled(self) -> "BlockFactors":
        """Return the factors if rows are shuffled within a chunk: those of batches are one."""
        return self._replace(batches={kind: np.ones_like(x) for kind, x in self.batches.items()})

    def alike(self, kind: str | None = None) -> float:
        """Return the largest factor of this kind of gradient, or of all: one if none are alike."""
        kinds = self.blocks if kind is None else (kind,)
        return float(max(np.max(part[kind]) for part in self for kind in kinds))


def chunk_time(integrator: Integrator, step_size: float, steps: int, curvature: float) -> float:
    """Return how long so many steps are, in units in which overdamped dynamics relaxes in one.

    A batch's noise of variance C0 adds C0 v to the variance of a mode if it is drawn anew in every
    step, and C0 / curvature^2 if it lasts for ever. At the time two the one becomes the other.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.averaged import Averaged
    >>> from sgworld_mcmc.integrators.ubu import UBU
    >>> print(f"{chunk_time(Averaged(), 0.01, 500, 2.0):.2f}")
    10.00
    >>> print(f"{chunk_time(UBU(4.0), 0.1, 100, 2.0):.2f}")  # a step spans h / friction
    5.00
    """
    if integrator.law is not None:
        return steps * step_size * curvature
    modes = np.array([float(curvature)])
    _, (fresh,) = variance_parts(integrator, step_size, 1, modes, law="replacement")
    return 2 * steps * fresh * curvature**2


def block_factors(
    blocks: BlockDerivatives | None,
    noise: RowNoise,
    coordinates: Coordinates,
    temperature: float,
    alike: Sequence[np.ndarray] = (),
) -> dict[str, np.ndarray]:
    """Return the factors of the means of blocks, from the derivatives of all blocks of the file.

    ``alike`` are places of parameters that go by group and have one factor: a block has a few rows
    of each of thousands of groups, which tell little of a single one.
    """
    ones = {kind: np.ones_like(x) for kind, x in noise.center.items()}
    if blocks is None or len(blocks.gradients) < 8:
        return ones
    number = len(blocks.gradients)
    slopes = coordinates.along(coordinates.pull_back(blocks.gradients))
    turned = coordinates.along(coordinates.pull_back(blocks.products))
    plain = blocks.rows * slopes.var(0, ddof=1) / temperature
    curvature = blocks.rows * turned.var(0, ddof=1).mean(0)
    error = np.sqrt(2 / (number - 1))
    made = {"plain": _factor(plain, noise.center["plain"], error, _least(noise), alike)}
    made["control_variate"] = _factor(
        curvature, noise.mean["control_variate"], error, _least(noise), alike
    )
    # What third derivatives add between blocks is taken to be as much more as that of the second.
    some = noise.mean["taylor"] > _least(noise)
    made["taylor"] = np.where(some, made["control_variate"], 1.0)
    return {**ones, **made}


def between(
    measured: dict,
    noise: RowNoise,
    length: int,
    number: int,
    alike: Sequence[np.ndarray] = (),
) -> dict[str, np.ndarray]:
    """Return the factors of groups of neighbours.

    Parameters
    ----------
    measured
        What :func:`sgworld_mcmc.setup.row_noise.measure_noise` returned for groups.
    noise
        The noise of single rows.
    length, number
        Number of rows of a group, and of groups at each draw.
    alike
        As for :func:`block_factors`.
    """
    error, least, made = np.sqrt(2 / max(number - 1, 1)), _least(noise), {}
    for kind, row in noise.mean.items():
        there, center = (np.asarray(measured[x][kind], float).mean(0) for x in ("draw", "center"))
        made[kind] = np.maximum(
            _factor(length * there, row, error, least, alike),
            _factor(length * center, noise.center[kind], error, least, alike),
        )
    return made


def _least(noise: RowNoise) -> float:
    """Return a variance that is only rounding, next to that of plain gradients."""
    return 1e-10 * float(np.max(noise.mean["plain"]))


def _factor(
    groups: np.ndarray,
    rows: np.ndarray,
    error: float,
    least: float,
    alike: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """Return the ratio where it is certainly larger than one, else one."""
    groups, rows = np.array(groups), np.array(rows)
    for places in alike:
        groups[places], rows[places] = groups[places].mean(), rows[places].mean()
    ratio = np.where(rows > least, groups / np.maximum(rows, max(least, 1e-300)), 1.0)
    return np.where(ratio > 1 + ERRORS * error, ratio, 1.0)


def scaled_noise(noise: RowNoise, factors: dict[str, np.ndarray]) -> RowNoise:
    """Return the noise of the rows with these factors.

    That of plain gradients away from the center has a part from the curvature, as control variates
    have it.
    """
    parts = [{kind: factors[kind] * x for kind, x in part.items()} for part in noise[:3]]
    for part, before in zip(parts[1:], noise[1:3], strict=True):
        rest = np.maximum(before["plain"] - noise.center["plain"], 0)
        part["plain"] = parts[0]["plain"] + factors["control_variate"] * rest
    return RowNoise(*parts, *noise[3:])
