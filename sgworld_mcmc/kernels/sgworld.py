"""Stochastic gradient without-replacement Langevin dynamics. Each step is one epoch.

The algorithm is that of Adhikari et al., arXiv:2306.03521.
"""

from collections.abc import Callable
from typing import TypeAlias

import jax
from blackjax.base import SamplingAlgorithm

from sgworld_mcmc.checks import check_positive
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.kernels.epoch import (
    EpochInfo,
    EpochState,
    Schedule,
    make_feed,
    run_epoch,
    start,
)
from sgworld_mcmc.members import ORDERS, WITHOUT_REPLACEMENT, choose_integrator, resolve
from sgworld_mcmc.protocols import ArrayLikeTree, Feed, Integrator, Order, PRNGKey

__all__ = ["SGWORLDInfo", "SGWORLDState", "as_top_level_api", "build_kernel", "init"]

SGWORLDState: TypeAlias = EpochState
SGWORLDInfo: TypeAlias = EpochInfo


def init(
    position: ArrayLikeTree,
    rng_key: PRNGKey,
    num_batches: int,
    *,
    order: str | Order = "batches",
    noise: str = "independent",
    integrator: Integrator | None = None,
) -> SGWORLDState:
    """Return the state at ``position``; ``rng_key`` decides the first epoch's order."""
    order_key, noise_key = jax.random.split(rng_key)
    motion = choose_integrator(noise, integrator).init(noise_key, position)
    return start(motion, order_key, resolve("order", order, ORDERS), num_batches)


def build_kernel(
    order: str | Order = "batches",
    noise: str = "independent",
    integrator: Integrator | None = None,
) -> Callable:
    """Build the SGWORLD kernel, whose step is one epoch.

    Parameters
    ----------
    order
        See :mod:`sgworld_mcmc.data.orders`. For comparisons ``"replacement"`` is accepted too: an
        epoch is then M steps with batches drawn independently.
    noise
        ``"independent"`` or ``"averaged"``.
    integrator
        An integrator of your own in place of ``noise`` (docs/add_a_sampler.md).

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, batches, step_size, temperature=1.0)``, which
        returns (:class:`~sgworld_mcmc.kernels.epoch.EpochState`,
        :class:`~sgworld_mcmc.kernels.epoch.EpochInfo`). The batches, a feed, come from
        :func:`sgworld_mcmc.data.fixed_partition.partition`; for ``order="examples"`` it is a
        :class:`~sgworld_mcmc.data.dealt_rows.DealtRows`. The feed is an argument, so that
        ``jax.jit`` of the kernel does not compile the data in.
    """
    order = resolve("order", order, ORDERS)
    integrator = choose_integrator(noise, integrator)

    def kernel(
        rng_key: PRNGKey,
        state: SGWORLDState,
        grad_estimator: Callable,
        batches: Feed,
        step_size: Schedule,
        temperature: Schedule = 1.0,
    ) -> tuple[SGWORLDState, SGWORLDInfo]:
        return run_epoch(
            jax.random.split(rng_key, 3),
            state,
            grad_estimator,
            batches,
            order=order,
            integrator=integrator,
            step_size=step_size,
            temperature=temperature,
        )

    return kernel


def as_top_level_api(
    grad_estimator: Callable,
    data: ArrayLikeTree,
    batch_size: int,
    step_size: Schedule,
    order: str | Order = "batches",
    noise: str = "independent",
    temperature: Schedule = 1.0,
    *,
    integrator: Integrator | None = None,
    partition_key: PRNGKey | None = None,
) -> SamplingAlgorithm:
    """Make stochastic gradient without-replacement Langevin dynamics in BlackJAX's form.

    Each step is an epoch: M = ceil(N / batch_size) Langevin steps
    theta <- theta + h g_b(theta) + sqrt(2 h tau) xi in which every row of the data is used exactly
    once. The noise of the batches cancels within the epoch to leading order, so that the relative
    error of the posterior variance from it falls from h C0 / 2 (SGLD) to (h C0 / 2) f(hM), with
    f(T) = T^2/12 for small T in whitened coordinates (docs/theory.md, section 2.2).

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``, a mean over the rows of the minibatch, such as
        ``blackjax.sgmcmc.gradients.grad_estimator`` and ``control_variates`` return.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, 1 to N. Batches differ in size by at most one row, and
        the mean of their gradients is the full gradient to rounding error for every N.
    step_size
        Step size h > 0, or a function of the number of minibatch steps made, evaluated once an
        epoch.
    order
        ``"batches"`` (default: a fixed random partition in fresh order; the fastest, since
        batches are contiguous), ``"examples"``, ``"symmetric"`` (use every second state) or
        ``"once"``: see :mod:`sgworld_mcmc.data.orders`.
    noise
        ``"independent"`` (default, Euler-Maruyama) or ``"averaged"`` (no Euler error).
    temperature
        Temperature tau >= 0, a number or a schedule; 1 samples the posterior, 0 is SGD without
        replacement.
    integrator
        An integrator of your own in place of ``noise`` (docs/add_a_sampler.md).
    partition_key
        Random key of the fixed partition, which belongs to the algorithm rather than to a chain;
        by default ``jax.random.key(0)``, so that all chains share one partition.

    Returns
    -------
    blackjax.base.SamplingAlgorithm
        ``init(position, rng_key)`` and ``step(rng_key, state) -> (state, info)``, which
        ``blackjax.util.run_inference_algorithm`` runs as it stands.

    Raises
    ------
    ValueError, TypeError
        If order or noise is misspelt, the batch size is not an integer in [1, N], the step size is
        not positive, or arrays differ in length.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sgworld_mcmc as sg
    >>> from blackjax.sgmcmc.gradients import grad_estimator
    >>> from blackjax.util import run_inference_algorithm
    >>> y = 1 + jax.random.normal(jax.random.key(0), (1000,))
    >>> estimator = grad_estimator(lambda mu: 0.0, lambda mu, y: -((y - mu) ** 2) / 2, 1000)
    >>> alg = sg.sgworld(estimator, y, batch_size=100, step_size=5e-5)
    >>> _, (states, infos) = run_inference_algorithm(
    ...     jax.random.key(1), alg, num_steps=20_000, initial_position=y.mean())
    >>> bool(abs(states.position.std() * 1000**0.5 - 1) < 0.1)
    True
    """
    order = resolve("order", order, ORDERS, WITHOUT_REPLACEMENT)
    if not callable(step_size):
        check_positive("step_size", step_size)
    if not callable(temperature):
        check_positive("temperature", temperature, zero=True)
    kernel = build_kernel(order, noise, integrator)
    feed = make_feed(
        partition_key, data, batch_size, DealtRows if order.redeals else FixedPartition
    )

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey) -> SGWORLDState:
        return init(
            position, rng_key, feed.num_batches, order=order, noise=noise, integrator=integrator
        )

    def step_fn(rng_key: PRNGKey, state: SGWORLDState) -> tuple[SGWORLDState, SGWORLDInfo]:
        return kernel(rng_key, state, grad_estimator, feed, step_size, temperature)

    return SamplingAlgorithm(init_fn, step_fn)
