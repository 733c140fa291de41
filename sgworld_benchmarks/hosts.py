"""What a run on several hosts costs: measured with local processes, and what follows for more.

Two processes, each on a core of its own, against one process on one core, in turn: rows per second
in epochs of a logistic regression. The time of an exchange of gradients is measured apart. From
these numbers and the bytes that are read and exchanged, a model says how long a pass takes on up to
1000 devices.
"""

import json
import os
import socket
import subprocess
import sys
import time
import warnings
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_integer, check_positive

__all__ = ["Costs", "add_arguments", "run", "run_cli", "worker"]

# A step size at which chains stay near the mode: the time of a step does not depend on it.
STEP_SIZE = 1e-3
# Exchanges that are timed together, and the numbers that one moves.
EXCHANGES, SMALL, LARGE = 500, 50, 50_000
DEVICES = (1, 2, 8, 32, 100, 320, 1000)
OPTIONS = ("rounds", "num_data", "dim", "batch_size", "seconds", "seed")


class Costs(NamedTuple):
    """What was measured.

    Attributes
    ----------
    one, two
        (rounds,) rows per second of one process and of two together.
    processor
        (rounds,) the ratio of rows per second of a processor: what two cores would do that nobody
        else uses, if they never waited for each other.
    latency
        Seconds of an exchange of few numbers between two processes.
    bandwidth
        Bytes per second of an exchange of many numbers.
    row_bytes
        Bytes of a row.
    """

    one: np.ndarray
    two: np.ndarray
    processor: np.ndarray
    latency: float
    bandwidth: float
    row_bytes: int

    def pass_seconds(
        self, rows: float, batch_size: float, devices: int, numbers: float
    ) -> tuple[float, float]:
        """Return the seconds of a pass that computing takes, and those of exchanges.

        A step waits for two messages for each doubling of the devices, as in a tree, and moves its
        numbers about twice (docs/clusters.md).
        """
        reading = rows / (float(np.median(self.one)) * devices)
        rounds = 2 * np.log2(devices)
        moved = 2 * (devices - 1) / devices * 4 * numbers / self.bandwidth
        each = 0.0 if devices == 1 else self.latency / 2 * rounds + moved
        return reading, rows / batch_size * each

    def table(self, rows: float, per_device: float, numbers: float) -> str:
        """Return the model's table for N rows and batches of so many rows for each device."""
        lines = [
            f"{rows:.0e} rows of {self.row_bytes} bytes, batches of {per_device:g} rows a device, "
            f"{numbers:g} numbers exchanged in a step",
            f"{'devices':>7} {'GB a device':>11} {'GB read a pass':>14} {'steps a pass':>12} "
            f"{'MB exchanged':>12} {'computing, s':>12} {'exchanges, s':>12} {'of ideal':>8}",
        ]
        for devices in DEVICES:
            batch = per_device * devices
            reading, waiting = self.pass_seconds(rows, batch, devices, numbers)
            steps, size = rows / batch, rows * self.row_bytes / 1e9
            moved = 2 * (devices - 1) / devices * 4 * numbers * steps / 1e6
            lines.append(
                f"{devices:7} {size / devices:11.3g} {size:14.4g} {steps:12.4g} {moved:12.3g} "
                f"{reading:12.3g} {waiting:12.3g} {reading / (reading + waiting):8.0%}"
            )
        return "\n".join(lines)


def run(
    rounds: int = 3,
    num_data: int = 400_000,
    dim: int = 50,
    batch_size: int = 200_000,
    seconds: float = 4.0,
    seed: int = 0,
) -> Costs:
    """Measure one process against two, each on a core of its own.

    Parameters
    ----------
    rounds
        How often each is timed.
    num_data, dim, batch_size
        Rows N, features D, and rows of a batch.
    seconds
        Length of a run on one core, about.

    Raises
    ------
    ValueError
        If a number makes no sense, or the machine has a single core.
    """
    for name, value in (("rounds", rounds), ("num_data", num_data), ("dim", dim)):
        check_integer(name, value, 1)
    check_integer("batch_size", batch_size, 2, num_data)
    check_positive("seconds", seconds)
    cores = _cores()
    if len(cores) < 2:
        raise ValueError("Two processes need two cores to be compared with one.")
    given = {"size": num_data, "dim": dim, "batch_size": batch_size, "seed": seed}
    draws = max(10, int(seconds * _workers(1, cores, draws=20, **given)["rows"] / num_data))
    one, two, processor, exchanges = [], [], [], []
    for _ in range(rounds):
        alone = _workers(1, cores, draws=draws, **given)
        found = _workers(2, cores, draws=draws, **given)
        one.append(alone["rows"])
        two.append(found["rows"])
        processor.append(found["processor"] / alone["processor"])
        exchanges.append(found["exchanges"])
    few, many = np.median(exchanges, axis=0)
    bandwidth = 4 * (LARGE - SMALL) / max(many - few, 1e-9)
    rates = (np.array(x) for x in (one, two, processor))
    return Costs(*rates, float(few), bandwidth, 4 * (dim + 1))


def worker(process, processes, address, core, draws, size, dim, batch_size, seed) -> None:
    """Make a run as one of several processes, and print what it measured."""
    if core is not None:
        os.sched_setaffinity(0, {core})
    import jax

    if processes > 1:
        jax.distributed.initialize(address, processes, process)
    import numpyro
    import numpyro.distributions as dist

    from sgworld_mcmc import SGWORLD, own_rows

    def model(X, y):
        beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
        with numpyro.plate("rows", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)

    generator = np.random.default_rng(seed)
    X = generator.standard_normal((size, dim), dtype=np.float32)
    y = (generator.random(size) < 1 / (1 + np.exp(-X[:, 0]))).astype(np.float32)
    own = own_rows(size)
    X, y = X[own].copy(), y[own].copy()
    warnings.simplefilter("ignore")  # such small steps do not mix

    mcmc = SGWORLD(
        model,
        num_chains=1,
        num_samples=draws,
        num_warmup=0,
        batch_size=batch_size,
        step_size=STEP_SIZE,
        gradient="plain",
        steps_per_draw=-(-size // batch_size),
        devices=jax.devices() if processes > 1 else None,
        progress_bar=False,
    )
    for _ in range(2):  # the first run sets up and compiles
        begin, processor = time.perf_counter(), time.process_time()
        mcmc.run(jax.random.key(seed), X, y)
        spent, used = time.perf_counter() - begin, time.process_time() - processor
    plan = mcmc.plan
    rows = draws * plan.dynamics.steps_per_draw * size / plan.num_batches
    exchanges = _exchanges() if processes > 1 else None
    if process == 0:
        found = {"rows": rows / spent, "processor": rows / used, "exchanges": exchanges}
        print(json.dumps(found), flush=True)


def _exchanges() -> list[float]:
    """Return the seconds of an exchange of few and of many numbers between all devices."""
    import jax
    from jax.sharding import Mesh
    from jax.sharding import PartitionSpec as P

    mesh, found = Mesh(np.array(jax.devices()), ("data",)), []

    def many(x):
        return jax.lax.fori_loop(0, EXCHANGES, lambda _, x: jax.lax.pmean(x, "data"), x)

    for numbers in (SMALL, LARGE):
        mapped = jax.shard_map(many, mesh=mesh, in_specs=P(), out_specs=P(), check_vma=False)
        exchange, x = jax.jit(mapped), np.ones(numbers, np.float32)
        times = []
        for _ in range(4):
            begin = time.perf_counter()
            jax.block_until_ready(exchange(x))
            times.append(time.perf_counter() - begin)
        found.append(float(np.median(times[1:])) / EXCHANGES)
    return found


def _workers(processes: int, cores: list, **given) -> dict:
    """Start the processes of a run, and return what the first one measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = []
    for number in range(processes):
        values = {"process": number, "processes": processes, "address": address}
        values |= {"core": cores[number], **given}
        program = f"from sgworld_benchmarks.hosts import worker; worker(**{values!r})"
        environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
        environment.pop("XLA_FLAGS", None)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-W", "ignore", "-c", program]
        started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
    outputs = [process.communicate() for process in started]
    if any(process.returncode for process in started):
        raise ValueError("\n".join(error.strip()[-2000:] for _, error in outputs))
    return json.loads(outputs[0][0].strip().splitlines()[-1])


def _cores() -> list:
    """Return the cores that may be used; two of no name where the system has no such notion."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return [None] * (os.cpu_count() or 1)


def add_arguments(parser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--rounds", type=int, default=3, help="runs of each case (3)")
    parser.add_argument("--num-data", type=int, default=400_000, help="rows (400000)")
    parser.add_argument("--dim", type=int, default=50, help="features (50)")
    parser.add_argument("--batch-size", type=int, default=200_000, help="rows of a batch (200000)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a run (4)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("--rows", type=float, default=1e9, help="of the table (1e9)")
    parser.add_argument(
        "--per-device", type=float, default=100_000, help="rows of a batch on a device (100000)"
    )
    parser.add_argument("--latency", type=float, help="seconds of an exchange, if known")
    parser.add_argument("--bandwidth", type=float, help="bytes a second, if known")
    parser.add_argument("--rate", type=float, help="rows a second of a device, if known")


def run_cli(namespace) -> int:
    """Run the benchmark, and print what was measured and the table that follows from it."""
    costs = run(**{name: getattr(namespace, name) for name in OPTIONS})
    ratio = costs.two / costs.one
    print(
        f"rows per second: {np.median(costs.one):.3g} of one process on one core, "
        f"{np.median(costs.two):.3g} of two processes, ratio {np.median(ratio):.2f} "
        f"({ratio.min():.2f}-{ratio.max():.2f}), of processor time "
        f"{np.median(costs.processor):.2f}\n"
        f"an exchange between two processes: {1e6 * costs.latency:.0f} us for {SMALL} numbers, "
        f"{costs.bandwidth / 1e9:.2g} GB/s for many"
    )
    given = {"latency": namespace.latency, "bandwidth": namespace.bandwidth}
    if namespace.rate is not None:
        given["one"] = np.array([namespace.rate])
    costs = costs._replace(**{name: x for name, x in given.items() if x is not None})
    print(costs.table(namespace.rows, namespace.per_device, namespace.dim))
    return 0
