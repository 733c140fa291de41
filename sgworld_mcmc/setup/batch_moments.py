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
        and at the center, along the directions of the parameters. ``"coupling"`` maps those without
        the Hessian to E_b[(H_b - H) r_b] (Q,), by which they shift the mean (docs/theory.md, B10).
    """
    center, along = coordinates.center, coordinates.projector()
    gradient = jax.grad(log_density)

    # The coupling is a mean over a draw and the one opposite to it: what is odd in z cancels.
    pair = jnp.stack([draws[0], -draws[0]])
    every = jnp.concatenate([draws, pair[1:]])
    ends = center + jax.vmap(coordinates.apply)(pair)
    coupled = {name: kind for name, kind in GRADIENTS.items() if kind.needs < 2}

    def of_part(some):
        def at(z):
            change = coordinates.apply(z)
            base, turned = jax.jvp(lambda x: gradient(x, some), (center,), (change,))
            return gradient(center + change, some), base, turned

        return jax.vmap(at)(every)

    def turn(directions):
        def of_part(some):
            def at(x, directions):
                push = jax.linearize(lambda x: gradient(x, some), x)[1]
                return jax.vmap(push)(directions)

            return (jax.vmap(at)(ends, directions),)

        return of_part

    def mean_over(index, of_part, empty):
        def add(part, total):
            some = jax.tree.map(lambda x: x[index * pieces + part], rows)
            return jax.tree.map(jnp.add, total, of_part(some))

        return [x / pieces for x in jax.lax.fori_loop(0, pieces, add, empty)]

    def of_batch(index):
        means = mean_over(index, of_part, (jnp.zeros_like(every),) * 3)
        # At the draw and at the one opposite to it, the residuals (2, K, D) of K kinds.
        both = [x[jnp.array([0, -1])] for x in means]
        residual = jnp.stack([kind.residual(*both) for kind in coupled.values()], 1)
        value, base, turned = (along(x[: len(draws)]) for x in means)
        there = [kind.residual(value, base, turned) for kind in GRADIENTS.values()]
        here = [kind.residual(base, base, 0 * turned) for kind in GRADIENTS.values()]
        return jnp.stack([*there, *here]), residual

    def products_of(index, change):
        """Return half the (K, Q) products of two batches' differences, of Hessian and gradient."""
        whitened = jax.vmap(jax.vmap(lambda x: coordinates.apply(coordinates.pull_back(x))))
        directions = whitened(change)
        one = lambda index: mean_over(index, turn(directions), (jnp.zeros_like(change),))[0]  # noqa: E731
        before, after = jax.vmap(one)(index - jnp.arange(2)[::-1])
        return along((before - after).mean(0)) / 2

    # The variance is taken about the first batch's value: sums of larger squares would cancel.
    def add(index, sums):
        (value, residual), (first, total, squares, before, products) = of_batch(index), sums
        first = jnp.where(index == 0, value, first)
        value = value - first
        # Of two batches, since the mean over all is not known yet.
        change = jnp.where(index == 0, 0, residual - before)
        products = products + products_of(jnp.maximum(index, 1), change)
        return first, total + value, squares + value**2, residual, products

    empty = jnp.zeros((2 * len(GRADIENTS), *draws.shape), draws.dtype)
    before = jnp.zeros((2, len(coupled), draws.shape[1]), draws.dtype)
    sums = (empty, empty, empty, before, along(before[0]))
    _, total, squares, _, products = jax.lax.fori_loop(0, number, add, sums)
    count = number.astype(draws.dtype)
    spread = (squares - total**2 / count) / jnp.maximum(count - 1, 1)
    there, here = jnp.split(spread, 2)
    named = lambda values: dict(zip(GRADIENTS, values, strict=True))  # noqa: E731
    coupling = dict(zip(coupled, products / jnp.maximum(count - 1, 1), strict=True))
    return {"draw": named(there), "center": named(here), "coupling": coupling}
