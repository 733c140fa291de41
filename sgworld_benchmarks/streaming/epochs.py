"""Time epochs with plain gradients, on streamed rows and on rows in memory, in turn."""

import warnings
from pathlib import Path

import jax
import numpy as np

from sgworld_benchmarks.streaming.problem import model
from sgworld_mcmc import SGWORLD
from sgworld_mcmc.progress import watch

__all__ = ["epochs", "ready"]

# Batch size, chains, whether they share their batches, and order of each comparison.
CASES = (
    (1000, 4, False, "batches"),
    (1000, 4, False, "examples"),
    (1000, 4, True, "batches"),
    (1000, 1, False, "batches"),
    (1000, 1, False, "examples"),
)
# Timed turns of each, of so many epochs.
TURNS, EPOCHS = 3, 8


def epochs(folder: Path, rows: int, seed: int) -> list[dict]:
    """Return the median seconds of an epoch of each case, and the ratio of the speeds."""
    X = np.load(folder / "X.npy", mmap_mode="r")[:rows]
    y = np.load(folder / "y.npy", mmap_mode="r")[:rows]
    found = []
    for batch_size, chains, share, order in CASES:
        kept = {True: [], False: []}
        case = (X, y, batch_size, chains, order)
        runs = {x: ready(*case, stream=x, seed=seed, share=share) for x in (True, False)}
        for turn in range(TURNS):
            for stream, mcmc in runs.items():
                with watch() as seen:
                    mcmc.run(jax.random.key(turn), X, y)
                seconds = {stage.name: stage.seconds for stage in seen.stages()}
                kept[stream].append(seconds["draws"] / EPOCHS)
        streamed, memory = np.median(kept[True]), np.median(kept[False])
        found.append(
            {
                "rows": rows,
                "batch_size": batch_size,
                "chains": chains,
                "share_batches": share,
                "order": "rows shuffled in chunks"
                if order == "examples"
                else "batches of neighbours",
                "memory": float(memory),
                "streamed": float(streamed),
                "speed": float(memory / streamed),
            }
        )
    return found


def ready(
    X,
    y,
    batch_size: int,
    chains: int,
    order: str,
    *,
    stream: bool,
    seed: int,
    epochs: int = EPOCHS,
    share: bool = False,
) -> SGWORLD:
    """Return a sampler that is set up and compiled; a call of ``run`` makes the epochs."""
    count = -(-len(y) // batch_size)
    # A step size far below stability: the time of a step does not depend on it.
    mcmc = SGWORLD(
        model,
        stream=stream,
        # In memory batches stay the same: the rows were shuffled before they were cut.
        order=order if stream else "batches",
        gradient="plain",
        batch_size=batch_size,
        step_size=1e-6,
        steps_per_draw=count,
        num_warmup=0,
        num_samples=epochs,
        num_chains=chains,
        share_batches=share,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mcmc.run(jax.random.key(seed), X, y)
    return mcmc
