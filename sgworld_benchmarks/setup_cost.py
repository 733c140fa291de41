"""Measure what a set-up costs: seconds by stage, passes over the data, and memory.

The problem is a logistic regression. The run is made in a process of its own, so that the largest
memory of that process is that of the set-up. The first run compiles and sets up; the second one, on
the same arrays, does neither. Machines are shared and their speed varies: seconds can be compared
only with others that were measured in turn with them, passes and memory always.
"""

import multiprocessing
import resource
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD
from sgworld_mcmc.checks import check_choice, check_integer
from sgworld_mcmc.progress import watch

__all__ = ["SetUpCost", "add_arguments", "run", "run_cli"]

ARRAYS = ("numpy", "double", "jax")
# The stages that are no part of the set-up.
AFTER = ("compiling", "warm-up", "draws", "checking the draws")
# The data are simulated in blocks of this many rows, so that no peak of memory is left behind.
BLOCK = 2**16


class SetUpCost(NamedTuple):
    """The costs of a first run, and of a second one on the same arrays.

    Attributes
    ----------
    seconds
        Seconds of the first run by stage, compilation included.
    passes
        Number of rows that each stage of the first run reads, over N.
    first, second
        Seconds of the whole first and second run.
    second_passes
        Passes over the data that the second run makes before it begins to sample.
    memory
        Largest memory of the process beyond the arguments, in bytes.
    data
        Size of the arguments, in bytes.
    """

    seconds: dict[str, float]
    passes: dict[str, float]
    first: float
    second: float
    second_passes: float
    memory: int
    data: int

    @property
    def set_up(self) -> float:
        """Seconds that the set-up of the first run takes."""
        return sum(spent for name, spent in self.seconds.items() if name not in AFTER)

    def table(self) -> str:
        """Return the numbers as text."""
        lines = [f"{'stage':24}  seconds   passes over the data"]
        for name, spent in self.seconds.items():
            lines.append(f"{name:24}  {spent:7.2f}   {self.passes.get(name, 0.0):6.2f}")
        ratio = self.memory / self.data
        return "\n".join(
            [
                *lines,
                f"set-up: {self.set_up:.2f} s; all passes: {sum(self.passes.values()):.2f}",
                f"memory beyond the arguments: {self.memory / 2**20:.0f} MiB, "
                f"{ratio:.2f} times the data",
                f"first run {self.first:.2f} s; second run on the same arrays {self.second:.2f} s, "
                f"{self.second_passes:.2f} passes before it samples",
            ]
        )


def run(
    num_data: int = 1_000_000, dim: int = 20, arrays: str = "numpy", seed: int = 0
) -> SetUpCost:
    """Measure in a new process.

    Parameters
    ----------
    num_data, dim
        Rows N and features D of the simulated logistic regression.
    arrays
        ``"numpy"`` (single precision), ``"double"`` (NumPy in double precision) or ``"jax"``.
    seed
        Seed of data and keys.
    """
    check_integer("num_data", num_data, 20)
    check_integer("dim", dim, 1)
    check_choice("arrays", arrays, ARRAYS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measure, (num_data, dim, arrays, seed))


def measure(num_data: int, dim: int, arrays: str, seed: int) -> SetUpCost:
    """Measure in this process, which should not have used more memory before."""
    data = simulate(num_data, dim, arrays, seed)
    size = sum(x.nbytes for x in data)
    mcmc = SGWORLD(_model, num_samples=200, num_warmup=2, num_chains=2)
    before = _memory_now()
    seconds, watched = [], []
    for number in range(2):
        with watch() as seen:
            start = time.perf_counter()
            mcmc.run(jax.random.key(seed + number), *data)
            jax.block_until_ready(mcmc.get_samples())
            seconds.append(time.perf_counter() - start)
        watched.append(seen)
    first, second = watched
    passes = {name: rows / num_data for name, rows in first.rows.items()}
    later = {name: rows for name, rows in second.rows.items() if name not in AFTER}
    return SetUpCost(
        {stage.name: stage.seconds for stage in first.stages()},
        passes,
        *seconds,
        sum(later.values()) / num_data,
        _largest_memory() - before,
        size,
    )


def simulate(num_data: int, dim: int, arrays: str, seed: int) -> tuple:
    """Simulate features (N, D) and responses (N,), block by block."""
    generator = np.random.default_rng(seed)
    dtype = np.float64 if arrays == "double" else np.float32
    X, y = np.empty((num_data, dim), dtype), np.empty(num_data, dtype)
    coefficients = generator.standard_normal(dim) / np.sqrt(dim)
    for start in range(0, num_data, BLOCK):
        rows = slice(start, start + BLOCK)
        X[rows] = generator.standard_normal(X[rows].shape)
        logits = X[rows] @ coefficients
        y[rows] = generator.uniform(size=len(logits)) < 1 / (1 + np.exp(-logits))
    if arrays != "jax":
        return X, y
    # Wait for the copy here: else the first command of the run would wait for it.
    return jax.block_until_ready((jnp.array(X), jnp.array(y)))


def add_arguments(parser) -> None:
    """Add the options of ``sgworld-mcmc benchmark setup`` to an `argparse` parser."""
    for name, default, text in (
        ("num-data", 1_000_000, "rows"),
        ("dim", 20, "features"),
        ("seed", 0, "of data and keys"),
    ):
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} ({default})")
    parser.add_argument("--arrays", choices=ARRAYS, default="numpy", help="of the data (numpy)")


def run_cli(namespace) -> int:
    """Run with the parsed options, print the table, and return 0."""
    result = run(namespace.num_data, namespace.dim, namespace.arrays, namespace.seed)
    print(f"Logistic regression, N={namespace.num_data}, D={namespace.dim}, {namespace.arrays}")
    print(result.table())
    return 0


def _model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def _largest_memory() -> int:
    """Return the largest memory of this process so far, in bytes."""
    # Linux counts in units of 1024 bytes, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _memory_now() -> int:
    """Return the memory of this process in bytes, or the largest so far if it is not known."""
    status = Path("/proc/self/statm")
    if not status.exists():
        return _largest_memory()
    return int(status.read_text().split()[1]) * resource.getpagesize()
