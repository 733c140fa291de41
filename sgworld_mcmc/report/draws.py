"""The record of the draws that a report is about."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

__all__ = ["Draws"]


class Draws(NamedTuple):
    """Draws of a run, or of a part of one.

    Attributes
    ----------
    positions
        (chains, draws, D) positions in the sampler's coordinates, float64. Of a plan without a mode
        they are the Q quantities by which the draws are judged.
    last_state
        The :class:`~sgworld_mcmc.sampling.chain.SGMCMCState` of the chains at the end.
    samples
        Constrained values by site, (chains, draws, ...); may be empty.
    checks
        What :mod:`sgworld_mcmc.report.quantities` has computed of the draws, or None.
    spacing
        The draws here are every so many of a run whose draws lie on disk.
    """

    positions: np.ndarray
    last_state: Any
    samples: Mapping[str, np.ndarray] = {}
    checks: Mapping[str, Any] | None = None
    spacing: int = 1

    @property
    def step_size(self) -> float:
        """The largest step size of the chains."""
        return float(np.max(np.asarray(self.last_state.step_size)))

    @property
    def stopped(self) -> np.ndarray:
        """(chains,) whether a chain has diverged."""
        return np.atleast_1d(np.asarray(self.last_state.diverged_at)) >= 0

    @property
    def count(self) -> int:
        """Number of draws of all chains together."""
        return self.positions.shape[0] * self.positions.shape[1]
