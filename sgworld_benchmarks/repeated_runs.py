"""Run many chains at many step sizes with one compiled program, and measure their moments."""

from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size

from sgworld_mcmc.report.draws import Draws
from sgworld_mcmc.setup.lay_out import repartition
from sgworld_mcmc.setup.run_plan import RunPlan

__all__ = [
    "Moments",
    "deal_anew",
    "effective_draws",
    "lay_out",
    "moments",
    "parameters",
    "rerun",
    "unconstrained",
]


class Moments(NamedTuple):
    """Mean and variance of (D,) parameters with Monte Carlo standard errors from the chains."""

    mean: np.ndarray
    mean_se: np.ndarray
    variance: np.ndarray
    variance_se: np.ndarray


def lay_out(mcmc: Any, rng_key: jax.Array, *args, like: Any = None) -> RunPlan:
    """Choose the settings and lay the data out as ``mcmc.run`` would, without drawing.

    Parameters
    ----------
    mcmc
        A :class:`sgworld_mcmc.SGWORLD` or :class:`sgworld_mcmc.SGLD` with several chains.
    like
        Another sampler of the same model, whose compiled set-up is used.
    """
    if like is not None:
        mcmc.sampler.share(like.sampler)
    return mcmc.set_up(rng_key, *args)


def deal_anew(mcmc: Any, generator: np.random.Generator) -> None:
    """Deal the rows into other batches of the same sizes; everything else stays as it is."""
    seed = generator.integers(2**32, size=2, dtype=np.uint32)
    mcmc.use(*repartition(mcmc.plan, mcmc.data, seed))


def rerun(mcmc: Any, rng_key: jax.Array, step_size: float | None = None) -> Draws:
    """Run the chains at another step size.

    Parameters
    ----------
    mcmc
        A sampler after :func:`lay_out`, whose numbers of chains, draws and warm-up calls are used.
    step_size
        Step size in whitened coordinates; None takes that of the settings. It is an argument of
        the compiled program.

    Returns
    -------
    Draws
        The draws in the sampler's whitened coordinates.
    """
    return mcmc.run_at(rng_key, mcmc.plan.step_size if step_size is None else step_size)


def unconstrained(plan: RunPlan, positions: np.ndarray) -> np.ndarray:
    """Return the model's unconstrained parameters at whitened positions (..., D)."""
    return plan.fit.coordinates.to_model(positions)


def parameters(mcmc: Any, rng_key: jax.Array, step_size: float | None = None) -> np.ndarray:
    """Return the draws of :func:`rerun` as unconstrained parameters (chains, draws, D)."""
    return unconstrained(mcmc.plan, rerun(mcmc, rng_key, step_size).positions)


def moments(draws: np.ndarray) -> Moments:
    """Return mean and variance of (chains, draws, D), with errors from the chains' scatter."""
    chains = len(draws)
    mean = draws.mean((0, 1))
    first, second = draws.mean(1), ((draws - mean) ** 2).mean(1)
    root = np.sqrt(chains)
    return Moments(mean, first.std(0, ddof=1) / root, second.mean(0), second.std(0, ddof=1) / root)


def effective_draws(draws: np.ndarray) -> np.ndarray:
    """Return (D,) effective sample sizes of (chains, draws, D), at most the number of draws.

    There is a limit because antithetic chains gain for the mean, but not for the variance.
    """
    return np.minimum(effective_sample_size(draws), draws.shape[0] * draws.shape[1])
