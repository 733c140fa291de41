"""The check of draws by Stein's identity, with gradients of all rows."""

import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.report.check import Check
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.posterior import Posterior

__all__ = ["stein_check"]

# Multiplications that the check may spend, in a report and after every run, and its smallest
# number of draws.
BUDGET, SMALL_BUDGET = 4e9, 1e9
FEWEST = 32


def stein_check(posterior: Posterior, positions: np.ndarray, *, brief: bool = False) -> Check:
    """Measure E[(y - E y) dU/dy] = tau and E[dU/dy] = 0, at every other draw or fewer.

    For a Gaussian posterior the deviations are exactly the errors of variance and mean.

    Parameters
    ----------
    posterior
        In the sampler's coordinates.
    positions
        (chains, draws, D) draws in them.
    brief
        With fewer draws.
    """
    chains, draws, dimension = positions.shape
    budget = SMALL_BUDGET if brief else BUDGET
    number = int(np.clip(budget / (4 * posterior.size * dimension), FEWEST, chains * draws / 2))
    each = max(number // chains, 1)
    chosen = positions[:, np.linspace(0, draws - 1, each).astype(int)]
    dtype = jnp.zeros(()).dtype
    coordinates, tau = posterior.coordinates, posterior.temperature
    gradients = posterior.functions.gradients(
        jnp.asarray(chosen.reshape(-1, dimension), dtype),
        coordinates.cast(dtype),
        set_up_feed(posterior.rows),
        posterior.constants,
    )
    slope = -coordinates.along(np.asarray(gradients, float).reshape(chosen.shape)) / tau
    y = coordinates.along(chosen)
    products = (y - y.mean((0, 1))) * slope
    # Squares of few draws that are all small look more certain than they are: no error below
    # that of a Gaussian.
    variance, variance_se = mean_and_error(products, np.sqrt(2))
    shift, shift_se = mean_and_error(slope * np.sqrt(tau), 1.0)
    return Check("Stein identity", variance - 1, variance_se, shift, shift_se, chains * each)


def mean_and_error(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean over chains and draws, and its error from the draws or, if larger, from the chains.

    The draws' standard deviation counts as ``least`` or more.
    """
    chains, draws = values.shape[:2]
    error = np.maximum(values.std((0, 1), ddof=1), least) / np.sqrt(chains * draws)
    if chains > 1:
        error = np.maximum(error, values.mean(1).std(0, ddof=1) / np.sqrt(chains))
    return values.mean((0, 1)), error
