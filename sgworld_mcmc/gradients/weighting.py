"""Estimate from one batch of a feed, and average the estimates of all batches.

An estimator is a function ``estimator(position, minibatch)`` that estimates the gradient (or value,
or Hessian) of the log density of all N rows from the rows that it is given. It must be a *mean over
the rows* of the minibatch, as ``blackjax.sgmcmc.gradients.grad_estimator`` and
``blackjax.sgmcmc.gradients.control_variates`` are.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, Batch, Feed

__all__ = ["batch_estimate", "epoch_mean", "gradient_of"]


def gradient_of(target: Callable) -> Callable:
    """Return the gradient of a target with respect to the position, as a function like it.

    Where the target knows its coordinates, the derivative is taken with respect to the model's
    parameters, and the coordinates pull it back: they know the fast way.
    """
    coordinates = getattr(target, "coordinates", None)
    if coordinates is None:
        return jax.grad(target)
    near = jax.grad(target.near)
    return lambda z, rows: coordinates.pull_back(near(coordinates.apply(z), rows))


def batch_estimate(
    estimator: Callable, position: ArrayLikeTree, batch: Batch, feed: Feed
) -> ArrayTree:
    """Estimate something, such as the gradient of the log density, from one batch of a partition.

    With n_b the number of rows in the batch and M the number of batches, the estimate is
    (n_b M / N) ``estimator(position, rows)``. With this weight the factor before the sum over rows
    is M for every batch, whatever its size, so that the mean over the M batches of a partition is
    the full-data value to rounding error (docs/theory.md, section 1). Without it the mean would be
    biased whenever M does not divide N. (A prior inside the estimator carries the same weight: it
    varies by one row in n_b between the batches, and is whole over an epoch.)

    The rows beyond the common size are handled by a second call of the estimator, since
    sum_{i in b} = b mean(main) + w mean(extra), with w = 1 in nearly all cases. This call runs only
    for batches that have such rows. Where devices share the batch, its main part is the mean over
    theirs.

    Parameters
    ----------
    estimator
        Function of (position, minibatch), a mean over the rows, that returns any pytree of arrays.
    position
        Pytree of arrays.
    batch
        One batch of the feed.
    feed
        The feed, which knows N and M.
    """
    estimate = feed.across(estimator(position, batch.main))
    if batch.extra is None:
        return estimate
    length = feed.parts * jax.tree.leaves(batch.main)[0].shape[0]
    more = jax.tree.leaves(batch.extra)[0].shape[0]
    extra = jax.lax.cond(
        batch.has_extra,
        lambda: estimator(position, batch.extra),
        lambda: jax.tree.map(jnp.zeros_like, estimate),
    )
    scale = feed.num_batches / feed.size
    return jax.tree.map(lambda g, e: scale * (length * g + more * e), estimate, extra)


def epoch_mean(
    estimator: Callable,
    position: ArrayLikeTree,
    feed: Feed,
    used: jax.Array | int | None = None,
    dealing: ArrayTree = (),
    first: jax.Array | int = 0,
) -> ArrayTree:
    """Return the mean of the estimates of all batches, which is the full-data value.

    The computation needs the memory of one batch. If ``used`` is given, the mean is over ``used``
    batches, beginning with number ``first``, and an estimate, since their rows are random. Both may
    be traced, so that one compiled function serves any part of the data and the whole.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from sgworld_mcmc.data.fixed_partition import partition
    >>> y = jnp.arange(7.0)
    >>> batches = partition(jax.random.key(0), y, batch_size=3)
    >>> estimator = jax.grad(lambda mu, rows: -7 * jnp.mean((rows - mu) ** 2) / 2)
    >>> print(epoch_mean(estimator, jnp.array(1.0), batches))   # sum of y - 1
    14.0
    """

    # With jit the function is traced once, for its shape and for the loop together.
    @partial(jax.jit, inline=True)
    def estimate(index):
        return batch_estimate(estimator, position, feed.fetch(dealing, first + index), feed)

    number = feed.num_batches if used is None else used

    def add(index, total):
        return jax.tree.map(lambda t, e: t + e / number, total, estimate(index))

    number = jnp.asarray(number, jnp.int32)
    shapes = jax.eval_shape(estimate, number)
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.fori_loop(0, number, add, zero)
