"""Kinetic (underdamped) Langevin dynamics without replacement. Each step is one epoch."""

from collections.abc import Callable
from typing import TypeAlias

from blackjax.base import SamplingAlgorithm

from sgworld_mcmc.integrators.ubu import UBU
from sgworld_mcmc.kernels import sgworld
from sgworld_mcmc.kernels.epoch import EpochInfo, EpochState, Schedule
from sgworld_mcmc.protocols import ArrayLikeTree, Order, PRNGKey

__all__ = ["UBUInfo", "UBUState", "as_top_level_api", "build_kernel", "init"]

UBUState: TypeAlias = EpochState
UBUInfo: TypeAlias = EpochInfo


def init(
    position: ArrayLikeTree,
    rng_key: PRNGKey,
    num_batches: int,
    *,
    order: str | Order = "symmetric",
) -> UBUState:
    """Return the state at ``position`` with a random velocity, as of temperature one."""
    return sgworld.init(position, rng_key, num_batches, order=order, integrator=UBU())


def build_kernel(order: str | Order = "symmetric", friction: float = 2.0) -> Callable:
    """Build the kernel, whose step is one epoch.

    Parameters
    ----------
    order, friction
        As for :func:`sgworld_mcmc.ubu`.

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, batches, step_size, temperature=1.0)``, as of
        :func:`sgworld_mcmc.kernels.sgworld.build_kernel`.
    """
    return sgworld.build_kernel(order, integrator=UBU(friction))


def as_top_level_api(
    grad_estimator: Callable,
    data: ArrayLikeTree,
    batch_size: int,
    step_size: Schedule,
    friction: float = 2.0,
    order: str | Order = "symmetric",
    temperature: Schedule = 1.0,
    *,
    partition_key: PRNGKey | None = None,
) -> SamplingAlgorithm:
    """Make kinetic Langevin dynamics without replacement in BlackJAX's form.

    dx = v dt, dv = grad log p(x) dt - gamma v dt + sqrt(2 gamma tau) dW by the integrator UBU
    (:class:`sgworld_mcmc.integrators.ubu.UBU`), with one minibatch in a step. For a posterior with
    condition number kappa it needs of the order of sqrt(kappa) epochs for an effective draw, where
    overdamped dynamics needs kappa; with replacement the noise of the batches takes that gain away
    (docs/theory.md, section 5; symmetric minibatch splitting: Paulin et al., arXiv:2410.19780).

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``, a mean over the rows of the minibatch, such as
        ``blackjax.sgmcmc.gradients.grad_estimator`` returns.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, 1 to N.
    step_size
        Step size h > 0, a time: it is stable below 2 / sqrt(lambda) for the largest curvature
        lambda. Or a function of the number of minibatch steps made, evaluated once an epoch.
    friction
        Friction gamma > 0: a mode of curvature lambda relaxes fastest at 2 sqrt(lambda), so that
        the default is that of unit curvature.
    order
        ``"symmetric"`` (default: the batches, then the same backward, then a fresh order; use every
        second state), ``"batches"``, ``"examples"`` or ``"once"``: see
        :mod:`sgworld_mcmc.data.orders`.
    temperature
        Temperature tau >= 0, a number or a schedule.
    partition_key
        Random key of the fixed partition, by default ``jax.random.key(0)``.

    Returns
    -------
    blackjax.base.SamplingAlgorithm
        ``init(position, rng_key)`` and ``step(rng_key, state) -> (state, info)``; the state has a
        ``position`` and a ``velocity``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sgworld_mcmc as sg
    >>> from blackjax.sgmcmc.gradients import grad_estimator
    >>> from blackjax.util import run_inference_algorithm
    >>> y = 1 + jax.random.normal(jax.random.key(0), (1000,))
    >>> estimator = grad_estimator(lambda mu: 0.0, lambda mu, y: -((y - mu) ** 2) / 2, 1000)
    >>> alg = sg.ubu(estimator, y, batch_size=100, step_size=0.003, friction=60.0)
    >>> _, (states, infos) = run_inference_algorithm(
    ...     jax.random.key(1), alg, num_steps=20_000, initial_position=y.mean())
    >>> bool(abs(states.position[1::2].std() * 1000**0.5 - 1) < 0.1)
    True
    """
    return sgworld.as_top_level_api(
        grad_estimator,
        data,
        batch_size,
        step_size,
        order,
        temperature=temperature,
        integrator=UBU(friction),
        partition_key=partition_key,
    )
