"""Three runs of one object on two hosts: of the same rows, and after a change on one host.

Prints, as JSON, whether each run made a new plan, and how far the draws of the last two are apart.
"""

import itertools
import json
import sys

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD


def model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 3).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, 1), obs=y)


def main(address, process):
    jax.distributed.initialize(address, 2, process)
    rng = np.random.default_rng(process)
    X = rng.standard_normal((4000, 3), np.float32)
    y = X[:, 0] + rng.standard_normal(4000, np.float32)
    mcmc = SGWORLD(
        model,
        num_samples=20,
        num_warmup=10,
        batch_size=1000,
        gradient="plain",
        devices=jax.devices(),
        progress_bar=False,
    )
    plans, means = [], []
    for change in (0.0, 0.0, 1000.0):
        if process == 1:
            y[0] += change
        mcmc.run(jax.random.key(0), X, y)
        plans.append(mcmc.plan)
        means.append(mcmc.get_samples()["beta"].mean(0))
    again = [bool(a is b) for a, b in itertools.pairwise(plans)]
    apart = [float(abs(a - b).max()) for a, b in itertools.pairwise(means)]
    print(json.dumps({"kept": again, "apart": apart}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
