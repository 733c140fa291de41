"""Stochastic gradient descent with momentum and weight decay. Each step is one epoch."""

from collections.abc import Callable
from typing import TypeAlias

import jax
from blackjax.base import SamplingAlgorithm

from sgworld_mcmc.checks import check_positive
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.independent_rows import IndependentRows
from sgworld_mcmc.integrators.momentum import Momentum
from sgworld_mcmc.kernels.epoch import (
    EpochInfo,
    EpochState,
    Schedule,
    make_feed,
    run_epoch,
    start,
)
from sgworld_mcmc.members import ORDERS, resolve
from sgworld_mcmc.protocols import ArrayLikeTree, Feed, Order, PRNGKey

__all__ = ["SGDInfo", "SGDState", "as_top_level_api", "build_kernel", "init"]

SGDState: TypeAlias = EpochState
SGDInfo: TypeAlias = EpochInfo


def init(
    position: ArrayLikeTree, rng_key: PRNGKey, num_batches: int, *, order: str | Order = "batches"
) -> SGDState:
    """Return the state at rest at ``position``; ``rng_key`` decides the first epoch's order."""
    motion = Momentum().init(None, position)
    return start(motion, rng_key, resolve("order", order, ORDERS), num_batches)


def build_kernel(order: str | Order = "batches") -> Callable:
    """Build the SGD kernel, whose step is one epoch of M minibatch steps.

    Parameters
    ----------
    order
        See :mod:`sgworld_mcmc.data.orders`. What ``"replacement"`` draws depends on the feed: from
        a :class:`~sgworld_mcmc.data.fixed_partition.FixedPartition`, its batches; from
        :class:`~sgworld_mcmc.data.independent_rows.IndependentRows`, every row of every batch
        independently, so that a row can repeat within a batch and the covariance of the batch
        gradient is exactly 1/B of that of the examples. There are M = ceil(N / B) batches an epoch,
        of N / M rows on average: fewer than B where B does not divide N.

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, batches, learning_rate, momentum=0.0,
        weight_decay=0.0)``, which returns (:class:`~sgworld_mcmc.kernels.epoch.EpochState`,
        :class:`~sgworld_mcmc.kernels.epoch.EpochInfo`). All arguments but the estimator may be
        traced. For ``order="examples"`` the feed is a
        :class:`~sgworld_mcmc.data.dealt_rows.DealtRows`.
    """
    order = resolve("order", order, ORDERS)

    def kernel(
        rng_key: PRNGKey,
        state: SGDState,
        grad_estimator: Callable,
        batches: Feed,
        learning_rate: Schedule,
        momentum: jax.Array | float = 0.0,
        weight_decay: jax.Array | float = 0.0,
    ) -> tuple[SGDState, SGDInfo]:
        def ascent(position, rows):
            return jax.tree.map(jax.numpy.negative, grad_estimator(position, rows))

        rows_key, order_key = jax.random.split(rng_key)
        if isinstance(batches, IndependentRows):
            # Each is new: to draw them with replacement would repeat some of them.
            state = state._replace(order=jax.numpy.arange(batches.num_batches, dtype="int32"))
        return run_epoch(
            (rows_key, rng_key, order_key),  # no noise is drawn
            state,
            ascent,
            batches,
            order=order,
            integrator=Momentum(momentum, weight_decay),
            step_size=learning_rate,
            temperature=0.0,
        )

    return kernel


def as_top_level_api(
    grad_estimator: Callable,
    data: ArrayLikeTree,
    batch_size: int,
    learning_rate: Schedule,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    order: str | Order = "batches",
    *,
    partition_key: PRNGKey | None = None,
) -> SamplingAlgorithm:
    """Make stochastic gradient descent in BlackJAX's form: Langevin dynamics at temperature 0.

    Each step is an epoch of M = ceil(N / batch_size) steps

    v <- beta v + g_b(theta) + lambda theta,    theta <- theta - eta v

    (docs/theory.md, section 4), compiled as one scan. The noise of the minibatches is the only
    noise. Vectorise over chains with ``jax.vmap`` of the step.

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``, the gradient of the **loss**, a mean over the rows
        of the minibatch, such as ``jax.grad(loss)``. Steps go *against* it. The estimators of
        :func:`sgworld_mcmc.sgld` and ``blackjax.sgmcmc.gradients.grad_estimator`` are gradients
        of a log density, which steps follow: pass those with their sign reversed.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, 1 to N; batches differ in size by at most one row.
    learning_rate
        Learning rate eta > 0 (h elsewhere in the package), or a function of the number of minibatch
        steps made, evaluated once an epoch.
    momentum
        Momentum beta in [0, 1); 0 (default) is plain SGD.
    weight_decay
        Weight decay lambda >= 0, which is added to the Hessian; 0 by default.
    order
        ``"batches"`` (default: a fixed random partition in fresh order), ``"examples"``,
        ``"symmetric"``, ``"once"``: see :mod:`sgworld_mcmc.data.orders`; or ``"replacement"``:
        every row of every batch is drawn independently of all others. (:func:`build_kernel` can
        also draw the M batches of a fixed partition with replacement, whose noise is another one.)
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
        If the order is misspelt, the batch size is not an integer in [1, N], the learning rate is
        not positive, the momentum is outside [0, 1), the weight decay is negative, or arrays differ
        in length.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sgworld_mcmc as sg
    >>> y = 1 + jax.random.normal(jax.random.key(0), (1000,))
    >>> loss = lambda mu, rows: jnp.mean((rows - mu) ** 2) / 2
    >>> alg = sg.sgd(jax.grad(loss), y, batch_size=100, learning_rate=0.1, momentum=0.5)
    >>> state = alg.init(jnp.array(0.0), jax.random.key(1))
    >>> state, info = jax.jit(alg.step)(jax.random.key(2), state)   # an epoch: ten steps
    >>> bool(abs(state.position - y.mean()) < 0.2), int(state.step), bool(info.diverging)
    (True, 10, False)
    """
    order = resolve("order", order, ORDERS)
    if not callable(learning_rate):
        check_positive("learning_rate", learning_rate)
    if check_positive("momentum", momentum, zero=True) >= 1:
        raise ValueError(f"`momentum` must be below 1, not {momentum}: velocities never decay.")
    check_positive("weight_decay", weight_decay, zero=True)
    kernel = build_kernel(order)
    kind = DealtRows if order.redeals else FixedPartition
    kind = kind if order.period else IndependentRows
    feed = make_feed(partition_key, data, batch_size, kind)

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey) -> SGDState:
        return init(position, rng_key, feed.num_batches, order=order)

    def step_fn(rng_key: PRNGKey, state: SGDState) -> tuple[SGDState, SGDInfo]:
        return kernel(rng_key, state, grad_estimator, feed, learning_rate, momentum, weight_decay)

    return SamplingAlgorithm(init_fn, step_fn)
