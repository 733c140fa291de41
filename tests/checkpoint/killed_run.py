"""A run that a test kills: it prints the stages that it comes to, and at its end its draws."""

import sys

import jax
import numpy as np

from sgworld_mcmc import SGWORLD, progress
from sgworld_mcmc.sampling import loop

SETTINGS = {"num_samples": 300_000, "num_warmup": 300_000, "num_chains": 2, "batch_size": 20}
# A chunk of a file takes a thousand times as long as a step.
STREAMED = {**SETTINGS, "num_samples": 1000, "num_warmup": 1000, "gradient": "plain"}


def main(folder: str, method: str, draws: str, out: str, rows: str) -> None:
    """Run, with the rows in a file unless they are ``"memory"``."""
    import models

    enter = progress.Reporter.enter

    def told(self, name):
        print(name, flush=True)
        enter(self, name)

    progress.Reporter.enter = told
    loop.BLOCK_SECONDS = 0.02
    streams = rows != "memory"
    settings = {**STREAMED, "stream": True} if streams else SETTINGS
    y = np.load(rows, mmap_mode="r") if streams else models.regression_data()[1]
    mcmc = SGWORLD(models.gaussian, chain_method=method, **settings)
    saved = {} if folder == "none" else {"checkpoint": folder, "every": 0.1, "resume": True}
    saved |= {} if folder == "none" else {"draws": draws}
    mcmc.run(jax.random.key(0), y, extra_fields=("rng_key",), **saved)
    keys = jax.random.key_data(mcmc.last_state.rng_key)
    np.savez(out, mu=mcmc.get_samples(group_by_chain=True)["mu"], keys=keys)


if __name__ == "__main__":
    main(*sys.argv[1:])
