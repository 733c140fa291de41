"""The covariance of minibatch gradients, and the diffusion of SGD that it causes.

The formulas are (N1)-(N4) of docs/nonequilibrium.md, which docs/theory.md derives in section 2.1.
The framework is that of Adhikari et al., arXiv:2306.03521.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from sgworld_mcmc.checks import check_choice, check_integer
from sgworld_mcmc.nonequilibrium.losses import (
    check_batches,
    gradient_moments,
    loss_hessian,
    prepare,
)

__all__ = ["diffusion_matrix", "minibatch_covariance"]


def minibatch_covariance(
    example_loss: Callable, position, data, batch_size: int
) -> Float64[np.ndarray, "D D"]:
    """Compute the covariance C of the gradient of a random batch of distinct examples (N1).

    It is ``C = (N - B) / (B (N - 1)) Cov_i(grad l_i)``, with the covariance over the examples
    (divisor N).

    Parameters
    ----------
    example_loss : callable
        ``example_loss(position, example) -> scalar``; its *mean* over the data is the loss, and a
        batch gradient is the mean over the batch.
    position : array (D,)
        Flat position at which C is computed.
    data : pytree of arrays
        Arrays with the leading axis N.
    batch_size : int
        Batch size B from 1 to N; C is zero for B = N.

    Returns
    -------
    numpy.ndarray
        (D, D) float64 covariance, in squared units of the gradient.

    Raises
    ------
    ValueError
        If the position is not flat or not finite, the loss is not a scalar, or data are NaN.

    Notes
    -----
    It takes one pass over the data in chunks of per-example gradients (8 MB), in float64 and
    without touching JAX's global configuration.

    Examples
    --------
    >>> import numpy as np
    >>> loss = lambda mu, y: 0.5 * (y - mu[0]) ** 2
    >>> print(minibatch_covariance(loss, np.zeros(1), np.array([-1.0, 1.0, -1.0, 1.0]), 2))
    [[0.33333333]]
    """
    position, data, size = prepare(example_loss, position, data)
    batch_size, _, _ = check_batches(size, batch_size)
    with jax.enable_x64(True):
        _, covariance = gradient_moments(example_loss, position, data, size)
    return covariance * ((size - batch_size) / (batch_size * max(size - 1, 1)))


def diffusion_matrix(
    example_loss: Callable,
    position,
    data,
    batch_size: int,
    learning_rate: float,
    replacement: bool,
    method: str = "sampled",
    *,
    order: str = "examples",
    num_orders: int = 4096,
    rng_key=None,
) -> Float64[np.ndarray, "D D"]:
    """Compute the diffusion matrix D of SGD, per step with replacement and per epoch without.

    * With replacement it is exactly D = (eta^2 / 2) C (N2).
    * Without, it is D = (eta^4 / 2) Cov_p(T_p) with T_p = sum_{i<j} H_p(j) g_p(i), over the orders
      p in which the batches are visited (N3). The method ``"closed"`` replaces every batch Hessian
      by the mean one, which gives (eta^4 / 24) M^2 (M + 1) H C H (N4). It misses the scatter of
      the batch Hessians, which matters in soft directions; ``"sampled"`` includes it.

    Parameters
    ----------
    example_loss, position, data, batch_size
        The same as in `minibatch_covariance`. Without replacement there are M = ceil(N / B)
        batches, whose sizes differ by at most one, with weights that make their mean the full
        gradient.
    learning_rate : float
        Learning rate eta of the step theta <- theta - eta g_b.
    replacement : bool
        Whether batches are drawn independently.
    method : {"sampled", "closed"}
        How to compute D without replacement. "sampled" takes random orders with Hessian-vector
        products and the closed form as a control variate, so that only the contribution of the
        batch Hessians has a sampling error, of about sqrt(2 / num_orders) of itself.
    order : {"examples", "batches"}
        How rows are visited without replacement. "examples" deals the rows into new batches each
        epoch. "batches" visits the batches of one fixed partition (that of ``numpy.array_split``)
        in a new order each epoch.
    num_orders : int
        Number of orders sampled; each costs one Hessian-vector product of all the data.
    rng_key : JAX key, optional
        Key of the sampled orders; default ``jax.random.key(0)``.

    Returns
    -------
    numpy.ndarray
        (D, D) float64 matrix. Its time step is eta with replacement and eta M without.

    Raises
    ------
    ValueError
        If a name is unknown or data are bad; without replacement also if the learning rate is above
        2 / (largest eigenvalue of the Hessian), where SGD diverges and the expansion in eta fails.

    Examples
    --------
    >>> import numpy as np
    >>> loss = lambda mu, y: 0.5 * (y - mu[0]) ** 2
    >>> y = np.array([-1.0, 1.0, -1.0, 1.0])
    >>> step = diffusion_matrix(loss, np.zeros(1), y, 2, 0.1, replacement=True)
    >>> epoch = diffusion_matrix(loss, np.zeros(1), y, 2, 0.1, replacement=False)
    >>> print(f"{step[0, 0]:.3e} {epoch[0, 0]:.3e}")
    1.667e-03 1.667e-05
    """
    check_choice("method", method, ("sampled", "closed"))
    check_choice("order", order, ("examples", "batches"))
    position, data, size = prepare(example_loss, position, data)
    batch_size, count, eta = check_batches(size, batch_size, learning_rate)
    if replacement:
        return eta**2 / 2 * minibatch_covariance(example_loss, position, data, batch_size)
    num_orders = check_integer("num_orders", num_orders, 2)
    hessian = loss_hessian(example_loss, position, data)
    check_learning_rate(eta, np.linalg.eigvalsh(hessian)[-1])
    if count == 1:
        return np.zeros((position.size, position.size))
    mean, noise = _partition_moments(example_loss, position, data, size, count, order)
    closed = count**2 * (count + 1) / 12 * hessian @ noise @ hessian
    if method == "closed":
        return eta**4 / 2 * (closed + closed.T) / 2
    key = jax.random.key(0) if rng_key is None else rng_key
    with jax.enable_x64(True):
        keys = jax.random.split(key, num_orders)
        sampled, control = _order_sums(
            example_loss, position, data, keys, hessian, mean, count, order == "examples"
        )
    total = np.cov(np.asarray(sampled).T, ddof=1).reshape(hessian.shape)
    reduced = closed + total - np.cov(np.asarray(control).T, ddof=1).reshape(hessian.shape)
    reduced = (reduced + reduced.T) / 2
    # With few orders in many dimensions the control variate can leave a negative eigenvalue.
    return eta**4 / 2 * (reduced if np.linalg.eigvalsh(reduced)[0] >= 0 else total)


def partition_factor(size, count):
    """Return the mean of Cov(g_b) over the batches of a random partition, over Cov_i(grad l_i).

    It is (N - B) / (B (N - 1)) for equal batches. Unequal batches have the weights n_b M / N.
    """
    sizes = _batch_sizes(size, count)
    return count / size**2 * np.sum(sizes * (size - sizes)) / max(size - 1, 1)


def _batch_sizes(size, count):
    return np.full(count, size // count) + (np.arange(count) < size % count)


def _partition_moments(example_loss, position, data, size, count, order):
    """Return the full gradient, and the covariance over batches of g_b - (n_b M / N) grad L.

    The subtraction matters away from a minimum if batches differ in size. The part proportional to
    a batch's size does not depend on the order in T_p, since the Hessian is proportional to it too.
    """
    with jax.enable_x64(True):
        mean, covariance = gradient_moments(example_loss, position, data, size)
        if order == "examples":
            return mean, partition_factor(size, count) * covariance
        rows, mask = _fixed_rows(size, count)
        gradients = np.asarray(_batch_gradients(example_loss, position, data, rows, mask))
    gradients = gradients - count / size * mask.sum(axis=1)[:, None] * mean
    return mean, gradients.T @ gradients / count


def _fixed_rows(size, count):
    """Return the row numbers (M, b) of ``numpy.array_split``, and a mask of those that exist."""
    length = -(-size // count)
    sizes = _batch_sizes(size, count)
    rows = (np.cumsum(sizes) - sizes)[:, None] + np.arange(length)
    return np.minimum(rows, size - 1), (np.arange(length) < sizes[:, None]).astype(float)


def _batch_loss(example_loss, data, rows, mask, weight):
    batch = jax.tree.map(lambda x: x[rows], data)
    return lambda p: weight * jnp.sum(mask * jax.vmap(example_loss, (None, 0))(p, batch))


@partial(jax.jit, static_argnums=0)
def _batch_gradients(example_loss, position, data, rows, mask):
    weight = rows.shape[0] / jax.tree.leaves(data)[0].shape[0]

    def gradient(batch):
        return jax.grad(_batch_loss(example_loss, data, *batch, weight))(position)

    return jax.lax.map(gradient, (rows, mask))


@partial(jax.jit, static_argnames=("example_loss", "count", "fresh"))
def _order_sums(example_loss, position, data, keys, hessian, mean, count, fresh):
    """Return T_p (orders, D) for each key, and its control variate.

    The control variate is T_p with the mean Hessian and centered gradients.
    """
    size = jax.tree.leaves(data)[0].shape[0]
    fixed_rows, fixed_mask = (jnp.asarray(x) for x in _fixed_rows(size, count))
    dim, weight = position.shape[0], count / size

    def one_order(key):
        slots, deal = jax.random.split(key)
        slots = jax.random.permutation(slots, count)
        rows, mask = fixed_rows[slots], fixed_mask[slots]
        if fresh:
            rows = jax.random.permutation(deal, size)[rows]

        def visit(carry, batch):
            moved, later, weighted = carry
            gradient = jax.grad(_batch_loss(example_loss, data, batch[0], batch[1], weight))
            value, product = jax.jvp(gradient, (position,), (moved,))
            noise = value - weight * jnp.sum(batch[1]) * mean
            return (moved + value, later + product, weighted + batch[2] * noise), None

        remaining = jnp.arange(count - 1, -1, -1.0)
        zero = jnp.zeros(dim)
        (_, later, weighted), _ = jax.lax.scan(visit, (zero, zero, zero), (rows, mask, remaining))
        return later, hessian @ weighted

    row_entries = sum(x[0].size for x in jax.tree.leaves(data)) + dim
    together = max(1, min(256, 2**22 // (fixed_rows.shape[1] * row_entries)))
    return jax.lax.map(one_order, keys, batch_size=together)


def check_learning_rate(eta, largest):
    """Raise ValueError unless the learning rate is below 2 / (largest eigenvalue)."""
    if eta * largest >= 2:
        raise ValueError(
            f"`learning_rate` {eta:.4g} is above the stability limit 2 / (largest eigenvalue of "
            f"the Hessian) = {2 / largest:.4g}: SGD diverges there. Use a smaller one."
        )
