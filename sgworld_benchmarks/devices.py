"""Compare runs on four devices of a CPU with runs on one: the draws, and the time of an epoch.

The problem is a regression with Student's t and plain gradients. (NumPyro's gradient of a logistic
regression is off by half a row where a logit is exactly zero, which rounding decides: one row in
about 10^8, which shows between any two programs.) The devices share the cores of the
machine, so that nothing can become faster: the figure is the overhead of cutting a run into parts.
All runs are made in one process, in turn, and each is compared with the run on one device of the
same round. The process is one of its own, since the number of devices is fixed when JAX starts.
"""

import os
import subprocess
import sys
import time
import warnings
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD, TuningWarning
from sgworld_mcmc.checks import check_integer, check_positive

__all__ = ["Comparison", "add_arguments", "run", "run_cli"]

STEP_SIZE = 0.1
# Smallest number of draws, by which the speed is measured first.
FEW = 20
OPTIONS = ("devices", "seconds", "rounds", "num_data", "dim", "batch_size", "seed")


class Comparison(NamedTuple):
    """What was measured of one way to lay out a run.

    Attributes
    ----------
    label
        How the run was laid out.
    apart
        Largest difference of two draws, in posterior standard deviations.
    one, several
        (rounds,) seconds of an epoch of all chains, on one device and on several.
    steps
        Steps of an epoch.
    """

    label: str
    apart: float
    one: np.ndarray
    several: np.ndarray
    steps: int

    def line(self) -> str:
        """Return the numbers as a line of the table."""
        low, middle, high = np.percentile(self.several / self.one, [25, 50, 75])
        exchange = 1e6 * np.median(self.several - self.one) / self.steps
        return (
            f"{self.label:26} {self.apart:10.1e} {1e3 * np.median(self.one):9.2f} "
            f"{1e3 * np.median(self.several):9.2f} {middle:7.2f}  {low:.2f}-{high:.2f} "
            f"{exchange:9.1f}"
        )


HEADER = (
    f"{'':26} {'draws':>10} {'one':>9} {'several':>9} {'ratio':>7}  {'quartiles':9} {'a step':>9}\n"
    f"{'':26} {'apart, sd':>10} {'ms/epoch':>9} {'ms/epoch':>9} {'':7}  {'':9} {'us more':>9}"
)


def run(
    devices: int = 4,
    seconds: float = 3.0,
    rounds: int = 5,
    num_data: int = 100_000,
    dim: int = 50,
    batch_size: int = 2000,
    seed: int = 0,
) -> list[Comparison]:
    """Compare runs on several devices, of which JAX must have as many, with runs on one.

    Parameters
    ----------
    devices
        Number of devices, even.
    seconds
        Length of a run, about.
    rounds
        How often each run is timed.
    num_data, dim, batch_size
        Rows N, features D, and rows of a batch. A draw is an epoch.

    Raises
    ------
    ValueError
        If a number makes no sense, or JAX has fewer devices.
    """
    for name, value in (("rounds", rounds), ("num_data", num_data), ("dim", dim)):
        check_integer(name, value, 1)
    check_integer("devices", devices, 2)
    check_positive("seconds", seconds)
    if devices % 2:
        raise ValueError(f"`devices` must be even, not {devices}: half of them share the rows.")
    X, y = _simulate(num_data, dim, seed)
    layouts = {
        f"{devices} chains over devices": (devices, 1),
        f"rows over {devices} devices": (1, devices),
        f"2 chains x rows over {devices // 2}": (2, devices // 2),
    }
    settings = {"gradient": "plain", "batch_size": batch_size, "step_size": STEP_SIZE}
    settings |= {"dynamics": "overdamped", "num_warmup": 0, "progress_bar": False}
    settings |= {"steps_per_draw": -(-num_data // batch_size)}
    found = []
    for label, (chains, shards) in layouts.items():
        given = {**settings, "num_chains": chains, "data_shards": shards}
        found.append(_compare(label, given, devices, (X, y), seconds, rounds, seed))
        print(found[-1].line() if len(found) > 1 else f"{HEADER}\n{found[-1].line()}", flush=True)
    return found


def _compare(label, settings, devices, data, seconds, rounds, seed) -> Comparison:
    key, draws, before = jax.random.key(seed), FEW, None
    for _ in range(2):  # the first one tells how many draws take the time asked for
        one = SGWORLD(_model, num_samples=draws, **settings)
        if before is not None:
            one.sampler.share(before.sampler)
        for _ in range(2):  # the first run compiles
            spent = _timed(one, key, data)
        draws, before = max(FEW, int(draws * seconds / spent)), one
    several = SGWORLD(_model, num_samples=one.num_samples, devices=devices, **settings)
    times = np.zeros((2, rounds))
    for number in range(-1, rounds):
        spent = [_timed(mcmc, key, data) for mcmc in (one, several)]
        if number >= 0:
            times[:, number] = spent
    a, b = (np.asarray(mcmc.get_samples()["beta"], float) for mcmc in (one, several))
    apart = np.abs(a - b).max() / one.plan.fit.coordinates.deviations().min()
    dynamics = one.plan.dynamics
    epochs = one.num_samples * dynamics.steps_per_draw / dynamics.num_batches
    return Comparison(label, float(apart), *(times / epochs), dynamics.num_batches)


def _timed(mcmc, key, data) -> float:
    begin = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", TuningWarning)
        mcmc.run(key, *data)
    return time.perf_counter() - begin


def _model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.StudentT(4.0, X @ beta, 1.0), obs=y)


def _simulate(num_data, dim, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((num_data, dim), dtype=np.float32)
    mean = X @ (rng.standard_normal(dim, dtype=np.float32) / np.sqrt(dim))
    return X, (mean + rng.standard_t(4.0, num_data)).astype(np.float32)


def add_arguments(parser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--devices", type=int, default=4, help="forced devices, even (4)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run (3)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (5)")
    parser.add_argument("--num-data", type=int, default=100_000, help="rows (100000)")
    parser.add_argument("--dim", type=int, default=50, help="features (50)")
    parser.add_argument("--batch-size", type=int, default=2000, help="rows of a batch (2000)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")


def run_cli(namespace) -> int:
    """Run the benchmark in a process with as many devices, which prints its table."""
    given = {name: getattr(namespace, name) for name in OPTIONS}
    flag = f"--xla_force_host_platform_device_count={given['devices']}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    program = f"from sgworld_benchmarks.devices import run; run(**{given!r})"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    print(done.stdout, end="")
    if done.returncode:
        raise ValueError(done.stderr.strip().splitlines()[-1])
    return 0
