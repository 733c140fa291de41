"""Gaussian approximation at the mode, and importance sampling from it, in double precision.

The first is a contender of the speed benchmark. The second gives reference moments if the posterior
is not far from the proposal, which the Pareto k-hat shows.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro.infer import init_to_median
from numpyro.infer.util import initialize_model
from scipy.optimize import minimize
from scipy.stats import genpareto

from sgworld_benchmarks.accuracy.problem import Moments, Problem
from sgworld_mcmc.diagnostics import flatten_scalars

__all__ = ["Laplace", "draws_of", "fit", "flat_model", "importance_moments"]

# An evaluation of several points at once may hold this many values: 160 MB in double precision.
MAX_VALUES = 20_000_000
NEWTON_STEPS = 5


class FlatModel(NamedTuple):
    """A model as functions of a flat unconstrained position and of its array arguments.

    Attributes
    ----------
    start
        (D,) starting point.
    potential, constrain
        ``potential(flat, arrays)`` returns -log density with Jacobians, ``constrain(flat, arrays)``
        the dict of constrained values.
    arrays
        The array arguments, which are passed so that compiled code does not hold them.
    """

    start: jax.Array
    potential: Callable
    constrain: Callable
    arrays: tuple[Any, ...]


class Laplace(NamedTuple):
    """Mode (D,) and lower Cholesky factor (D, D) of the covariance of the approximation."""

    model: FlatModel
    mode: np.ndarray
    root: np.ndarray


def flat_model(problem: Problem) -> FlatModel:
    """Flatten a problem's model, in the precision that JAX has at the time of the call."""
    info = initialize_model(
        jax.random.key(0),
        problem.model,
        model_args=problem.data,
        dynamic_args=True,
        init_strategy=init_to_median,
        validate_grad=False,
    )
    start, unravel = ravel_pytree(info.param_info.z)
    arrays = tuple(jnp.asarray(x) for x in problem.arrays)

    def potential(flat, arrays):
        return info.potential_fn(*problem.arguments(arrays))(unravel(flat))

    def constrain(flat, arrays):
        return info.postprocess_fn(*problem.arguments(arrays))(unravel(flat))

    return FlatModel(start, potential, constrain, arrays)


def fit(problem: Problem) -> Laplace:
    """Find the mode by L-BFGS and Newton steps, and the curvature there.

    Raises
    ------
    ValueError
        If the Hessian at the point found is not positive definite.
    """
    with jax.enable_x64(True):
        model = flat_model(problem)
        value_and_grad = jax.jit(jax.value_and_grad(model.potential))
        hessian = jax.jit(partial(_hessian, model.potential, _batch(problem.size)))

        def objective(x):
            value, gradient = value_and_grad(jnp.asarray(x), model.arrays)
            return float(value), np.asarray(gradient)

        found = minimize(
            objective,
            np.asarray(model.start),
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000},
        )
        mode = found.x
        for _ in range(NEWTON_STEPS):
            curvature = np.asarray(hessian(jnp.asarray(mode), model.arrays))
            try:
                lower = np.linalg.cholesky(curvature)
            except np.linalg.LinAlgError:
                raise ValueError("The Hessian at the mode is not positive definite.") from None
            step = np.linalg.solve(curvature, objective(mode)[1])
            mode = mode - step
            if np.linalg.norm(lower.T @ step) < 1e-4:  # in units of the posterior's sd
                break
    return Laplace(model, mode, np.linalg.inv(lower).T)


def draws_of(laplace: Laplace, rng_key: jax.Array, draws: int) -> dict[str, np.ndarray]:
    """Return (1, draws, ...) independent constrained draws of the approximation."""
    with jax.enable_x64(True):
        flat = laplace.mode + _standard_normal(rng_key, draws, len(laplace.mode)) @ laplace.root.T
        samples = _constrain(laplace.model, flat)
    return {site: value[None] for site, value in samples.items()}


def importance_moments(
    laplace: Laplace, problem: Problem, rng_key: jax.Array, draws: int, df: float | None = None
) -> tuple[Moments, float]:
    """Return moments of the posterior by Pareto-smoothed importance sampling, and k-hat.

    Parameters
    ----------
    laplace
        The proposal.
    draws
        Number of proposals.
    df
        Degrees of freedom of a multivariate Student-t proposal; None for a Gaussian one. Heavier
        tails serve skewed posteriors of few dimensions.

    Notes
    -----
    Vehtari et al. (2024), Pareto smoothed importance sampling, JMLR 25(72): errors can be relied
    on for k-hat below 0.7. The error of a mean is sqrt(sum w^2 (x - mean)^2).
    """
    normal_key, scale_key = jax.random.split(rng_key)
    with jax.enable_x64(True):
        z = _standard_normal(normal_key, draws, len(laplace.mode))
        if df is not None:
            chi2 = 2 * np.asarray(jax.random.gamma(scale_key, df / 2, (draws, 1), jnp.float64))
            z = z / np.sqrt(chi2 / df)
        flat = laplace.mode + z @ laplace.root.T
        batch = _divisor(draws, _batch(problem.size))
        evaluate = jax.jit(
            lambda flat, arrays: jax.lax.map(
                lambda x: laplace.model.potential(x, arrays), flat, batch_size=batch
            )
        )
        target = -np.asarray(evaluate(jnp.asarray(flat), laplace.model.arrays))
        samples = _constrain(laplace.model, flat)
    squares = np.sum(z**2, 1)
    dimension = len(laplace.mode)
    proposal = -squares / 2 if df is None else -(df + dimension) / 2 * np.log1p(squares / df)
    weights, k_hat = _smoothed(target - proposal)
    scalars = flatten_scalars({site: samples[site] for site in problem.sites}, chain_axes=1)
    columns = np.array([_weighted(values, weights) for values in scalars.values()]).T
    return Moments(tuple(scalars), *columns), k_hat


def _batch(size):
    return int(max(1, min(256, MAX_VALUES // size)))


def _divisor(count, batch):
    """Return at most ``batch``, a divisor of ``count`` if one is near.

    A remainder would need a compiled program of its own.
    """
    batch = min(count, batch)
    return next((b for b in range(batch, batch // 2, -1) if count % b == 0), batch)


def _hessian(potential, batch, flat, arrays):
    """Return the (D, D) Hessian, a few columns at a time so that memory stays bounded."""
    gradient = jax.grad(potential)
    column = lambda v: jax.jvp(lambda x: gradient(x, arrays), (flat,), (v,))[1]  # noqa: E731
    basis = jnp.eye(len(flat), dtype=flat.dtype)
    matrix = jax.lax.map(column, basis, batch_size=_divisor(len(flat), batch))
    return (matrix + matrix.T) / 2


def _standard_normal(rng_key, draws, dimension):
    return np.asarray(jax.random.normal(rng_key, (draws, dimension), jnp.float64))


def _constrain(model, flat):
    function = jax.jit(jax.vmap(model.constrain, in_axes=(0, None)))
    return jax.tree.map(np.asarray, function(jnp.asarray(flat), model.arrays))


def _smoothed(log_weights):
    """Return normalised weights, the largest replaced by quantiles of a fitted Pareto tail."""
    weights = np.exp(log_weights - log_weights.max())
    count = len(weights)
    order = np.argsort(weights)
    tail = order[-int(min(0.2 * count, 3 * np.sqrt(count))) :]
    cut = weights[order[-len(tail) - 1]]
    k_hat, _, scale = genpareto.fit(weights[tail] - cut, floc=0)
    quantiles = genpareto.ppf((np.arange(len(tail)) + 0.5) / len(tail), k_hat, scale=scale)
    weights[tail] = np.minimum(cut + quantiles, weights.max())
    return weights / weights.sum(), float(k_hat)


def _weighted(values, weights):
    """Return mean, sd, their standard errors and effective sample size of weighted draws (n,)."""
    mean = np.sum(weights * values)
    deviation = values - mean
    variance = np.sum(weights * deviation**2)
    sd = np.sqrt(variance)
    if sd <= 1e-6 * abs(mean):
        return mean, 0.0, 0.0, 0.0, np.inf
    mean_se = np.sqrt(np.sum(weights**2 * deviation**2))
    variance_se = np.sqrt(np.sum(weights**2 * (deviation**2 - variance) ** 2))
    return mean, sd, mean_se, variance_se / (2 * sd), (sd / mean_se) ** 2
