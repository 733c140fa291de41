"""Sample a regression whose rows stay in a file, and compare with the exact posterior.

python examples/streaming.py [--num-data 200000] [--dim 10] [--folder FOLDER]

The rows are written in pieces to two `.npy` files, with the sums of the normal equations, from
which the exact posterior follows without ever holding all rows. The sampler gets memory maps. With
`stream=True` it reads them again and again, in chunks; without that it would do so by itself once
they take more than a quarter of the free memory: try --num-data 50000000 (2 GB).
"""

import argparse
import tempfile
from pathlib import Path

import jax
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD

PIECE = 100_000
PRIOR_SD = 10.0


def model(X, y):
    """Linear regression with unit noise."""
    beta = numpyro.sample("beta", dist.Normal(0, PRIOR_SD).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("rows", len(y)):
        numpyro.sample("y", dist.Normal(X @ beta, 1.0), obs=y)


def write_rows(folder, seed, num_data, dim):
    """Write X.npy and y.npy piece by piece; return the exact posterior's mean and covariance."""
    rng = np.random.default_rng(seed)
    truth = rng.standard_normal(dim)
    files = [
        np.lib.format.open_memmap(folder / name, "w+", np.float32, shape)
        for name, shape in (("X.npy", (num_data, dim)), ("y.npy", (num_data,)))
    ]
    precision, weighted = np.eye(dim) / PRIOR_SD**2, np.zeros(dim)
    for start in range(0, num_data, PIECE):
        rows = min(PIECE, num_data - start)
        X = rng.standard_normal((rows, dim), dtype=np.float32)
        y = (X @ truth + rng.standard_normal(rows)).astype(np.float32)
        files[0][start : start + rows], files[1][start : start + rows] = X, y
        precision += X.T.astype(float) @ X
        weighted += X.T.astype(float) @ y
    for file in files:
        file.flush()
    covariance = np.linalg.inv(precision)
    return covariance @ weighted, covariance


def main(argv=None):
    """Sample from the files; return the errors of means, in sd, and the ratios of sd."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=200_000, help="rows")
    parser.add_argument("--dim", type=int, default=10, help="columns")
    parser.add_argument("--num-samples", type=int, default=1000, help="draws of each of 4 chains")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    options = parser.parse_args(argv)

    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        mean, covariance = write_rows(folder, options.seed, options.num_data, options.dim)
        X, y = (np.load(folder / name, mmap_mode="r") for name in ("X.npy", "y.npy"))
        print(f"{X.nbytes / 1e6:.0f} MB in {folder / 'X.npy'}")
        mcmc = SGWORLD(model, num_samples=options.num_samples, stream=True)
        mcmc.run(jax.random.key(options.seed), X, y)
        beta = np.asarray(mcmc.get_samples()["beta"], float)
        print(mcmc.bias_report())
    sd = np.sqrt(np.diag(covariance))
    errors, ratios = (beta.mean(0) - mean) / sd, beta.std(0) / sd
    print(f"errors of the means, in sd: {errors.round(3)}\nratios of the sd: {ratios.round(3)}")
    return errors, ratios


if __name__ == "__main__":
    main()
