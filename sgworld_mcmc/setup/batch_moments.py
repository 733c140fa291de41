"""Compute moments of batch gradients over batches, for each kind of gradient."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["batch_moments"]


def batch_moments(
    log_density: Callable,
    coordinates: Coordinates,
    draws: jax.Array,
    rows: ArrayTree,
    pieces: jax.Array,
    number: jax.Array,
) -> dict[str, dict[str, jax.Array]]:
    """Return the variances over batches of what each kind of gradient leaves, and one mean.

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
        and at the center, along the directions of the parameters. ``"coupling"`` (Q,) is
        E_b[(H_b - I) r_b], which shifts the mean of plain gradients (docs/theory.md, B10).
    """
    center, along = coordinates.center, coordinates.projector()
    gradient = jax.grad(log_density)

    def of_part(some):
        def at(z):
            change = coordinates.apply(z)
            base, turned = jax.jvp(lambda x: gradient(x, some), (center,), (change,))
            return gradient(center + change, some), base, turned

        return jax.vmap(at)(draws)

    def mean_over(index, of_part, empty):
        def add(part, total):
            some = jax.tree.map(lambda x: x[index * pieces + part], rows)
            return jax.tree.map(jnp.add, total, of_part(some))

        return [x / pieces for x in jax.lax.fori_loop(0, pieces, add, empty)]

    def of_batch(index):
        means = mean_over(index, of_part, (zero,) * 3)
        # The center's gradient along z, and what the batch's Hessian makes of it.
        slope = means[1][0]
        moved = coordinates.apply(coordinates.pull_back(slope))
        turn = lambda some: (jax.jvp(lambda x: gradient(x, some), (center,), (moved,))[1],)  # noqa: E731
        turned_slope = mean_over(index, turn, (zero[0],))[0]
        value, base, turned = (along(x) for x in means)
        there = [kind.residual(value, base, turned) for kind in GRADIENTS.values()]
        here = [kind.residual(base, base, 0 * turned) for kind in GRADIENTS.values()]
        return jnp.stack([*there, *here]), -along(turned_slope) - along(slope)

    # The variance is taken about the first batch's value: sums of larger squares would cancel.
    def add(index, sums):
        (value, product), (first, total, squares, products) = of_batch(index), sums
        first = jnp.where(index == 0, value, first)
        value = value - first
        return first, total + value, squares + value**2, products + product

    zero = jnp.zeros_like(draws)
    empty = jnp.zeros((2 * len(GRADIENTS), *draws.shape), draws.dtype)
    sums = (empty, empty, empty, jnp.zeros_like(along(zero[0])))
    _, total, squares, products = jax.lax.fori_loop(0, number, add, sums)
    count = number.astype(draws.dtype)
    spread = (squares - total**2 / count) / jnp.maximum(count - 1, 1)
    there, here = jnp.split(spread, 2)
    named = lambda values: dict(zip(GRADIENTS, values, strict=True))  # noqa: E731
    return {"draw": named(there), "center": named(here), "coupling": products / count}
