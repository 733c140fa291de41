"""Run SGWORLD on a network, and measure its predictions against the reference."""

import sys
import time
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.diagnostics import split_gelman_rubin

from sgworld_benchmarks.accuracy.run import package_warnings
from sgworld_benchmarks.networks.problems import Network
from sgworld_benchmarks.networks.references import Reference
from sgworld_benchmarks.networks.scores import ClassScore, RegressionScore, score
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.report.kinetic_report import KineticReport

__all__ = ["Outcome", "Predictions", "predictions", "run_network"]

# The energy is evaluated for about this many draws.
ENERGY_DRAWS = 200
# R-hat is that of predictions at this many test rows.
SHOWN_ROWS = 64


class Predictions(NamedTuple):
    """What draws predict at the test rows.

    Attributes
    ----------
    mean, sd
        Means and standard deviations of the predictions, (rows, classes) or (rows,).
    r_hat
        Split R-hat of the predictions at some rows: of the value, or of the probability of the test
        label.
    energy
        Mean of minus the log joint density.
    """

    mean: np.ndarray
    sd: np.ndarray
    r_hat: np.ndarray
    energy: float


class Outcome(NamedTuple):
    """What a run has given.

    Attributes
    ----------
    label
        The sampler.
    seconds
        Seconds from nothing to all draws: set-up, compilation, warm-up and draws.
    cpu_seconds
        The same by the clock of the processor, of all threads.
    score
        Errors of the predictions; None if the run raised an error.
    r_hat
        Largest split R-hat of predictions at test rows.
    excess
        Mean energy above the reference, in units of D / 2. A temperature that is too high by a
        fraction raises the energy by about the same.
    report
        The bias report as text, or None.
    quantities_r_hat
        The largest R-hat of the report's quantities; NaN for a report without them.
    epochs
        Epochs of each chain from the first draw to the last.
    warnings
        The messages of the warnings of the package.
    error
        The error that was raised, or None.
    """

    label: str
    seconds: float
    cpu_seconds: float
    score: ClassScore | RegressionScore | None
    r_hat: float
    excess: float
    report: str | None
    quantities_r_hat: float
    epochs: float
    warnings: tuple[str, ...]
    error: str | None

    def __str__(self) -> str:
        if self.error is not None:
            return f"{self.label}: {self.error} after {self.seconds:.1f} s"
        told = f"; {len(self.warnings)} warnings" if self.warnings else "; no warning"
        met = "within the limits" if self.score.within() else "BEYOND the limits"
        return "\n".join(
            [
                f"{self.label}: {self.seconds:.1f} s ({self.cpu_seconds:.1f} s of processor), "
                f"{self.epochs:.0f} epochs a chain",
                f"  {self.score}: {met}",
                f"  energy {self.excess:+.3f} D/2, R-hat of predictions up to {self.r_hat:.3f}, of "
                f"quantities up to {self.quantities_r_hat:.3f}{told}",
            ]
        )


def run_network(
    network: Network,
    reference: Reference,
    rng_key: jax.Array,
    label: str = "SGWORLD",
    sampler: Callable = SGWORLD,
    **settings: Any,
) -> Outcome:
    """Run a sampler, by default :class:`sgworld_mcmc.SGWORLD` with nothing set, and score it."""
    mcmc, error, report = None, None, None
    with package_warnings() as messages:
        start, cpu = time.perf_counter(), time.process_time()
        try:
            mcmc = sampler(network.model, **settings)
            mcmc.run(rng_key, network.x, network.y)
            samples = jax.block_until_ready(mcmc.get_samples(group_by_chain=True))
        except Exception as failure:  # a failure of one network is a result, not the end of all
            traceback.print_exc(file=sys.stderr)
            error = f"{type(failure).__name__}: {failure}"
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        if error is None:
            report = mcmc.bias_report()
    if error is not None:
        nothing = np.nan
        return Outcome(
            label,
            seconds,
            cpu,
            None,
            nothing,
            nothing,
            None,
            nothing,
            nothing,
            tuple(messages),
            error,
        )
    found = predictions(network, samples)
    dynamics = mcmc.plan.dynamics
    draws = next(iter(samples.values())).shape[1]
    dimension = sum(int(np.prod(x.shape[2:])) for x in samples.values())
    return Outcome(
        label,
        seconds,
        cpu,
        score(network, found.mean, found.sd, reference),
        float(np.nanmax(found.r_hat)),
        (found.energy - reference.energy) / (dimension / 2),
        str(report),
        float(np.max(report.r_hat)) if isinstance(report, KineticReport) else np.nan,
        draws * dynamics.steps_per_draw / dynamics.num_batches,
        tuple(messages),
        None,
    )


def predictions(network: Network, samples: dict[str, jax.Array]) -> Predictions:
    """Return what constrained draws (chains, draws, ...) by site predict at the test rows."""
    test_x = jnp.asarray(network.test_x)
    shown = np.arange(min(SHOWN_ROWS, len(test_x)))
    chains, draws = next(iter(samples.values())).shape[:2]

    @jax.jit
    def summarise(samples, test_x):
        def add(totals, sites):
            predicted = network.predict(sites, test_x)
            new = jax.tree.map(lambda t, x: t + x / draws, totals, (predicted, predicted**2))
            seen = (shown, network.test_y[shown]) if network.is_classifier else shown
            return new, predicted[seen]

        def chain(samples):
            first = network.predict(jax.tree.map(lambda x: x[0], samples), test_x)
            return jax.lax.scan(add, (jnp.zeros_like(first),) * 2, samples)

        (mean, square), seen = jax.lax.map(chain, samples)
        return mean.mean(0), square.mean(0), seen

    mean, square, seen = (np.asarray(x, float) for x in summarise(samples, test_x))
    thin = max(1, chains * draws // ENERGY_DRAWS)
    some = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[::thin], samples)
    energy = jax.jit(lambda sites: jax.lax.map(network.energy, sites))(some)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    return Predictions(mean, sd, split_gelman_rubin(seen), float(np.mean(energy)))
