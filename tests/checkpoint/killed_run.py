"""A run that a test kills: it prints the stages that it comes to, and at its end its draws."""

import sys

import jax
import numpy as np

from sgworld_mcmc import SGWORLD, progress
from sgworld_mcmc.sampling import loop

SETTINGS = {"num_samples": 300_000, "num_warmup": 300_000, "num_chains": 2, "batch_size": 20}


def main(folder: str, method: str, draws: str, out: str) -> None:
    import models

    enter = progress.Reporter.enter

    def told(self, name):
        print(name, flush=True)
        enter(self, name)

    progress.Reporter.enter = told
    loop.BLOCK_SECONDS = 0.02
    mcmc = SGWORLD(models.gaussian, chain_method=method, **SETTINGS)
    saved = {} if folder == "none" else {"checkpoint": folder, "every": 0.1, "resume": True}
    saved |= {} if folder == "none" else {"draws": draws}
    mcmc.run(jax.random.key(0), *models.regression_data()[1:], extra_fields=("rng_key",), **saved)
    keys = jax.random.key_data(mcmc.last_state.rng_key)
    np.savez(out, mu=mcmc.get_samples(group_by_chain=True)["mu"], keys=keys)


if __name__ == "__main__":
    main(*sys.argv[1:])
