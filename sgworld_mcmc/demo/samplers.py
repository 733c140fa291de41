"""The samplers that the demo compares. Each of them returns a :class:`Run`, or several."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import NUTS
from numpyro.infer.util import constrain_fn, potential_energy
from scipy.optimize import minimize

from sgworld_mcmc import SGLD, SGWORLD
from sgworld_mcmc.demo.clock import measure
from sgworld_mcmc.demo.problems import Problem
from sgworld_mcmc.theory.variance_bias import relative_variance_error, time_per_epoch

__all__ = ["NUTSSampler", "Run", "laplace", "same_bias_step_size", "sgworld", "variants"]

CHAINS = 4


class Run(NamedTuple):
    """A finished run.

    Attributes
    ----------
    label
        Name of the row in the table.
    samples
        Dict of site to (chains, draws, ...) in constrained values.
    compile_seconds, run_seconds
        Wall-clock seconds, as :func:`sgworld_mcmc.demo.clock.measure` tells them apart.
    epochs
        Gradient evaluations of all chains, warm-up included, in units of one full-data gradient.
        The set-up of the minibatch rows (mode, curvature and pilot chains) does not count.
    mcmc
        The NumPyro ``MCMC`` object, or None.
    """

    label: str
    samples: dict[str, np.ndarray]
    compile_seconds: float
    run_seconds: float
    epochs: float
    mcmc: Any = None


def sgworld(problem: Problem, rng_key: jax.Array, num_samples: int) -> Run:
    """Run ``SGWORLD(model)`` with nothing set but the number of draws."""
    mcmc = SGWORLD(problem.model, num_samples=num_samples, num_chains=CHAINS, progress_bar=False)
    return _measured("SGWORLD, defaults", mcmc, problem, rng_key)


def variants(problem: Problem, rng_key: jax.Array, default: Run, num_samples: int) -> list[Run]:
    """Run minibatch schemes on equal terms, and full gradients.

    All use plain gradients, thirteen batches, the default run's coordinates, and the step size
    whose predicted error is 2 % for SGWORLD, so that nothing but the order of the batches differs.
    SGLD at the step of the same bias makes as many more epochs per draw as its step is smaller:
    all minibatch rows cover the same time between two draws.
    """
    scale = default.mcmc.bias_report().covariance
    batch_size = math.ceil(problem.size / 13)
    count = math.ceil(problem.size / batch_size)
    step = time_per_epoch(0.02, count, scheme="batches", noise="averaged") / count
    small = same_bias_step_size(step, count)
    longer = math.ceil(step / small)
    keys = jax.random.split(rng_key, 4)

    def run(label, kind, key, step_size, batch_size, epochs=1):
        mcmc = kind(
            problem.model,
            num_samples=num_samples,
            num_chains=CHAINS,
            progress_bar=False,
            gradient="plain",
            preconditioner=scale,
            step_size=step_size,
            batch_size=batch_size,
            steps_per_draw=epochs * math.ceil(problem.size / batch_size),
        )
        mcmc.sampler.share(default.mcmc.sampler)
        return _measured(label, mcmc, problem, key)

    label = f"SGLD, same bias (step / {step / small:.0f})"
    return [
        run("SGWORLD, plain gradients", SGWORLD, keys[0], step, batch_size),
        run("SGLD, same step size", SGLD, keys[1], step, batch_size),
        run(label, SGLD, keys[2], small, batch_size, longer),
        run("full-gradient Langevin", SGWORLD, keys[3], 1.0, problem.size),
    ]


def _measured(label: str, mcmc: Any, problem: Problem, rng_key: jax.Array) -> Run:
    with measure() as seconds:
        mcmc.run(rng_key, *problem.data)
        samples = jax.tree.map(np.asarray, mcmc.get_samples(group_by_chain=True))
    epochs = int(np.sum(mcmc.last_state.step)) / mcmc.last_state.order.shape[-1]
    return Run(label, samples, seconds.compile, seconds.run, epochs, mcmc)


def same_bias_step_size(step_size: float, num_batches: int) -> float:
    """Return the step size at which SGLD has the predicted error of SGWORLD at ``step_size``.

    It holds for plain gradients of a well-specified model (C0 = M) with averaged noise, in whitened
    coordinates (docs/theory.md, section 2.2).

    Examples
    --------
    >>> print(f"{same_bias_step_size(0.0744, 10):.4f}")   # T = 0.744: 2 % error
    0.0040
    """
    error = relative_variance_error(
        step_size, num_batches, num_batches, scheme="batches", noise="averaged"
    )
    time = time_per_epoch(error, num_batches, scheme="replacement", noise="averaged")
    return time / num_batches


class NUTSSampler:
    """Run NumPyro's NUTS kernel with four vectorized chains in a loop that is compiled once.

    ``numpyro.infer.MCMC`` compiles its loop anew for each warm-up and run, and does not return
    the gradient evaluations of the warm-up.

    Parameters
    ----------
    problem
        The problem to sample.
    chunk
        Number of transitions in one call of the compiled loop. The warm-up is one call.
    """

    def __init__(self, problem: Problem, chunk: int) -> None:
        self.problem, self.chunk = problem, chunk
        self.kernel = NUTS(problem.model)

        def transition(state, _):
            state = self.kernel.sample(state, problem.data, {})
            return state, (state.z, state.num_steps)

        self._loop = jax.jit(lambda state: jax.lax.scan(transition, state, length=chunk))

    def run(self, label: str, rng_key: jax.Array, num_samples: int) -> Run:
        """Warm up, then make ``num_samples`` draws (rounded up to whole chunks) of each chain."""
        with measure() as seconds:
            keys = jax.random.split(rng_key, CHAINS)
            state = self.kernel.init(keys, self.chunk, None, self.problem.data, {})
            state, (_, steps) = self._loop(state)
            total, parts = int(jnp.sum(steps)), []
            for _ in range(math.ceil(num_samples / self.chunk)):
                state, (z, steps) = self._loop(state)
                total, parts = total + int(jnp.sum(steps)), [*parts, z]
            z = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
            constrain = self.kernel.postprocess_fn(self.problem.data, {})
            draws = jax.tree.map(np.asarray, jax.vmap(jax.vmap(constrain))(z))
        samples = {site: np.swapaxes(value, 0, 1) for site, value in draws.items()}
        return Run(label, samples, seconds.compile, seconds.run, total)


def laplace(problem: Problem, rng_key: jax.Array, default: Run, num_samples: int) -> Run:
    """Draw independently from the Gaussian at the mode, in unconstrained coordinates.

    The names and shapes of the sites are taken from the default run. The search for the mode starts
    at zero.
    """
    model, data = problem.model, problem.data
    sites = jax.tree.map(lambda z: jnp.zeros_like(z[0]), default.mcmc.last_state.z)
    flat, unravel = ravel_pytree(sites)

    @jax.jit
    def value_and_grad(x):
        return jax.value_and_grad(energy)(x)

    def energy(x):
        return potential_energy(model, data, {}, unravel(x))

    def potential(x):
        value, gradient = value_and_grad(jnp.asarray(x, flat.dtype))
        return float(value), np.asarray(gradient, float)

    @jax.jit
    def constrain(draws):
        one = lambda x: constrain_fn(model, data, {}, unravel(x))  # noqa: E731
        return jax.vmap(jax.vmap(one))(draws)

    with measure() as seconds:
        found = minimize(potential, np.asarray(flat, float), jac=True, method="BFGS")
        curvature = jax.jit(jax.hessian(energy))(jnp.asarray(found.x, flat.dtype))
        curvature = np.asarray(curvature, float)
        # A Newton step follows, because BFGS stops when two values are equal in single precision.
        mode = found.x - np.linalg.solve(curvature, potential(found.x)[1])
        white = jax.random.normal(rng_key, (CHAINS, num_samples, flat.size))
        root = np.linalg.inv(np.linalg.cholesky(curvature))
        draws = jnp.asarray(mode + np.asarray(white, float) @ root, flat.dtype)
        samples = jax.tree.map(np.asarray, constrain(draws))
    # The Hessian costs about one gradient for each coordinate.
    epochs = found.njev + 1 + flat.size
    return Run("Laplace approximation", samples, seconds.compile, seconds.run, epochs)
