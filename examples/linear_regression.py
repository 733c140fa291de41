"""Compare SGWORLD's draws with the exact posterior of a linear regression with unknown noise.

python examples/linear_regression.py [--num-data 2000] [--dim 5]
"""

import argparse

import jax

from sgworld_mcmc import SGWORLD, exact


def main(argv=None):
    """Sample a simulated regression, print the errors, and return the comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=2000, help="rows")
    parser.add_argument("--dim", type=int, default=5, help="features")
    parser.add_argument("--num-samples", type=int, default=1000, help="draws of each chain")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and sampler")
    options = parser.parse_args(argv)

    data_key, run_key = jax.random.split(jax.random.key(options.seed))
    # `posterior.model` is an ordinary NumPyro model and `posterior.data` its arguments X and y;
    # `LinearRegressionUnknownNoise.from_data(X, y)` does the same for your own arrays.
    posterior = exact.LinearRegressionUnknownNoise(
        data_key, options.num_data, options.dim, correlation=0.5
    )
    mcmc = SGWORLD(posterior.model, num_samples=options.num_samples)
    mcmc.run(run_key, *posterior.data)
    mcmc.print_summary()
    comparison = posterior.compare(mcmc)
    print(comparison)
    return comparison


if __name__ == "__main__":
    main()
