"""The gradient of one batch of a partition.

Any estimator ``grad_estimator(position, minibatch)`` that is a *mean over the rows* of the
minibatch will do, such as ``blackjax.sgmcmc.gradients.grad_estimator`` and
``blackjax.sgmcmc.gradients.control_variates``: an estimate of the gradient of the log density of
all N rows from the rows that it is given.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from blackjax.types import ArrayLikeTree, ArrayTree

from sgworld_mcmc.minibatch import Batch, Batches, RowBatches, fetch, num_batches, num_examples

__all__ = ["batch_gradient", "epoch_gradient"]


def batch_gradient(
    grad_estimator: Callable, position: ArrayLikeTree, batch: Batch, size: int, count: int
) -> ArrayTree:
    """Gradient of the log density estimated from one batch of a partition.

    With n_b the number of rows in the batch and M the number of batches, the estimate is
    (n_b M / N) ``grad_estimator(position, rows)``: the weight makes the factor before the sum over
    rows M for every batch, whatever its size, so that the mean over the M batches of a partition
    is the full gradient to rounding error (docs/theory.md, section 1). Without it the mean
    would be biased whenever M does not divide N.

    The rows beyond the common size are handled by a second, one-row call of the estimator, since
    sum_{i in b} = b mean(main) + extra; it is run only for batches that have such a row.

    Parameters
    ----------
    grad_estimator
        Function of (position, minibatch), a mean over the rows of the minibatch.
    position
        Pytree of arrays.
    batch
        From :func:`sgworld_mcmc.minibatch.fetch`.
    size, count
        N and M, Python integers.
    """
    length = jax.tree.leaves(batch.main)[0].shape[0]
    gradient = grad_estimator(position, batch.main)
    if batch.extra is None:
        return gradient
    extra = jax.lax.cond(
        batch.has_extra,
        lambda: grad_estimator(position, batch.extra),
        lambda: jax.tree.map(jnp.zeros_like, gradient),
    )
    scale = count / size
    return jax.tree.map(lambda g, e: scale * (length * g + e), gradient, extra)


def epoch_gradient(
    grad_estimator: Callable, position: ArrayLikeTree, batches: Batches | RowBatches
) -> ArrayTree:
    """Mean of the gradients of all batches: the full gradient, in the memory of one batch.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from sgworld_mcmc.minibatch import partition
    >>> y = jnp.arange(7.0)
    >>> batches = partition(jax.random.key(0), y, batch_size=3)
    >>> estimator = jax.grad(lambda mu, rows: -7 * jnp.mean((rows - mu) ** 2) / 2)
    >>> print(epoch_gradient(estimator, jnp.array(1.0), batches))   # sum of y - 1
    14.0
    """
    size, count = num_examples(batches), num_batches(batches)

    def add(total, index):
        gradient = batch_gradient(grad_estimator, position, fetch(batches, index), size, count)
        return jax.tree.map(lambda t, g: t + g / count, total, gradient), None

    zero = jax.tree.map(jnp.zeros_like, position)
    return jax.lax.scan(add, zero, jnp.arange(count))[0]
