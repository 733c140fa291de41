"""Measure what checkpoints cost a run, against the same run without.

The problem is a logistic regression with plain gradients, of as many draws as take the time asked
for. One object makes all runs, so that nothing is set up or compiled after the first of each kind.
The cases run in turn in one process, and each is compared with the run without checkpoint of the
same round: machines are shared, so that only ratios mean something, and processor seconds more than
those of the clock. Checkpoints are far more frequent than anybody needs them, since the times of
equal runs differ by more than those of a few checkpoints.
"""

import shutil
import tempfile
import time
import warnings
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc.checks import check_integer, check_positive
from sgworld_mcmc.infer import SGWORLD, TuningWarning

__all__ = ["CheckpointCosts", "add_arguments", "run", "run_cli"]

# A step size far below the stability limit: the time of a step does not depend on it.
STEP_SIZE = 1e-5
# Smallest number of draws, by which the speed is measured first.
FEW = 50
ALONE = "no checkpoint"
# The number of the case with a single checkpoint, with which the others are compared.
END = 1
# The interval at which the figure in the documentation is quoted, in seconds.
QUOTED = 10.0


class CheckpointCosts(NamedTuple):
    """The times of all cases, by round.

    Attributes
    ----------
    labels
        Names of the cases; the first is the run without checkpoint.
    seconds, processor
        (cases, rounds) seconds of the clock and of all processors.
    saved
        (cases,) mean number of checkpoints in a run.
    draws, draw_bytes
        Number of draws of each chain, and bytes of one draw of all chains.
    """

    labels: tuple[str, ...]
    seconds: np.ndarray
    processor: np.ndarray
    saved: np.ndarray
    draws: int
    draw_bytes: int

    def ratio(self, processor: bool = False) -> np.ndarray:
        """Return the (cases,) median ratios to the run without checkpoint of the same round."""
        times = self.processor if processor else self.seconds
        return np.median(times / times[0], axis=1)

    def milliseconds(self, case: int, processor: bool) -> tuple[float, float, float]:
        """Return the milliseconds of one checkpoint of a case: median and quartiles over rounds."""
        times = self.processor if processor else self.seconds
        each = (times[case] - times[END]) / max(1, self.saved[case] - self.saved[END])
        return tuple(1e3 * np.percentile(each, [50, 25, 75]))

    def table(self) -> str:
        """Return the numbers as text."""
        width = max(map(len, self.labels))
        lines = [
            f"{self.draws} draws of each chain, {self.draw_bytes} bytes a draw of all chains",
            f"{'':{width}}  seconds   ratio   quartiles     processor ratio  checkpoints",
        ]
        ratios, processor = self.seconds / self.seconds[0], self.ratio(processor=True)
        for n, label in enumerate(self.labels):
            low, middle, high = np.percentile(ratios[n], [25, 50, 75])
            lines.append(
                f"{label:{width}}  {np.median(self.seconds[n]):7.2f}  {middle:6.3f}   "
                f"{low:.3f}-{high:.3f}   {processor[n]:15.3f}  {self.saved[n]:11.1f}"
            )
        for n in range(END + 1, len(self.labels)):
            for what, processor in (("by the clock", False), ("of a processor", True)):
                each, low, high = self.milliseconds(n, processor)
                lines.append(
                    f"{self.labels[n]}: a checkpoint takes {each:.0f} ms ({low:.0f}-{high:.0f}) "
                    f"{what}, {each / QUOTED / 10:.2f} % at every={QUOTED:g}"
                )
        return "\n".join(lines)


def run(
    seconds: float = 10.0,
    every: float = 0.25,
    rounds: int = 5,
    num_data: int = 20_000,
    dim: int = 50,
    batch_size: int = 500,
    chains: int = 4,
    seed: int = 0,
    streamed: bool = False,
) -> CheckpointCosts:
    """Time runs with and without checkpoints.

    Parameters
    ----------
    seconds
        Length of a run, about.
    every
        Seconds between two checkpoints.
    rounds
        How often each case is timed.
    num_data, dim, batch_size, chains
        Rows N, features D, rows of a batch, and chains. A draw is an epoch.
    streamed
        Whether the rows are streamed from files.

    Raises
    ------
    ValueError
        If a number makes no sense.
    """
    for name, value in (("rounds", rounds), ("num_data", num_data), ("dim", dim)):
        check_integer(name, value, 1)
    check_positive("seconds", seconds)
    check_positive("every", every)
    X, y = _simulate(num_data, dim, seed)
    settings = {"gradient": "plain", "batch_size": batch_size, "step_size": STEP_SIZE}
    settings |= {"steps_per_draw": -(-num_data // batch_size), "num_chains": chains}
    settings |= {"num_warmup": 0, "progress_bar": False, "dynamics": "overdamped"}
    key = jax.random.key(seed)
    if not streamed:
        return _compared(X, y, key, settings, seconds, every, rounds)
    with tempfile.TemporaryDirectory(prefix="sgworld-checkpoints-") as folder:
        X, y = _in_files(Path(folder), X=X, y=y)
        return _compared(X, y, key, {**settings, "stream": True}, seconds, every, rounds)


def _compared(X, y, key, settings, seconds, every, rounds) -> CheckpointCosts:
    """Return the times of runs with these settings."""
    draws, before = FEW, None
    for _ in range(3):  # a short run says little of a long one
        mcmc = SGWORLD(_model, num_samples=draws, **settings)
        if before is not None:
            mcmc.sampler.share(before.sampler)
        for _ in range(2):  # the first one compiles
            spent, _, _ = _timed(mcmc, key, X, y, None)
        draws, before = max(FEW, int(draws * seconds / spent)), mcmc
    draws = mcmc.num_samples
    cases = {
        ALONE: None,
        "one at the end": {"every": 1e9},
        f"every {every:g} s": {"every": every},
        f"every {every:g} s, draws on disk": {"every": every, "draws": "disk"},
    }
    times = np.zeros((2, len(cases), rounds))
    saved = np.zeros(len(cases))
    for number in range(-1, rounds):  # the first round compiles
        for case, options in enumerate(cases.values()):
            *found, count = _timed(mcmc, key, X, y, options)
            if number >= 0:
                times[:, case, number] = found
                saved[case] += count
    size = sum(x[:, 0].nbytes for x in jax.tree.leaves(mcmc.get_samples(group_by_chain=True)))
    return CheckpointCosts(tuple(cases), *times, saved / rounds, draws, size)


def _timed(mcmc, key, X, y, options):
    """Return seconds of the clock and of all processors, and the number of checkpoints."""
    folder = tempfile.mkdtemp(prefix="sgworld-checkpoints-")
    try:
        given = {} if options is None else {"checkpoint": folder, **options}
        begin, processor = time.perf_counter(), time.process_time()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TuningWarning)  # such small steps do not mix
            mcmc.run(key, X, y, **given)
        spent = time.perf_counter() - begin, time.process_time() - processor
        states = [int(x.name) for x in Path(folder).glob("states/*") if x.name.isdigit()]
        return *spent, max(states, default=-1) + 1
    finally:
        shutil.rmtree(folder)


def _model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 1).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def _in_files(folder, **arrays):
    """Return the arrays as memory maps of files."""
    for name, array in arrays.items():
        np.save(folder / f"{name}.npy", array)
    return tuple(np.load(folder / f"{name}.npy", mmap_mode="r") for name in arrays)


def _simulate(num_data, dim, seed):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal((num_data, dim), dtype=np.float32)
    logits = X @ (rng.standard_normal(dim, dtype=np.float32) / np.sqrt(dim))
    return X, (rng.random(num_data) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def add_arguments(parser) -> None:
    """Add this benchmark's options."""
    parser.add_argument("--seconds", type=float, default=10.0, help="length of a run (10)")
    parser.add_argument("--every", type=float, default=0.25, help="between checkpoints (0.25)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each case (5)")
    parser.add_argument("--num-data", type=int, default=20_000, help="rows (20000)")
    parser.add_argument("--dim", type=int, default=50, help="features (50)")
    parser.add_argument("--batch-size", type=int, default=500, help="rows of a batch (500)")
    parser.add_argument("--chains", type=int, default=4, help="chains (4)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (0)")
    parser.add_argument("--streamed", action="store_true", help="stream the rows from files")


def run_cli(namespace) -> int:
    """Run the benchmark and print its table."""
    names = ("seconds", "every", "rounds", "num_data", "dim", "batch_size", "chains", "seed")
    names += ("streamed",)
    print(run(**{name: getattr(namespace, name) for name in names}).table())
    return 0
