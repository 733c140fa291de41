"""One run on several hosts: start this script in the same way on each of them.

    python examples/several_hosts.py --make X.npy y.npy    # writes an example's files first
    python examples/several_hosts.py X.npy y.npy           # under Slurm, which says who is who
    python examples/several_hosts.py X.npy y.npy --coordinator host0:1234 --processes 2 --process 0

Each process maps the files and reads its own rows only. The run is saved by the first process in
the folder ``run``; if a process is lost, start all of them again, as many as there are, with the
same ``--parts``: the run goes on.
"""

import argparse

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD, own_rows

# After so many seconds without a sign of life a process counts as lost.
LOST = 20


def model(X, y):
    beta = numpyro.sample("beta", dist.Normal(0, 3).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def make(files, rows, features):
    generator = np.random.default_rng(0)
    X = generator.standard_normal((rows, features), dtype=np.float32)
    y = generator.random(rows) < 1 / (1 + np.exp(X[:, 1] - X[:, 0]))
    np.save(files[0], X)
    np.save(files[1], y.astype(np.float32))


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs=2, metavar=("X.npy", "y.npy"))
    parser.add_argument("--make", action="store_true", help="write an example's files, and end")
    parser.add_argument("--rows", type=int, default=200_000, help="of these files")
    parser.add_argument("--features", type=int, default=20, help="of these files")
    parser.add_argument("--coordinator", help="address and port of the first process")
    parser.add_argument("--processes", type=int, help="how many there are")
    parser.add_argument("--process", type=int, help="the number of this one")
    parser.add_argument("--parts", type=int, help="data_shards: the same on any number of hosts")
    parser.add_argument("--chains", type=int, default=2)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--run", default="run", help="folder of the checkpoint")
    parser.add_argument("--every", type=float, default=60.0, help="seconds between checkpoints")
    parser.add_argument("--out", help="file for the draws")
    return parser.parse_args()


def main():
    given = arguments()
    if given.make:
        make(given.files, given.rows, given.features)
        return
    if given.processes != 1:
        jax.distributed.initialize(
            given.coordinator,
            given.processes,
            given.process,
            heartbeat_timeout_seconds=LOST,
            shutdown_timeout_seconds=LOST,
        )
    X, y = (np.load(name, mmap_mode="r") for name in given.files)
    own = own_rows(len(y))
    mcmc = SGWORLD(
        model,
        num_chains=given.chains,
        num_samples=given.draws,
        batch_size=given.batch_size,
        devices=jax.devices(),
        data_shards=given.parts,
    )
    key = jax.random.key(0)
    mcmc.run(key, X[own], y[own], checkpoint=given.run, every=given.every, resume=True)
    draws = mcmc.get_samples(group_by_chain=True)
    if jax.process_index() == 0:
        mcmc.print_summary()
        if given.out:
            np.savez(given.out, **draws)
    print(f"process {jax.process_index()} of {jax.process_count()}: done", flush=True)


if __name__ == "__main__":
    main()
