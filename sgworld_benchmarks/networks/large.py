"""What large networks cost: a step against one of Adam, the set-up, memory, and growth with D.

The rows are synthetic digits, 784 pixels each; the network is 784-W-10 with tanh units. Everything
that is to be compared is measured in turn in one process, and memory in a process of its own.
"""

import multiprocessing
import time
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_benchmarks.networks import models
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.progress import watch

__all__ = [
    "SetUp",
    "Size",
    "StepTimes",
    "dimension_of",
    "measure_memory",
    "measure_set_up",
    "measure_size",
    "step_times",
    "synthetic_digits",
]

PIXELS, CLASSES = 784, 10
# The stages of a run that are no part of its set-up.
AFTER = ("compiling", "warm-up", "draws", "checking the draws")
# Rounds in which the kinetic steps and those of Adam take turns.
ROUNDS = 9


def synthetic_digits(size: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return images (size, 784) of ten classes in single precision, and their labels.

    Each class has a smooth image of its own, which is seen with noise in every pixel.
    """
    rng = np.random.default_rng(seed)
    side = int(np.sqrt(PIXELS))
    waves = np.cos(np.outer(np.arange(side) + 0.5, np.arange(5)) * np.pi / side)
    images = np.einsum("ip,jq,cpq->cij", waves, waves, rng.normal(size=(CLASSES, 5, 5)))
    images = images.reshape(CLASSES, PIXELS) / images.std()
    y = rng.integers(0, CLASSES, size)
    x = rng.standard_normal((size, PIXELS), np.float32)
    x += 0.5 * images[y].astype(np.float32)
    return x, y


def network(width: int):
    """Return the model of ``(x, y)`` with one hidden layer."""
    return partial(models.classifier, hidden=(width,), classes=CLASSES, fan_in=True)


def dimension_of(width: int) -> int:
    """Return the number of parameters D of the network."""
    return (PIXELS + 1) * width + (width + 1) * CLASSES


class StepTimes(NamedTuple):
    """Seconds of a step in each round, of the kinetic run and of Adam.

    Attributes
    ----------
    kinetic, adam
        (rounds,) seconds.
    """

    kinetic: np.ndarray
    adam: np.ndarray

    @property
    def ratio(self) -> float:
        """Time of a kinetic step over that of one of Adam, in the median of the rounds."""
        return float(np.median(self.kinetic / self.adam))

    def __str__(self) -> str:
        kinetic, adam = (1e3 * np.min(x) for x in (self.kinetic, self.adam))
        return (
            f"a kinetic step takes {kinetic:.2f} ms, one of Adam {adam:.2f} ms (the fastest of "
            f"{len(self.adam)} rounds in turn); ratio {kinetic / adam:.2f}, median of the rounds "
            f"{self.ratio:.2f}"
        )


def step_times(width: int = 128, batch_size: int = 100, size: int = 4000) -> StepTimes:
    """Measure the steps of one chain against those of optax's Adam, on the same batches in turn.

    A draw is a sweep and its reverse. What a run computes of every draw besides is left out here.
    """
    import optax

    x, y = synthetic_digits(size)
    count = size // batch_size
    mcmc = SGWORLD(
        network(width),
        num_chains=1,
        num_samples=1,
        num_warmup=0,
        batch_size=batch_size,
        step_size=1e-3,
        friction=1.0,
        steps_per_draw=2 * count,
        keep=lambda sites: sites["b2"],
        quantities=lambda sites: sites["b2"],
    )
    with watch():
        mcmc.run(jax.random.key(0), x, y)
    data, sampler = mcmc.data, mcmc.sampler
    steps = data.dynamics.steps_per_draw
    state = sampler.init(jax.random.key(1), 0, model_args=(data,))
    # As a run of a thousand draws is compiled.
    chain = quick_jit(lambda state, data: sampler.sample(state, (data,), {}), "much")

    optimiser = optax.adam(1e-3)
    params = data.sites(state.position)
    batches = jnp.asarray(x).reshape(count, batch_size, -1), jnp.asarray(y).reshape(count, -1)

    def loss(params, x, y):
        logits = models._forward(params, x)
        fit = optax.softmax_cross_entropy_with_integer_labels(logits, y).sum()
        return count * fit + sum(jnp.sum(p**2) for p in params.values()) / 2

    @jax.jit
    def descend(params, state, batches):
        def step(number, carry):
            params, state = carry
            batch = jax.tree.map(lambda a: a[number % count], batches)
            updates, state = optimiser.update(jax.grad(loss)(params, *batch), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, steps, step, (params, state))

    calls = {
        "kinetic": lambda: chain(state, data),
        "adam": lambda: descend(params, optimiser.init(params), batches),
    }
    seconds = {name: [] for name in calls}
    for number in range(ROUNDS + 1):  # the first one compiles
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            if number:
                seconds[name].append((time.perf_counter() - begin) / steps)
    return StepTimes(*(np.array(seconds[name]) for name in calls))


class SetUp(NamedTuple):
    """What a run costs before its first draw.

    Attributes
    ----------
    seconds, epochs
        Seconds by stage, and the epochs that each stage reads for every one of the chains.
    compilation
        Seconds of XLA's compilation, added up over programs (several are compiled at once).
    """

    seconds: dict[str, float]
    epochs: dict[str, float]
    compilation: float

    def __str__(self) -> str:
        lines = [f"{'stage':28}  seconds  epochs of each chain"]
        for name, spent in self.seconds.items():
            lines.append(f"{name:28}  {spent:7.1f}  {self.epochs.get(name, 0.0):6.2f}")
        before = [name for name in self.seconds if name not in AFTER]
        total = sum(self.epochs.get(name, 0.0) for name in before)
        return "\n".join(
            [
                *lines,
                f"before the first draw: {total:.2f} epochs of each chain; compilation "
                f"{self.compilation:.1f} s in all",
            ]
        )


def measure_set_up(size: int = 60_000, width: int = 128, chains: int = 4) -> SetUp:
    """Make a few draws of ``SGWORLD(model)`` with nothing set, and return what came before."""
    x, y = synthetic_digits(size)
    spent = []

    def listen(name, seconds, **_):
        if name.endswith("backend_compile_duration"):
            spent.append(seconds)

    jax.monitoring.register_event_duration_secs_listener(listen)
    mcmc = SGWORLD(network(width), num_chains=chains, num_samples=1, num_warmup=0)
    with watch() as seen:
        mcmc.run(jax.random.key(0), x, y)
    jax.monitoring.unregister_event_duration_listener(listen)
    epochs = {name: rows / size / chains for name, rows in seen.rows.items()}
    seconds = {stage.name: stage.seconds for stage in seen.stages()}
    return SetUp(seconds, epochs, sum(spent))


def measure_memory(draws: int = 100, dimension: int = 100_000) -> tuple[float, float]:
    """Return the memory that a run adds, over what it keeps; and what it keeps, in bytes.

    It is that of a second run: the first one compiles.
    """
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (draws, dimension))


def _memory(draws: int, dimension: int) -> tuple[float, float]:
    import ctypes
    import gc

    inputs = 20
    x = np.random.default_rng(0).standard_normal((40, inputs), np.float32)
    rows = x, x[:, 0]
    model = partial(models.regression, hidden=(dimension // (inputs + 2),), noise=1.0)
    mcmc = SGWORLD(
        model,
        num_samples=draws,
        num_warmup=1,
        batch_size=10,
        step_size=0.001,
        friction=1.0,
        steps_per_draw=8,
    )
    mcmc.run(jax.random.key(0), *rows)
    kept = sum(leaf.nbytes for leaf in jax.tree.leaves(mcmc._states))
    mcmc._states = mcmc._states_flat = None
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    before = _status("VmRSS")
    mcmc.run(jax.random.key(2), *rows)
    mcmc.get_samples()
    return (_status("VmHWM") - before) / kept, kept


class Size(NamedTuple):
    """What a run of D parameters costs.

    Attributes
    ----------
    dimension
        Number of parameters D.
    set_up, step
        Seconds of the set-up, and of a step of one chain.
    memory, kept
        Largest memory of the process beyond that before the run, and that of the draws, in bytes.
    finite
        Whether all draws are finite.
    """

    dimension: int
    set_up: float
    step: float
    memory: int
    kept: int
    finite: bool

    def __str__(self) -> str:
        return (
            f"D = {self.dimension}: set-up {self.set_up:.1f} s, {1e3 * self.step:.2f} ms a step "
            f"({1e9 * self.step / self.dimension:.1f} ns a parameter), memory "
            f"{self.memory / 2**20:.0f} MiB, of which draws {self.kept / 2**20:.0f} MiB; "
            f"{'all draws are finite' if self.finite else 'NOT all draws are finite'}"
        )


def measure_size(width: int, size: int = 2000, batch_size: int = 100, draws: int = 10) -> Size:
    """Make a short run of two chains in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_size, (width, size, batch_size, draws))


def _size(width: int, size: int, batch_size: int, draws: int) -> Size:
    x, y = synthetic_digits(size)
    jax.block_until_ready(jnp.zeros(1))
    before = _status("VmRSS")
    mcmc = SGWORLD(
        network(width), num_chains=2, num_samples=draws, num_warmup=0, batch_size=batch_size
    )
    with watch() as seen:
        mcmc.run(jax.random.key(0), x, y)
    seconds = {stage.name: stage.seconds for stage in seen.stages()}
    samples = mcmc.get_samples(group_by_chain=True)
    steps = 2 * draws * mcmc.plan.dynamics.steps_per_draw
    return Size(
        dimension_of(width),
        sum(spent for name, spent in seconds.items() if name not in AFTER),
        seconds["draws"] / steps,
        _status("VmHWM") - before,
        sum(leaf.nbytes for leaf in samples.values()),
        all(bool(np.isfinite(leaf).all()) for leaf in samples.values()),
    )


def _status(name: str) -> int:
    """Return a number of bytes from Linux's record of this process."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(name))
