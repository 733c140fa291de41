"""Test detailed balance (N17) by the moments that a run recorded at every step."""

from typing import Any

import numpy as np

from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.nonequilibrium.blocks import MINIMUM_BLOCKS
from sgworld_mcmc.nonequilibrium.lagged_pairs import contrast_pairs, slow_modes, whiten
from sgworld_mcmc.nonequilibrium.matrices import inverse
from sgworld_mcmc.nonequilibrium.moments import Moments
from sgworld_mcmc.nonequilibrium.reversibility import DetailedBalanceViolation
from sgworld_mcmc.nonequilibrium.symmetry import symmetry_test

__all__ = ["violation_of"]


def violation_of(
    recorded: Any, num_blocks: int | None, num_components: int | None
) -> DetailedBalanceViolation:
    """Return the test of ``recorded.detailed_balance_violation()``, of a ``RecordedMoments``."""
    dim, chains = len(recorded.center), len(recorded.edges)
    if dim < 2:
        raise ValueError(
            "Second moments of a single coordinate are symmetric in time whatever it does: "
            "use detailed_balance_violation(draws)."
        )
    moments = recorded.moments()
    inverse("covariance of the positions", moments.covariance)
    time = _correlation_time(moments, slow_modes(moments, whiten(moments)))
    if num_components is None:
        blocks = chains * np.clip(recorded.pairs.sum() / (10 * time), 1, len(recorded.pairs))
        num_components = max(2, int(0.5 + np.sqrt(max(blocks - 4, 0) + 0.25)))
        num_components = min(dim, num_components)
    check_integer("num_components", num_components, 2, dim)
    if num_components < dim:
        leading = np.linalg.eigh(moments.covariance)[1][:, ::-1][:, :num_components]
        return _test(recorded.project(leading), num_blocks, "component ")
    return _test(recorded, num_blocks, "")


def _test(recorded: Any, num_blocks: int | None, prefix: str) -> DetailedBalanceViolation:
    dim, moments = len(recorded.center), recorded.moments()
    names = tuple(f"{prefix}{i}" for i in range(dim))
    modes = slow_modes(moments, whiten(moments))
    time = _correlation_time(moments, modes)
    each = _blocks_per_chain(recorded, num_blocks, time, len(contrast_pairs(dim, 2)))
    own = recorded.joined(each).about(moments.mean)
    standard = np.diag(1 / np.sqrt(np.diag(moments.covariance)))
    tested = _contrasts(own, modes, telescoped=True)
    statistic, p_value, dof = symmetry_test(tested)
    flat = _contrasts(own, standard, telescoped=False).reshape(-1, tested.shape[-1])
    contrast, error = flat.mean(0), flat.std(0, ddof=1) / np.sqrt(len(flat))
    i, j = np.triu_indices(dim, 1)
    square = np.zeros((3, 1, dim, dim))
    z_scores = contrast / np.where(error > 0, error, np.inf)
    for matrix, values in zip(square, (z_scores, contrast, error), strict=True):
        matrix[0, i, j], matrix[0, j, i] = values, -values
    return DetailedBalanceViolation(
        statistic=statistic,
        p_value=p_value,
        z_scores=square[0],
        contrasts=square[1],
        standard_errors=np.abs(square[2]),
        lags=(1,),
        degrees_of_freedom=dof,
        num_blocks=len(flat),
        num_blocks_per_chain=len(own.pairs),
        block_length=int(own.pairs.mean()),
        correlation_time=time,
        names=names,
        order=2,
    )


def _contrasts(recorded: Any, weights: np.ndarray, telescoped: bool) -> np.ndarray:
    """Return (chains, blocks, contrasts) of x @ weights, like `block_contrasts`."""
    moved = weights.T @ recorded.moved @ weights
    area = moved - moved.swapaxes(2, 3)
    if telescoped:
        z = recorded.edges @ weights
        products = z[..., :, None] * z[..., None, :]
        area = area - np.diff(products, axis=1)
    i, j = np.triu_indices(weights.shape[1], 1)
    return (area / recorded.pairs[:, None, None])[..., i, j]


def _blocks_per_chain(recorded: Any, num_blocks: int | None, time: float, contrasts: int) -> int:
    """Return the number of blocks per chain for a test: all recorded, or fewer longer ones."""
    chains, steps, most = len(recorded.edges), int(recorded.pairs.sum()), len(recorded.pairs)
    if num_blocks is not None:
        wanted = check_integer("num_blocks", num_blocks, MINIMUM_BLOCKS)
        each = -(-wanted // chains)
    else:
        each = min(-(-max(100, 4 * contrasts) // chains), int(steps / (10 * time)))
        if chains * each < 16:
            each = min(-(-16 // chains), int(steps / (5 * time)))
    least = -(-MINIMUM_BLOCKS // chains)
    if most < least:
        raise ValueError(
            f"{most} blocks were recorded in each of {chains} chain(s), and a test needs "
            f"{MINIMUM_BLOCKS} in all: run longer, or more chains."
        )
    return max(each, least)


def _correlation_time(moments: Moments, modes: np.ndarray) -> float:
    """Return the correlation time, in steps, of the product of the two slowest modes.

    Correlations are assumed to be exponential. With averaged noise lag 1 understates the decay, so
    that the time is on the safe side.
    """
    lagged = modes.T @ moments.lagged[1] @ modes
    first, second = np.clip(np.diag(lagged)[:2], 0, 1 - 1e-9)
    product = first * second
    return float((1 + product) / (1 - product))
