"""Many chains at many step sizes with one compiled program, and their moments with errors."""

from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.diagnostics import effective_sample_size

from sgworld_mcmc.data.in_memory import shuffle
from sgworld_mcmc.setup.prepare import Preparation, _lay_out, bench_of

__all__ = [
    "Moments",
    "effective_draws",
    "lay_out",
    "moments",
    "parameters",
    "repartition",
    "rerun",
    "unconstrained",
]

# Draws of each chain that a report is given: fewer than those from which it looks for trouble in
# the mixing, which costs time and is not what is measured here.
REPORTED = 40


class Moments(NamedTuple):
    """Mean and variance of (D,) parameters with Monte Carlo standard errors from the chains."""

    mean: np.ndarray
    mean_se: np.ndarray
    variance: np.ndarray
    variance_se: np.ndarray


def lay_out(mcmc: Any, rng_key: jax.Array, *args, like: Any = None) -> Preparation:
    """Choose the settings and lay the data out as ``mcmc.run`` would, without drawing.

    Parameters
    ----------
    mcmc
        :class:`sgworld_mcmc.SGWORLD` or :class:`sgworld_mcmc.SGLD`, several chains.
    like
        Another one of the same model, whose compiled set-up is used.
    """
    if like is not None:
        mcmc.sampler.share(like.sampler)
    prepared = mcmc.sampler.prepare(rng_key, args, {})
    mcmc._prepared, mcmc._partition_key = ((args, {}), prepared), rng_key
    mcmc._args, mcmc._kwargs = args, {}
    return prepared


def repartition(mcmc: Any, generator: np.random.Generator) -> None:
    """Deal the rows into other batches of the same sizes; all else stays as it was laid out."""
    model_arguments, prepared = mcmc._prepared
    settings, data = mcmc.sampler.settings, prepared.data
    with jax.enable_x64(prepared.double):
        bench = bench_of(prepared, settings)
        bench = bench._replace(rows=shuffle(generator, bench.rows))
        tuning = data.tuning
        data = _lay_out(
            bench, settings, data.dynamics, tuning.step_size, tuning.starts, data.originals
        )
    mcmc._prepared = model_arguments, prepared._replace(data=data)


def rerun(mcmc: Any, rng_key: jax.Array, step_size: float | None = None) -> np.ndarray:
    """Run the chains at another step size; ``mcmc.bias_report()`` then tells of this run.

    Parameters
    ----------
    mcmc
        After :func:`lay_out`; its numbers of chains, draws and warm-up calls hold.
    step_size
        In whitened coordinates; None is that of the settings. The compiled program takes it as an
        argument.

    Returns
    -------
    (chains, draws, D) float64 array in the sampler's whitened coordinates.
    """
    usual = mcmc._prepared[1].data.tuning.step_size
    wanted = usual if step_size is None else jax.numpy.asarray(np.asarray(step_size, usual.dtype))
    positions, last = mcmc._run_at(rng_key, wanted, mcmc.num_warmup)
    mcmc._last_state, mcmc._positions = last, positions[:, :REPORTED]
    return positions


def unconstrained(prepared: Preparation, positions: np.ndarray) -> np.ndarray:
    """The model's unconstrained parameters at whitened positions (..., D)."""
    center, scale = prepared.center.position, prepared.center.scale
    return center + (positions * scale if scale.ndim == 1 else positions @ scale.T)


def parameters(mcmc: Any, rng_key: jax.Array, step_size: float | None = None) -> np.ndarray:
    """The model's unconstrained draws (chains, draws, D) of :func:`rerun`."""
    return unconstrained(mcmc._prepared[1], rerun(mcmc, rng_key, step_size))


def moments(draws: np.ndarray) -> Moments:
    """Mean and variance of (chains, draws, D), with errors from the scatter of the chains."""
    chains = len(draws)
    mean = draws.mean((0, 1))
    first, second = draws.mean(1), ((draws - mean) ** 2).mean(1)
    root = np.sqrt(chains)
    return Moments(mean, first.std(0, ddof=1) / root, second.mean(0), second.std(0, ddof=1) / root)


def effective_draws(draws: np.ndarray) -> np.ndarray:
    """(D,) effective sample sizes of (chains, draws, D), at most the number of draws.

    Antithetic chains gain for the mean what they do not gain for the variance: hence the limit.
    """
    return np.minimum(effective_sample_size(draws), draws.shape[0] * draws.shape[1])
