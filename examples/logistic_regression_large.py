"""Sample a logistic regression with many rows, and compare with a Laplace approximation.

python examples/logistic_regression_large.py [--num-data 100000] [--dim 20]

With so many rows the posterior is close to Gaussian, so that the Laplace approximation is a
check of the sampler, which uses minibatches of 1000 rows: both should agree.
"""

import argparse
import time

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_mcmc import SGWORLD


def model(X, y=None):
    """Define a logistic regression with standard normal coefficients."""
    beta = numpyro.sample("beta", dist.Normal(0.0, 1.0).expand([X.shape[1]]).to_event(1))
    with numpyro.plate("data", X.shape[0]):
        numpyro.sample("y", dist.Bernoulli(logits=X @ beta), obs=y)


def simulate(rng_key, num_data, dim):
    """Simulate features and responses in float32."""
    keys = jax.random.split(rng_key, 3)
    X = jax.random.normal(keys[0], (num_data, dim))
    beta = jax.random.normal(keys[1], (dim,)) / jnp.sqrt(dim)
    y = jax.random.bernoulli(keys[2], jax.nn.sigmoid(X @ beta)).astype(X.dtype)
    return X, y


def laplace(X, y):
    """Find the mode by Newton's method; return it and the covariance there."""
    beta = jnp.zeros(X.shape[1])

    @jax.jit
    def newton(beta):
        p = jax.nn.sigmoid(X @ beta)
        hessian = X.T @ (X * (p * (1 - p))[:, None]) + jnp.eye(len(beta))
        return beta + jnp.linalg.solve(hessian, X.T @ (y - p) - beta), jnp.linalg.inv(hessian)

    for _ in range(10):
        beta, covariance = newton(beta)
    return np.asarray(beta), np.asarray(covariance)


def main(argv=None):
    """Sample, print both results, and return (mean differences in sd, sd ratios)."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=100_000, help="rows")
    parser.add_argument("--dim", type=int, default=20, help="features")
    parser.add_argument("--batch-size", type=int, default=1000, help="rows in a minibatch")
    parser.add_argument("--num-samples", type=int, default=200, help="draws of each chain")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    options = parser.parse_args(argv)

    data_key, run_key = jax.random.split(jax.random.key(options.seed))
    X, y = simulate(data_key, options.num_data, options.dim)
    batch_size = min(options.batch_size, options.num_data)
    mcmc = SGWORLD(model, num_samples=options.num_samples, num_warmup=20, batch_size=batch_size)
    start = time.perf_counter()
    mcmc.run(run_key, X, y)
    beta = np.asarray(mcmc.get_samples()["beta"], float)
    print(f"{len(beta)} draws in {time.perf_counter() - start:.1f} s, compilation included")

    mode, covariance = laplace(X, y)
    sd = np.sqrt(np.diag(covariance))
    difference, ratio = (beta.mean(0) - mode) / sd, beta.std(0, ddof=1) / sd
    print("coefficient   mean   Laplace   difference / sd   sd / Laplace sd")
    for j in range(options.dim):
        numbers = f"{beta[:, j].mean():7.3f} {mode[j]:8.3f} {difference[j]:15.3f} {ratio[j]:15.3f}"
        print(f"{j:11d} {numbers}")
    return difference, ratio


if __name__ == "__main__":
    main()
