"""Stochastic gradient without-replacement Langevin dynamics: one epoch a step.

Adhikari et al., arXiv:2306.03521.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.base import SamplingAlgorithm
from blackjax.types import ArrayLikeTree, ArrayTree, PRNGKey

from sgworld_mcmc.checks import check_choice, check_data, check_integer, check_positive
from sgworld_mcmc.data.batches import (
    Batches,
    RowBatches,
    num_batches,
    num_examples,
    partition,
    partition_rows,
    split_rows,
)
from sgworld_mcmc.data.orders import ORDERS, WITHOUT_REPLACEMENT, initial_order, next_order
from sgworld_mcmc.integrators.langevin import NOISES, Schedule, initial_noise, value_at
from sgworld_mcmc.sampling.sweep import sweep

__all__ = ["SGWORLDInfo", "SGWORLDState", "as_top_level_api", "build_kernel", "init"]


class SGWORLDState(NamedTuple):
    """State of an SGWORLD chain.

    Attributes
    ----------
    position
        Pytree of floating-point arrays.
    noise
        The last step's standard normal numbers with averaged noise, ``()`` with independent.
    order
        (M,) int32: the order in which the next epoch visits the batches.
    step
        Number of minibatch steps made, int32: the argument of step-size schedules.
    """

    position: ArrayTree
    noise: ArrayTree
    order: jax.Array
    step: jax.Array


class SGWORLDInfo(NamedTuple):
    """What happened in an epoch.

    Attributes
    ----------
    step_size
        The step size of this epoch's steps.
    finite_steps
        Number of steps made, M unless the chain diverged, int32.
    diverging
        True if a step led to NaN or infinity; the position is then the last finite one.
    """

    step_size: jax.Array
    finite_steps: jax.Array
    diverging: jax.Array


def init(
    position: ArrayLikeTree,
    rng_key: PRNGKey,
    num_batches: int,
    *,
    order: str = "batches",
    noise: str = "independent",
) -> SGWORLDState:
    """The state at ``position``, with the order of the first epoch drawn from ``rng_key``."""
    position = jax.tree.map(jnp.asarray, position)
    order_key, noise_key = jax.random.split(rng_key)
    return SGWORLDState(
        position,
        initial_noise(noise_key, position, noise),
        initial_order(order_key, order, num_batches),
        jnp.zeros((), jnp.int32),
    )


def build_kernel(order: str = "batches", noise: str = "independent") -> Callable:
    """Build the SGWORLD kernel, whose step is one epoch.

    Parameters
    ----------
    order
        See :mod:`sgworld_mcmc.data.orders`. ``"replacement"`` is accepted too, for comparisons: M
        steps with batches drawn independently.
    noise
        ``"independent"`` or ``"averaged"``.

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, batches, step_size, temperature=1.0)``, which
        returns (:class:`SGWORLDState`, :class:`SGWORLDInfo`). ``batches`` comes from
        :func:`sgworld_mcmc.data.batches.partition`; for ``order="examples"`` it is a
        :class:`~sgworld_mcmc.data.batches.RowBatches`. It is an argument, so that ``jax.jit`` of
        the kernel does not compile the data in.
    """
    check_choice("order", order, ORDERS)
    check_choice("noise", noise, NOISES)

    def kernel(
        rng_key: PRNGKey,
        state: SGWORLDState,
        grad_estimator: Callable,
        batches: Batches | RowBatches,
        step_size: Schedule,
        temperature: Schedule = 1.0,
    ) -> tuple[SGWORLDState, SGWORLDInfo]:
        count = num_batches(batches)
        rows_key, noise_key, order_key = jax.random.split(rng_key, 3)
        if order == "examples":
            rows = jax.random.permutation(rows_key, num_examples(batches))
            batches = RowBatches(batches.data, split_rows(rows, count))
        h = value_at(step_size, state.step)
        result = sweep(
            noise_key,
            state.position,
            state.noise,
            grad_estimator,
            batches,
            state.order,
            h,
            value_at(temperature, state.step),
            noise,
        )
        step = state.step + count
        following = next_order(order_key, order, state.order, step // count)
        info = SGWORLDInfo(jnp.asarray(h), result.finite_steps, result.finite_steps < count)
        return SGWORLDState(result.position, result.noise, following, step), info

    return kernel


def as_top_level_api(
    grad_estimator: Callable,
    data: ArrayLikeTree,
    batch_size: int,
    step_size: Schedule,
    order: str = "batches",
    noise: str = "independent",
    temperature: Schedule = 1.0,
    *,
    partition_key: PRNGKey | None = None,
) -> SamplingAlgorithm:
    """Stochastic gradient without-replacement Langevin dynamics in BlackJAX's form.

    Each step is an epoch: M = ceil(N / batch_size) Langevin steps
    theta <- theta + h g_b(theta) + sqrt(2 h tau) xi in which every row of the data is used exactly
    once. The noise of the batches cancels within the epoch to leading order, so that the relative
    error of the posterior variance from it falls from h C0 / 2 (SGLD) to (h C0 / 2) f(hM), with
    f(T) = T^2/12 for small T in whitened coordinates (docs/theory.md, section 2.2).

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``, a mean over the rows of the minibatch, as
        ``blackjax.sgmcmc.gradients.grad_estimator`` and ``control_variates`` return.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, 1 to N. Batches differ in size by at most one row, and
        the mean of their gradients is the full gradient to rounding error for every N.
    step_size
        h > 0, or a function of the number of minibatch steps made, evaluated once an epoch.
    order
        ``"batches"`` (default: a fixed random partition in fresh order; the fastest, since
        batches are contiguous), ``"examples"``, ``"symmetric"`` (use every second state) or
        ``"once"``: see :mod:`sgworld_mcmc.data.orders`.
    noise
        ``"independent"`` (default, Euler-Maruyama) or ``"averaged"`` (no Euler error).
    temperature
        tau >= 0, number or schedule; 1 samples the posterior, 0 is SGD without replacement.
    partition_key
        Decides the fixed partition, which belongs to the algorithm rather than to a chain; by
        default ``jax.random.key(0)``, so that all chains share one partition.

    Returns
    -------
    blackjax.base.SamplingAlgorithm
        ``init(position, rng_key)`` and ``step(rng_key, state) -> (state, info)``, which
        ``blackjax.util.run_inference_algorithm`` runs as it stands.

    Raises
    ------
    ValueError, TypeError
        Misspelt order or noise, batch size not an integer in [1, N], step size not positive,
        arrays of different length.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sgworld_mcmc as sg
    >>> from blackjax.sgmcmc.gradients import grad_estimator
    >>> from blackjax.util import run_inference_algorithm
    >>> y = 1 + jax.random.normal(jax.random.key(0), (1000,))
    >>> estimator = grad_estimator(lambda mu: 0.0, lambda mu, y: -((y - mu) ** 2) / 2, 1000)
    >>> alg = sg.sgworld(estimator, y, batch_size=100, step_size=5e-5)
    >>> _, (states, infos) = run_inference_algorithm(
    ...     jax.random.key(1), alg, num_steps=2000, initial_position=y.mean())
    >>> bool(abs(states.position.std() * 1000**0.5 - 1) < 0.1)
    True
    """
    check_choice("order", order, WITHOUT_REPLACEMENT)
    if not callable(step_size):
        check_positive("step_size", step_size)
    if not callable(temperature):
        check_positive("temperature", temperature, zero=True)
    kernel = build_kernel(order, noise)
    size = check_data(data)
    check_integer("batch_size", batch_size, 1, size)
    partition_key = jax.random.key(0) if partition_key is None else partition_key
    if order == "examples":
        rows = partition_rows(partition_key, size, batch_size)
        batches = RowBatches(jax.tree.map(jnp.asarray, data), rows)
    else:
        batches = partition(partition_key, data, batch_size)
    count = num_batches(batches)

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey) -> SGWORLDState:
        return init(position, rng_key, count, order=order, noise=noise)

    def step_fn(rng_key: PRNGKey, state: SGWORLDState) -> tuple[SGWORLDState, SGWORLDInfo]:
        return kernel(rng_key, state, grad_estimator, batches, step_size, temperature)

    return SamplingAlgorithm(init_fn, step_fn)
