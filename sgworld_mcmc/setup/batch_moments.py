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
) -> dict[str, jax.Array]:
    """Return the variances over batches of what each kind of gradient leaves, at all draws.

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

        zero = (jnp.zeros_like(draws),) * 3
        sums = jax.lax.fori_loop(0, pieces, add, zero)
        value, base, turned = (along(x / pieces) for x in sums)
        kinds = {name: kind.residual(value, base, turned) for name, kind in GRADIENTS.items()}
        return {**kinds, **{f"{name} center": kind.residual(base, base, 0 * turned)
                            for name, kind in GRADIENTS.items()}}

    # The variance is about the first batch's value: sums of squares would cancel.
    first = of_batch(0)

    def add(index, sums):
        value = jax.tree.map(jnp.subtract, of_batch(index), first)
        return jax.tree.map(lambda s, v: (s[0] + v, s[1] + v**2), sums, value,
                            is_leaf=lambda s: isinstance(s, tuple))

    zero = {name: (jnp.zeros_like(x), jnp.zeros_like(x)) for name, x in first.items()}
    sums = jax.lax.fori_loop(1, number, add, zero)
    number = number.astype(draws.dtype)
    return {name: (b - a**2 / number) / jnp.maximum(number - 1, 1) for name, (a, b) in sums.items()}
