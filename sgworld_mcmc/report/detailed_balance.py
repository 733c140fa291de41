"""Test whether a run's draws obey detailed balance, in a way that never makes a report fail."""

from typing import Any

import numpy as np

from sgworld_mcmc.nonequilibrium.projection import project_principal_components
from sgworld_mcmc.nonequilibrium.recorded import recorded_moments
from sgworld_mcmc.nonequilibrium.reversibility import (
    DetailedBalanceViolation,
    detailed_balance_violation,
)
from sgworld_mcmc.report.draws import Draws

__all__ = ["measured_detailed_balance"]

# Up to MOST_TESTED coordinates are tested as they are. With more of them, the test takes the
# leading principal components of at most MOST_COORDINATES coordinates, those of largest variance:
# preconditioned coordinates have about the same variance, and noise adds to it.
MOST_TESTED = 32
COMPONENTS = 10
MOST_COORDINATES = 128
# Longer runs are tested on their last part, so that the test takes about half a second.
MOST_NUMBERS = 2e6
# Chains with fewer draws are not tested.
FEWEST_DRAWS = 20


def measured_detailed_balance(draws: Draws) -> tuple[DetailedBalanceViolation | None, str]:
    """Return the test, and a line that says what it rests on or why there is none.

    The test takes the moments recorded in the last state. If there are none, or too few, it takes
    the positions.
    """
    why = ""
    if not _empty(getattr(draws.last_state, "moments", ())):
        try:
            result = recorded_moments(draws).detailed_balance_violation()
            return _checked(result, "moments recorded at every step")
        except (ValueError, np.linalg.LinAlgError) as error:
            why = f" (not from the recorded moments: {_first_sentence(error)})"
    try:
        usable = _usable(draws.positions, draws.stopped)
        result = detailed_balance_violation(usable, project=True)
        result, line = _checked(result, "draws")
    except (ValueError, np.linalg.LinAlgError) as error:
        result, line = None, _first_sentence(error)
    return result, line + why


def _usable(positions: np.ndarray, diverged: np.ndarray) -> np.ndarray:
    """Return the last draws of the sound chains, in leading components if D is large.

    A chain is sound if it moved and did not diverge.
    """
    chains, draws, dimension = positions.shape
    if draws < FEWEST_DRAWS:
        raise ValueError(f"there are {draws} draws in a chain, fewer than {FEWEST_DRAWS}.")
    if len(diverged) == chains:
        positions = positions[~diverged]
    sound = np.isfinite(positions).all((1, 2)) & (np.ptp(positions, axis=1) > 0).any(1)
    if not sound.any():
        raise ValueError("no chain moved and stayed finite.")
    positions = positions[sound]
    if dimension > MOST_COORDINATES:
        leading = np.argsort(-positions.var((0, 1)), kind="stable")[:MOST_COORDINATES]
        positions = positions[..., np.sort(leading)]
    each = int(MOST_NUMBERS / (positions.shape[0] * positions.shape[2]))
    positions = positions[:, -max(each, FEWEST_DRAWS) :]
    if dimension > MOST_TESTED:
        return project_principal_components(positions, COMPONENTS).trajectory
    return positions


def _checked(result: DetailedBalanceViolation, source: str):
    if not np.isfinite(result.p_value):
        return None, f"the statistic of the {source} is not a number."
    line = f"{source}, {result.num_blocks} blocks of {result.block_length} steps"
    if result.num_blocks_per_chain > 1 and result.block_length < 3 * result.correlation_time:
        line += ", short against the correlation time: p is rough"
    return result, line


def _empty(moments: Any) -> bool:
    return isinstance(moments, tuple) and not moments


def _first_sentence(error: Exception) -> str:
    return str(error).split(". ")[0].rstrip(".") + "."
