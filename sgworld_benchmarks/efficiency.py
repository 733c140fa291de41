"""Measure the epochs per effective draw of SGLD and of SGWORLD, both with the same bias.

The problem is a linear regression with known noise, sampled with plain gradients and independent
noise; the preconditioner is the exact posterior covariance. The stationary covariance of the very
batches that the chains use follows from :mod:`sgworld_mcmc.theory.stationary_recursion` without
simulation, so that "the same bias" is exact: each sampler gets the step size at which the largest
relative error of a parameter's variance is the tolerance. The effective draws of both are then
measured on simulated chains.
"""

import json
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from scipy.optimize import brentq

from sgworld_benchmarks.repeated_runs import effective_draws, lay_out, moments, rerun, unconstrained
from sgworld_mcmc import SGLD, SGWORLD, exact
from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.exact.base import representable
from sgworld_mcmc.theory.stationary_recursion import stationary_moments
from sgworld_mcmc.theory.variance_bias import autocorrelation_epochs

__all__ = ["Efficiency", "Sampler", "run"]

SAMPLERS = {"replacement": SGLD, "batches": SGWORLD}
NAMES = {"replacement": "SGLD", "batches": "SGWORLD"}


class Sampler(NamedTuple):
    """One line of the table.

    Attributes
    ----------
    order
        ``"replacement"`` or ``"batches"``.
    chosen_time, chosen_bias
        T = h M that the package itself chooses for the tolerance, and its exact bias.
    time, bias
        T at which the exact bias is the tolerance, and that bias.
    measured_bias, measured_bias_se
        Bias of the same parameter measured from the chains at ``time``, and its standard error.
    epochs
        Measured epochs per effective draw at ``time``, a mean over parameters.
    epochs_range
        Smallest and largest of them over parameters.
    predicted_epochs
        Their prediction coth(T/2), docs/theory.md (B8).
    effective
        Smallest effective number of draws that the measurement rests on.
    """

    order: str
    chosen_time: float
    chosen_bias: float
    time: float
    bias: float
    measured_bias: float
    measured_bias_se: float
    epochs: float
    epochs_range: tuple[float, float]
    predicted_epochs: float
    effective: float


class Efficiency(NamedTuple):
    """Both samplers at the same bias."""

    samplers: tuple[Sampler, ...]
    num_batches: int
    tolerance: float

    @property
    def ratio(self) -> float:
        """Ratio of the epochs per effective draw of SGLD to those of SGWORLD."""
        sgld, sgworld = self.samplers
        return sgld.epochs / sgworld.epochs

    def table(self) -> str:
        """Return all numbers as text."""
        lines = [
            f"{'':9}{'package: T = h M':>17}{'exact bias':>12}{'equal bias: T':>15}"
            f"{'exact bias':>12}{'bias of the chains':>21}{'epochs/ESS':>12}"
            f"{'(parameters)':>17}{'coth(T/2)':>11}"
        ]
        for s in self.samplers:
            span = f"({s.epochs_range[0]:.3g}-{s.epochs_range[1]:.3g})"
            bias = f"{s.measured_bias:+.2%} ± {s.measured_bias_se:.2%}"
            lines.append(
                f"{NAMES[s.order]:9}{s.chosen_time:17.4g}{s.chosen_bias:12.2%}{s.time:15.4g}"
                f"{s.bias:12.2%}{bias:>21}{s.epochs:12.4g}{span:>17}{s.predicted_epochs:11.4g}"
            )
        lines.append(
            f"\nEpochs per effective draw, SGLD / SGWORLD at a bias of {self.tolerance:.2%}: "
            f"{self.ratio:.1f}"
        )
        return "\n".join(lines)


def run(
    num_data: int = 2000,
    batch_size: int = 10,
    dim: int = 3,
    tolerance: float = 0.01,
    chains: int = 200,
    draws: int = 1000,
    num_orders: int = 1000,
    seed: int = 0,
) -> Efficiency:
    """Measure both samplers.

    Parameters
    ----------
    num_data, batch_size, dim
        Rows, rows in a batch, and number of Gaussian features. N / D should be some hundreds; else
        the noise of the batches' curvature limits the step, instead of that of their gradients
        (docs/theory.md, section 2.2).
    tolerance
        The bias, that is the largest relative error of a parameter's posterior variance.
    chains, draws
        Number of chains, and of draws, which are an epoch apart. SGLD forgets its past in about
        1 / tolerance epochs: take ten times as many draws.
    num_orders
        Number of orders that the exact recursion of SGWORLD averages over.
    seed
        Seed of data, partition, orders and noise.
    """
    check_integer("chains", chains, 2)
    check_integer("draws", draws, 10)
    generator = np.random.default_rng(seed)
    X = generator.normal(size=(num_data, dim))
    y = X @ generator.normal(size=dim) + generator.normal(size=num_data)
    posterior = exact.LinearRegression.from_data(representable(X), representable(y))
    keys = jax.random.split(jax.random.key(seed + 1), 3)
    found, first = [], None
    for number, (order, sampler) in enumerate(SAMPLERS.items()):
        mcmc = sampler(
            posterior.model,
            num_chains=chains,
            num_samples=draws,
            num_warmup=max(10, draws // 5) if order == "replacement" else 20,
            gradient="plain",
            noise="independent",
            batch_size=batch_size,
            steps_per_draw=-(-num_data // batch_size),
            preconditioner=posterior.covariance,
            tolerance=tolerance,
        )
        plan = lay_out(mcmc, keys[0], *posterior.data, like=first)
        first = first or mcmc
        found.append(_measure(mcmc, posterior, order, keys[1 + number], tolerance, num_orders))
    return Efficiency(tuple(found), plan.num_batches, tolerance)


def _measure(mcmc, posterior, order, rng_key, tolerance, num_orders) -> Sampler:
    plan, count = mcmc.plan, mcmc.plan.num_batches
    matrices, offsets = batch_terms(plan.fit.coordinates.scale, mcmc.data.feed, posterior)
    target = np.diagonal(posterior.covariance)
    root = plan.fit.coordinates.scale

    def errors(time):
        """Return the (D,) exact relative errors of the parameters' variances."""
        exactly = stationary_moments(
            matrices, offsets, time / count, order=order, num_orders=num_orders
        )
        return np.diagonal(root @ exactly.covariance @ root.T) / target - 1

    def bias(time):
        return float(np.abs(errors(time)).max())

    chosen = plan.step_size * count
    low, high = chosen, chosen
    while bias(low) > tolerance:
        low /= 1.3
    while bias(high) < tolerance:
        high *= 1.3
    time = chosen
    if low < high:
        time = brentq(lambda t: bias(t) - tolerance, low, high, xtol=1e-4 * chosen)
    worst = int(np.argmax(np.abs(errors(time))))
    made = rerun(mcmc, rng_key, time / count)
    draws, total = unconstrained(plan, made.positions), made.count
    measured = moments(draws[:, :, [worst]])
    effective = effective_draws(draws)
    epochs = total / effective
    return Sampler(
        order=order,
        chosen_time=chosen,
        chosen_bias=bias(chosen),
        time=time,
        bias=bias(time),
        measured_bias=float(measured.variance[0] / target[worst] - 1),
        measured_bias_se=float(measured.variance_se[0] / target[worst]),
        epochs=float(epochs.mean()),
        epochs_range=(float(epochs.min()), float(epochs.max())),
        predicted_epochs=float(autocorrelation_epochs(time)),
        effective=float(effective.min()),
    )


def batch_terms(root, feed, posterior) -> tuple[np.ndarray, np.ndarray]:
    """Return H_b (M, D, D) and r_b (M, D) of the chains' batches, in whitened coordinates.

    Their means are those of the full gradient. The prior is in every batch.
    """
    count = feed.num_batches
    precision = np.linalg.inv(posterior.covariance)
    X, y = (np.asarray(x, float) for x in posterior.data)
    scale = float(posterior.noise_scale)
    prior = precision - X.T @ X / scale**2
    mode = posterior.flatten(posterior.mean)
    prior_offset = precision @ mode - X.T @ y / scale**2
    matrices, offsets = [], []
    for number in range(count):
        rows, response = (np.asarray(leaf[number], float) for leaf in feed.main)
        if feed.extra is not None and number < len(feed.extra[0]):
            more, other = (np.asarray(leaf[number], float) for leaf in feed.extra)
            rows, response = np.concatenate([rows, more]), np.concatenate([response, other])
        hessian = prior + count * rows.T @ rows / scale**2
        offset = prior_offset + count * rows.T @ response / scale**2
        # The whitened coordinates are z with theta = mode + root z.
        matrices.append(root.T @ hessian @ root)
        offsets.append(root.T @ (offset - hessian @ mode))
    return np.array(matrices), np.array(offsets)


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark efficiency`` to an `argparse` parser."""
    for name, default, text in (
        ("num-data", 2000, "rows"),
        ("batch-size", 10, "rows in a batch"),
        ("dim", 3, "coefficients"),
        ("chains", 200, "chains, side by side"),
        ("draws", 1000, "draws of each chain, an epoch apart"),
        ("num-orders", 1000, "orders that the exact recursion averages over"),
        ("seed", 0, "of everything random"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--tolerance", type=float, default=0.01, help="the bias (0.01)")
    parser.add_argument("--out", metavar="FOLDER", help="for efficiency.json")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, and return 0."""
    options = {name: getattr(namespace, name) for name in run.__annotations__ if name != "return"}
    if namespace.out:
        Path(namespace.out).mkdir(parents=True, exist_ok=True)
    result = run(**options)
    print(
        f"Linear regression, N={namespace.num_data}, D={namespace.dim}, {result.num_batches} "
        "batches, plain gradients, independent noise"
    )
    print(result.table())
    if namespace.out:
        values = {"ratio": result.ratio, "samplers": [s._asdict() for s in result.samplers]}
        path = Path(namespace.out) / "efficiency.json"
        path.write_text(json.dumps(values, indent=1))
    return 0
