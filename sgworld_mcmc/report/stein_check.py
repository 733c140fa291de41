"""Check draws by Stein's identity, with gradients of all rows."""

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.coordinates.arrow import Arrow, size_of
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.report.check import Check
from sgworld_mcmc.report.controlled_means import TAIL, controlled_mean
from sgworld_mcmc.setup.arrow_rows import ArrowRows
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.pilot_chains import control_variates
from sgworld_mcmc.setup.posterior import Posterior

__all__ = ["stein_check"]

# The check may spend this many multiplications in a report, and after every run. It takes at least
# FEWEST draws.
BUDGET, SMALL_BUDGET = 4e9, 1e9
FEWEST = 32
# A row of a model by group counts as one of at least this many numbers.
ROW = 32
# Where gradients of all rows cost too much, the gradients of PART_DRAWS draws are estimated from
# parts of the rows. Such an estimate costs PART_COST gradients of its rows, and a part has at least
# PART_ROWS rows.
PART_DRAWS, PART_COST, PART_ROWS = 256, 3, 1024
# Other draws are used without gradients, up to so many numbers.
NUMBERS, FEWER_NUMBERS = 1e7, 2e6


def stein_check(posterior: Posterior, positions: np.ndarray, *, brief: bool = False) -> Check:
    """Measure E[(y - E y) dU/dy] = tau and E[dU/dy] = 0, by gradients at every other draw or fewer.

    For a Gaussian posterior the deviations are exactly the errors of variance and mean. Gradients
    are those of all rows if the budget is enough for that, else estimates from parts of them.
    These are unbiased, and the standard errors from the draws' scatter include their noise. What
    of them is linear in the position is averaged over all draws.

    Parameters
    ----------
    posterior
        The posterior in the sampler's coordinates.
    positions
        (chains, draws, D) draws in these coordinates.
    brief
        Whether to use fewer draws.
    """
    chains, draws, dimension = positions.shape
    budget = (SMALL_BUDGET if brief else BUDGET) / (4 * _numbers_of_row(posterior))
    affordable = budget / posterior.size
    # Where rows are streamed, a random part of them is in memory, and is enough: control variates
    # know the rest.
    streamed = posterior.whole is not None
    parts = streamed or (affordable < FEWEST and is_large(posterior.size))
    number = int(np.clip(PART_DRAWS if parts else affordable, FEWEST, chains * draws / 2))
    # Each part has rows of its own.
    number = min(number, posterior.size) if parts else number
    each = max(number // chains, 1)
    chosen = positions[:, np.linspace(0, draws - 1, each).astype(int)]
    flat = chosen.reshape(-1, dimension)
    coordinates, tau = posterior.coordinates, posterior.temperature
    if parts:
        rows = min(posterior.size // 2, int(budget / PART_COST))
        length = max(min(max(rows // len(flat), PART_ROWS), posterior.size // len(flat)), 1)
        gradients = _part_gradients(posterior, flat, length)
    else:
        gradients = _gradients(posterior, flat)
    slope = -coordinates.along(np.asarray(gradients, float).reshape(chosen.shape)) / np.sqrt(tau)
    # In units in which the posterior's variances are one, as are the slopes of a Gaussian. What
    # the gradients at some draws leave open, the other draws tell.
    stride = int(np.ceil(positions.size / (FEWER_NUMBERS if brief else NUMBERS)))
    every = coordinates.along(positions[:, ::stride]) / np.sqrt(tau)
    mean = every.mean((0, 1))
    every, y = every - mean, coordinates.along(chosen) / np.sqrt(tau) - mean
    # Most parts have no row of a small group, and the few that have one give it much weight.
    rare = parts and isinstance(coordinates, Arrow)
    tail = np.sqrt(len(flat)) if rare else TAIL
    shift, shift_se = controlled_mean(slope, y, every, 1.0, tail)
    # The squares of a few draws that lie close together look more certain than they are: the error
    # is at least that of a Gaussian.
    variance, variance_se = controlled_mean(y * slope, y**2, every**2, np.sqrt(2), tail)
    return Check("Stein identity", variance - 1, variance_se, shift, shift_se, chains * each)


def _numbers_of_row(posterior: Posterior) -> int:
    """Return on how many parameters the likelihood of a row depends, at most."""
    coordinates = posterior.coordinates
    if not isinstance(coordinates, Arrow):
        return posterior.fit.dimension
    _, inner, shared = size_of(coordinates.segments)
    return min(posterior.fit.dimension, max(inner + shared, ROW))


def _gradients(posterior: Posterior, positions: np.ndarray) -> jax.Array | np.ndarray:
    """Return (S, D) gradients of all rows at positions (S, D)."""
    dtype, functions = float_dtype(), posterior.functions
    count_rows(len(positions) * posterior.size)
    if isinstance(posterior.coordinates, Arrow) and posterior.layout is None:
        # The search for the groups has compiled the program that this needs.
        with jax.enable_x64(functions.model.precise):
            feed, constants = posterior.feed_double, posterior.constants_double
            rows = ArrowRows(functions, feed, constants, posterior.structure)
            return rows.gradients(posterior.coordinates, positions)
    return functions.gradients(
        from_numpy(positions, dtype),
        posterior.coordinates.cast(dtype),
        set_up_feed(posterior.rows, posterior.strata, posterior.layout),
        posterior.constants,
    )


def _part_gradients(posterior: Posterior, positions: np.ndarray, length: int) -> jax.Array:
    """Return (S, D) estimates of the gradients, each from ``length`` rows of its own."""
    dtype = float_dtype()
    count_rows(len(positions) * length)
    gradient, controls = control_variates(posterior)
    return posterior.functions.part_gradients(
        from_numpy(positions, dtype),
        posterior.coordinates.cast(dtype),
        controls,
        posterior.rows,
        posterior.constants,
        length=length,
        gradient=gradient,
    )
