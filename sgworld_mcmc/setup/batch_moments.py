"""Compute the variance of batch gradients over batches, for each kind of gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgworld_mcmc.protocols import ArrayTree, Coordinates
from sgworld_mcmc.settings import GRADIENTS

__all__ = ["batch_moments"]


def batch_moments(
    log_density: Callable,
    coordinates: Coordinates,
    draws: jax.Array,
    rows: ArrayTree,
    pieces: jax.Array,
    number: jax.Array,
) -> dict[str, dict[str, jax.Array]]:
    """Return the variances over batches of what each kind of gradient leaves.

    Parameters
    ----------
    log_density
        ``log_density(theta, rows)``, an estimate from any number of rows.
    draws
        (S, D) positions z.
    rows
        Pytree of arrays (C, L, ...): C parts of L rows. A batch is made of ``pieces`` parts.
    pieces, number
        Number of parts in a batch, and of batches.

    Returns
    -------
    dict
        ``"draw"`` and ``"center"`` map every kind of gradient to its (S, Q) variance at the draws
        and at the center, along the directions of the parameters.
    """
    center, along = coordinates.center, coordinates.projector()
    gradient = jax.grad(log_density)

    def of_part(some):
        def at(z):
            change = coordinates.apply(z)
            base, turned = jax.jvp(lambda x: gradient(x, some), (center,), (change,))
            return gradient(center + change, some), base, turned

        return jax.vmap(at)(draws)

    def of_batch(index):
        def add(part, total):
            some = jax.tree.map(lambda x: x[index * pieces + part], rows)
            return jax.tree.map(jnp.add, total, of_part(some))

        sums = jax.lax.fori_loop(0, pieces, add, (zero,) * 3)
        value, base, turned = (along(x / pieces) for x in sums)
        there = {name: kind.residual(value, base, turned) for name, kind in GRADIENTS.items()}
        here = {name: kind.residual(base, base, 0 * turned) for name, kind in GRADIENTS.items()}
        return {"draw": there, "center": here}

    # The variance is taken about the first batch's value: sums of larger squares would cancel.
    def add(index, sums):
        value, (first, total, squares) = of_batch(index), sums
        first = jax.tree.map(lambda x, v: jnp.where(index == 0, v, x), first, value)
        value = jax.tree.map(jnp.subtract, value, first)
        total = jax.tree.map(jnp.add, total, value)
        return first, total, jax.tree.map(lambda s, v: s + v**2, squares, value)

    zero = jnp.zeros_like(draws)
    empty = {part: dict.fromkeys(GRADIENTS, zero) for part in ("draw", "center")}
    _, total, squares = jax.lax.fori_loop(0, number, add, (empty,) * 3)
    count = number.astype(draws.dtype)
    spread = lambda a, b: (b - a**2 / count) / jnp.maximum(count - 1, 1)  # noqa: E731
    return jax.tree.map(spread, total, squares)
