"""In which order the batches of a partition are visited.

======================  ====================================================================
``"batches"``           every batch once an epoch, in a fresh random order each epoch
``"examples"``          the same, and the rows are dealt into new batches each epoch
``"symmetric"``         a fresh order, then in the next epoch the same order backward
``"once"``              one random order for ever
``"replacement"``       each batch drawn independently (SGLD)
======================  ====================================================================

All but the last visit every row exactly once an epoch: the noise of the batches then cancels
within the epoch (arXiv:2306.03521; docs/theory.md, section 2).
"""

import jax
import jax.numpy as jnp
from blackjax.types import PRNGKey

__all__ = ["ORDERS", "WITHOUT_REPLACEMENT", "initial_order", "next_order"]

WITHOUT_REPLACEMENT = ("batches", "examples", "symmetric", "once")
ORDERS = (*WITHOUT_REPLACEMENT, "replacement")


def initial_order(rng_key: PRNGKey, kind: str, count: int) -> jax.Array:
    """The order of the first epoch: (count,) int32 batch numbers."""
    if kind == "replacement":
        return jax.random.randint(rng_key, (count,), 0, count, dtype=jnp.int32)
    # Compiles in half the time of jax.random.permutation; equal bits, which keep their order, are
    # rarer than one pair in 2^33 / M^2 epochs.
    return jnp.argsort(jax.random.bits(rng_key, (count,))).astype(jnp.int32)


def next_order(rng_key: PRNGKey, kind: str, order: jax.Array, epoch: jax.Array) -> jax.Array:
    """The order of epoch number ``epoch`` >= 1 (int), given that of the epoch before.

    Parameters
    ----------
    rng_key
        Used by every kind but ``"once"``.
    kind
        One of :data:`ORDERS`.
    order
        (M,) int32, the order of epoch ``epoch - 1``.
    epoch
        Number of the epoch that begins; its parity tells ``"symmetric"`` to go back.
    """
    if kind == "once":
        return order
    fresh = initial_order(rng_key, kind, order.shape[0])
    if kind == "symmetric":
        return jnp.where(epoch % 2 == 1, order[::-1], fresh)
    return fresh
