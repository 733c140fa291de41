"""Time an epoch of a file that is not in the page cache, and reading it from end to end, in turn.

Before each the system is asked to forget the file's pages (``posix_fadvise``). What lies below,
such as the cache of a virtual machine's host, is not emptied: sequential reads are measured in the
same turns, and only the ratio is a result.
"""

import os
import time
from pathlib import Path

import jax
import numpy as np

from sgworld_benchmarks.streaming.epochs import ready
from sgworld_mcmc.progress import watch

__all__ = ["disk_rates"]

FILES = ("X.npy", "y.npy")
BATCH_SIZE, TURNS = 1000, 5
# Chains, and whether they share their batches.
CASES = ((1, False), (4, False), (4, True))
# Bytes of a sequential read.
READ = 2**24


def disk_rates(folder: Path, seed: int) -> list[dict]:
    """Return the rates of sequential reading and of epochs, bytes a second, of each case."""
    X, y = (np.load(folder / name, mmap_mode="r") for name in FILES)
    size = sum((folder / name).stat().st_size for name in FILES)
    found = []
    for chains, share in CASES:
        settings = dict(stream=True, seed=seed, epochs=1, share=share)
        mcmc = ready(X, y, BATCH_SIZE, chains, "batches", **settings)
        reading, epochs = [], []
        for turn in range(TURNS):
            _forget(folder)
            begin = time.perf_counter()
            _read(folder)
            reading.append(time.perf_counter() - begin)
            _forget(folder)
            with watch() as seen:
                mcmc.run(jax.random.key(turn), X, y)
            epochs.append({stage.name: stage.seconds for stage in seen.stages()}["draws"])
        ratios = np.array(reading) / epochs
        found.append(
            {
                "chains": chains,
                "share_batches": share,
                "bytes": size,
                "sequential": size / float(np.median(reading)),
                "epochs": size / float(np.median(epochs)),
                "ratio": float(np.median(ratios)),
                "ratios": ratios.round(3).tolist(),
            }
        )
    return found


def _forget(folder: Path) -> None:
    for name in FILES:
        with open(folder / name, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read(folder: Path) -> None:
    memory = memoryview(bytearray(READ))
    for name in FILES:
        with open(folder / name, "rb", buffering=0) as file:
            while file.readinto(memory):
                pass
