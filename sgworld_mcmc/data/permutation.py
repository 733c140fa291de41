"""Random permutations of many numbers in a time that does not hide the epoch they are made for.

To sort random numbers, as `jax.random.permutation` does twice, takes several times as long on a CPU
as a gradient of the rows that are permuted. A Feistel network permutes by arithmetic: it writes a
number as a pair (l, r) on a grid just large enough, and turns it into (r, l + F(r)) round after
round, with a random function F for each. What falls outside of the numbers goes round again. Four
rounds cannot be told from a random permutation by few pairs of numbers (M. Luby, C. Rackoff, SIAM
Journal on Computing 17, 373-386, 1988); here are six.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int32

from sgworld_mcmc.hashing import mixed
from sgworld_mcmc.protocols import PRNGKey

__all__ = ["random_permutation"]

# Up to so many numbers are sorted: exactly uniform, and as fast.
SORTED = 4096
ROUNDS = 6
# What is folded into the key: nobody else's number.
PERMUTING = 0x7065726D


def random_permutation(rng_key: PRNGKey, size: int) -> Int32[jax.Array, " {size}"]:
    """Return the numbers 0, ..., ``size`` - 1 in random order, (size,) int32."""
    # A user may have drawn the data with the same key. Numbers in the order of these words would be
    # sorted by them.
    rng_key = jax.random.fold_in(rng_key, PERMUTING)
    if size <= SORTED:
        # This compiles in half the time of jax.random.permutation. Equal bits, which would keep
        # their order, are rarer than one pair in 2^33 / size^2 permutations.
        return jnp.argsort(jax.random.bits(rng_key, (size,))).astype(jnp.int32)
    root = math.isqrt(size - 1) + 1
    sides = root, -(-size // root)
    seeds = jax.random.bits(rng_key, (ROUNDS, 2), jnp.uint32)

    def turn(numbers):
        left, right = numbers // np.uint32(sides[1]), numbers % np.uint32(sides[1])
        for number, seed in enumerate(seeds):
            side = np.uint32(sides[number % 2])
            added = left + _below(side, mixed(mixed(right ^ seed[0]) + seed[1]))
            left, right = right, jnp.where(added >= side, added - side, added)
        return left * np.uint32(sides[1]) + right

    outside = lambda numbers: numbers >= np.uint32(size)  # noqa: E731
    numbers = jax.lax.while_loop(
        lambda numbers: jnp.any(outside(numbers)),
        lambda numbers: jnp.where(outside(numbers), turn(numbers), numbers),
        turn(jnp.arange(size, dtype=jnp.uint32)),
    )
    return numbers.astype(jnp.int32)


def _below(side: np.uint32, words: jax.Array) -> jax.Array:
    """Return numbers 0, ..., side - 1 from random words; a side has at most 2^16."""
    return ((words >> 16) * side) >> 16
