"""Mix the bits of counters: random words for loops in which Threefry takes as long as the rest.

Keys are JAX's. What is made of a key here are words for one step or one epoch: counters that are
mixed with random numbers of that key. Threefry takes ten times as long, for words that are safe
from an adversary, too.
"""

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["mixed", "random_words"]


def random_words(seeds: jax.Array, start: int, count: int) -> jax.Array:
    """Return (count,) random uint32 words: a count from ``start``, mixed twice with two seeds.

    Parameters
    ----------
    seeds
        (2,) uint32 random numbers, from a key that is used for nothing else.
    start, count
        Words of one pair of seeds are independent if their counts do not overlap.
    """
    counter = jax.lax.iota(jnp.uint32, count) + np.uint32(start)
    return mixed(mixed(counter ^ seeds[0]) + seeds[1])


def mixed(words: jax.Array) -> jax.Array:
    """Return uint32 words each bit of which depends on all bits of the given ones.

    It is the permutation ``lowbias32`` of C. Wellons (Prospecting for hash functions, 2018).
    """
    words = (words ^ (words >> 16)) * np.uint32(0x7FEB352D)
    words = (words ^ (words >> 15)) * np.uint32(0x846CA68B)
    return words ^ (words >> 16)
