"""Run the defaults on memory maps in a process whose memory is limited, and print what it took."""

import json
import resource
import sys
import threading
import time
from pathlib import Path

__all__ = ["main"]


def anonymous() -> int:
    """Return the bytes of anonymous memory that this process has resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return 1024 * int(line.split()[1])
    raise OSError("The benchmark needs Linux: /proc/self/status has no RssAnon.")


class Watch(threading.Thread):
    """Keeps the largest anonymous memory, looked at twenty times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0

    def run(self) -> None:
        while True:
            self.most = max(self.most, anonymous())
            time.sleep(0.05)


def main(folder: Path, limit: float, seed: int) -> dict:
    """Return the numbers of one run."""
    resource.setrlimit(resource.RLIMIT_DATA, (int(limit * 1e9),) * 2)
    import jax
    import numpy as np

    from sgworld_benchmarks.streaming.problem import exact, model
    from sgworld_mcmc import SGWORLD

    X = np.load(folder / "X.npy", mmap_mode="r")
    y = np.load(folder / "y.npy", mmap_mode="r")
    before, watch, begin = anonymous(), Watch(), time.perf_counter()
    watch.start()
    mcmc = SGWORLD(model)
    plan = mcmc.set_up(jax.random.key(seed), X, y)
    set_up = time.perf_counter() - begin
    streamed = plan.streaming is not None
    read = mcmc.data.stream.rows.rows_read if streamed else 0
    mcmc.run(jax.random.key(seed), X, y)
    draws = np.asarray(mcmc.get_samples()["beta"], float)
    seconds = time.perf_counter() - begin
    size = len(y)
    total = mcmc.data.stream.rows.rows_read if streamed else 0
    truth = exact(folder)
    ratio = draws.std(0) / truth.sd
    # The autocorrelation time of the draws is about two.
    effective = len(draws) / 2
    return {
        "rows": size,
        "dim": X.shape[1],
        "bytes": X.nbytes + y.nbytes,
        "streamed": streamed,
        "gradient": plan.dynamics.gradient.name,
        "batch_size": plan.batch_size,
        "steps_per_draw": plan.dynamics.steps_per_draw,
        "order": plan.dynamics.order.name,
        "alike": plan.streaming.alike if streamed else None,
        "cost": plan.streaming.cost if streamed else 1.0,
        "draws": len(draws),
        "set_up": set_up,
        "seconds": seconds,
        "set_up_passes": read / size,
        "passes": total / size,
        "anonymous": max(watch.most, anonymous()),
        "before": before,
        "mean_error": float(np.max(np.abs(draws.mean(0) - truth.mean) / truth.sd)),
        "mean_se": float(1 / np.sqrt(effective)),
        "sd_low": float(ratio.min()),
        "sd_high": float(ratio.max()),
        "sd_se": float(1 / np.sqrt(2 * effective)),
    }


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
