"""Stochastic gradient descent with momentum and weight decay: one epoch a step, no noise added."""

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
    fetch,
    num_batches,
    num_examples,
    partition,
    partition_rows,
    split_rows,
)
from sgworld_mcmc.data.orders import ORDERS, initial_order, next_order
from sgworld_mcmc.gradients.weighting import batch_estimate
from sgworld_mcmc.integrators.langevin import Schedule, initial_noise, value_at
from sgworld_mcmc.sampling.sweep import is_finite

__all__ = ["SGDInfo", "SGDState", "as_top_level_api", "build_kernel", "init"]


class SGDState(NamedTuple):
    """State of stochastic gradient descent.

    Attributes
    ----------
    position
        Pytree of floating-point arrays.
    velocity
        v, like the position: the running sum of gradients that is *subtracted*, times the
        learning rate, from the position.
    order
        (M,) int32: the order in which the next epoch visits the batches.
    step
        Number of minibatch steps made, int32: the argument of learning-rate schedules.
    """

    position: ArrayTree
    velocity: ArrayTree
    order: jax.Array
    step: jax.Array


class SGDInfo(NamedTuple):
    """What happened in an epoch.

    Attributes
    ----------
    learning_rate
        The learning rate of this epoch's steps.
    finite_steps
        Number of steps made, M unless the descent diverged, int32.
    diverging
        True if a step led to NaN or infinity; position and velocity are then the last finite ones.
    """

    learning_rate: jax.Array
    finite_steps: jax.Array
    diverging: jax.Array


def init(
    position: ArrayLikeTree, rng_key: PRNGKey, num_batches: int, *, order: str = "batches"
) -> SGDState:
    """The state at rest at ``position``, the order of the first epoch drawn from ``rng_key``."""
    position = jax.tree.map(jnp.asarray, position)
    initial_noise(None, position, "independent")  # refuses positions of integers
    return SGDState(
        position,
        jax.tree.map(jnp.zeros_like, position),
        initial_order(rng_key, order, num_batches),
        jnp.zeros((), jnp.int32),
    )


def build_kernel(order: str = "batches") -> Callable:
    """Build the SGD kernel, whose step is one epoch of M minibatch steps.

    Parameters
    ----------
    order
        See :mod:`sgworld_mcmc.data.orders`. What ``"replacement"`` draws depends on the batches
        given: from a fixed partition, its batches; from a
        :class:`~sgworld_mcmc.data.batches.RowBatches`, every row of every batch independently, so that a row can repeat within a batch and the
        covariance of the batch gradient is exactly 1/B of that of the examples.

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, batches, learning_rate, momentum=0.0,
        weight_decay=0.0)``, which returns (:class:`SGDState`, :class:`SGDInfo`). All arguments
        but the estimator may be traced. For ``order="examples"`` the batches are a ``RowBatches``.
    """
    check_choice("order", order, ORDERS)

    def kernel(
        rng_key: PRNGKey,
        state: SGDState,
        grad_estimator: Callable,
        batches: Batches | RowBatches,
        learning_rate: Schedule,
        momentum: jax.Array | float = 0.0,
        weight_decay: jax.Array | float = 0.0,
    ) -> tuple[SGDState, SGDInfo]:
        size, count = num_examples(batches), num_batches(batches)
        rows_key, order_key = jax.random.split(rng_key)
        if isinstance(batches, RowBatches) and order in ("examples", "replacement"):
            if order == "examples":
                rows = jax.random.permutation(rows_key, size)
            else:
                rows = jax.random.randint(rows_key, (size,), 0, size)
            batches = RowBatches(batches.data, split_rows(rows, count))
        eta = value_at(learning_rate, state.step)

        def step(carry, index):
            position, velocity, finite_steps, active = carry
            rows = fetch(batches, index)
            gradient = batch_estimate(grad_estimator, position, rows, size, count)
            new = _descend(position, velocity, gradient, eta, momentum, weight_decay)
            active = active & is_finite(new)
            position, velocity = jax.tree.map(
                lambda a, b: jnp.where(active, a, b), new, (position, velocity)
            )
            return (position, velocity, finite_steps + active, active), None

        start = (state.position, state.velocity, jnp.zeros((), jnp.int32), jnp.array(True))
        (position, velocity, finite_steps, active), _ = jax.lax.scan(step, start, state.order)
        after = state.step + count
        following = next_order(order_key, order, state.order, after // count)
        info = SGDInfo(jnp.asarray(eta), finite_steps, ~active)
        return SGDState(position, velocity, following, after), info

    return kernel


def _descend(position, velocity, gradient, learning_rate, momentum, weight_decay):
    """v <- beta v + g + lambda theta, theta <- theta - eta v (docs/theory.md, section 4)."""
    velocity = jax.tree.map(
        lambda v, g, x: (momentum * v + g + weight_decay * x).astype(jnp.result_type(x)),
        velocity,
        gradient,
        position,
    )
    position = jax.tree.map(
        lambda x, v: (x - learning_rate * v).astype(jnp.result_type(x)), position, velocity
    )
    return position, velocity


def as_top_level_api(
    grad_estimator: Callable,
    data: ArrayLikeTree,
    batch_size: int,
    learning_rate: Schedule,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    order: str = "batches",
    *,
    partition_key: PRNGKey | None = None,
) -> SamplingAlgorithm:
    """Stochastic gradient descent in BlackJAX's form: Langevin dynamics at temperature 0.

    Each step is an epoch of M = ceil(N / batch_size) steps

    v <- beta v + g_b(theta) + lambda theta,    theta <- theta - eta v

    (docs/theory.md, section 4), compiled as one scan. Whatever moves besides the descent is the
    noise of the minibatches. Vectorise over chains with ``jax.vmap`` of the step.

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``: the gradient of the **loss**, a mean over the rows
        of the minibatch, such as ``jax.grad(loss)``. It is *descended*. The estimators of
        :func:`sgworld_mcmc.sgld` and ``blackjax.sgmcmc.gradients.grad_estimator`` are gradients
        of a log density, which are ascended: pass those with their sign reversed.
    data
        Pytree of arrays (N, ...) with a common leading axis.
    batch_size
        At most this many rows in a batch, 1 to N; batches differ in size by at most one row.
    learning_rate
        eta > 0 (h elsewhere in the package), or a function of the number of minibatch steps
        made, evaluated once an epoch.
    momentum
        beta in [0, 1); 0 (default) is plain SGD.
    weight_decay
        lambda >= 0, added to the Hessian; 0 by default.
    order
        ``"batches"`` (default: a fixed random partition in fresh order), ``"examples"``,
        ``"symmetric"``, ``"once"``: see :mod:`sgworld_mcmc.data.orders`; or ``"replacement"``:
        every row of every batch is drawn independently of all others. With a fixed partition the
        noise is that of its M batches, for which :func:`build_kernel` has the details.
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
        Misspelt order, batch size not an integer in [1, N], learning rate not positive, momentum
        outside [0, 1), negative weight decay, arrays of different length.

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
    check_choice("order", order, ORDERS)
    if not callable(learning_rate):
        check_positive("learning_rate", learning_rate)
    if check_positive("momentum", momentum, zero=True) >= 1:
        raise ValueError(f"`momentum` must be below 1, not {momentum}: velocities never decay.")
    check_positive("weight_decay", weight_decay, zero=True)
    kernel = build_kernel(order)
    size = check_data(data)
    check_integer("batch_size", batch_size, 1, size)
    partition_key = jax.random.key(0) if partition_key is None else partition_key
    if order in ("examples", "replacement"):
        rows = partition_rows(partition_key, size, batch_size)
        batches = RowBatches(jax.tree.map(jnp.asarray, data), rows)
    else:
        batches = partition(partition_key, data, batch_size)
    count = num_batches(batches)

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey) -> SGDState:
        return init(position, rng_key, count, order=order)

    def step_fn(rng_key: PRNGKey, state: SGDState) -> tuple[SGDState, SGDInfo]:
        return kernel(
            rng_key, state, grad_estimator, batches, learning_rate, momentum, weight_decay
        )

    return SamplingAlgorithm(init_fn, step_fn)
