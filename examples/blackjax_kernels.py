"""Run the kernels in BlackJAX's form: SGWORLD in BlackJAX's loop, SGLD in a scan of your own.

python examples/blackjax_kernels.py [--num-data 1000] [--epochs 5000]

The parameter is the mean of normal data, whose posterior is N(mean(y), 1/N). At the same step size
the noise of the minibatches makes SGLD's draws too wide; SGWORLD cancels it within each epoch.
"""

import argparse

import jax
import jax.numpy as jnp
from blackjax.sgmcmc.gradients import grad_estimator
from blackjax.util import run_inference_algorithm

import sgworld_mcmc as sg
from sgworld_mcmc.theory.variance_bias import relative_variance_error


def log_prior(mu):
    """Return the log density of a flat prior."""
    return 0.0 * mu


def log_likelihood(mu, y):
    """Return the log likelihood of one observation."""
    return -((y - mu) ** 2) / 2


def run_sgworld(rng_key, estimator, y, batch_size, step_size, epochs):
    """Return positions at the ends of epochs; BlackJAX's own loop runs the algorithm unchanged."""
    algorithm = sg.sgworld(estimator, y, batch_size, step_size, noise="averaged")
    _, (states, infos) = run_inference_algorithm(
        rng_key, algorithm, num_steps=epochs, initial_position=jnp.mean(y)
    )
    assert not bool(infos.diverging.any())
    return states.position


def run_sgld(rng_key, estimator, y, batch_size, step_size, epochs):
    """Return positions after every N / B steps, with minibatches that we draw ourselves."""
    algorithm = sg.sgld(estimator, noise="averaged")
    init_key, loop_key = jax.random.split(rng_key)

    def step(state, key):
        rows_key, step_key = jax.random.split(key)
        rows = jax.random.randint(rows_key, (batch_size,), 0, len(y))
        return algorithm.step(step_key, state, y[rows], step_size)[0], None

    def epoch(state, key):
        state, _ = jax.lax.scan(step, state, jax.random.split(key, len(y) // batch_size))
        return state, state.position

    start = algorithm.init(jnp.mean(y), init_key)
    return jax.lax.scan(epoch, start, jax.random.split(loop_key, epochs))[1]


def main(argv=None):
    """Print and return the two ratios of sampled to exact standard deviations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num-data", type=int, default=1000, help="rows")
    parser.add_argument("--batch-size", type=int, default=10, help="rows in a minibatch")
    parser.add_argument("--epochs", type=int, default=5000, help="epochs, one draw each")
    parser.add_argument("--seed", type=int, default=0, help="seed of data and samplers")
    options = parser.parse_args(argv)
    size, batch_size = options.num_data, options.batch_size

    keys = jax.random.split(jax.random.key(options.seed), 3)
    y = 1.0 + jax.random.normal(keys[0], (size,))
    estimator = grad_estimator(log_prior, log_likelihood, size)
    # An epoch takes half a relaxation time, since the posterior's curvature is N.
    count = size // batch_size
    whitened = 0.5 / count
    ratios = []
    for name, sampler, scheme, key in (
        ("SGWORLD", run_sgworld, "batches", keys[1]),
        ("SGLD", run_sgld, "replacement", keys[2]),
    ):
        draws = sampler(key, estimator, y, batch_size, whitened / size, options.epochs)
        ratios.append(float(jnp.std(draws) * jnp.sqrt(size)))
        error = relative_variance_error(whitened, count, count, scheme=scheme, noise="averaged")
        predicted = (1 + error) ** 0.5
        print(f"{name:8} sd / exact sd = {ratios[-1]:.3f} (predicted {predicted:.3f})")
    return tuple(ratios)


if __name__ == "__main__":
    main()
