"""Draw the random numbers of a step like a position, and check that a position is allowed."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import threefry_2x32

from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = ["DRAWS", "check_position", "draw_normals", "draw_three_point"]

# A byte decides between the three points. This many of its 256 values stand for the lower one, and
# as many for the upper one: no other number brings the kurtosis nearer to that of normal numbers.
OUTER = 43


def draw_normals(rng_key: PRNGKey, position: ArrayLikeTree, *length: int) -> ArrayTree:
    """Draw standard normal numbers like ``position``, with axes ``length`` in front if given."""
    draw = lambda shape, dtype: jax.random.normal(rng_key, shape, dtype)  # noqa: E731
    return _like(draw, position, length)


def draw_three_point(rng_key: PRNGKey, position: ArrayLikeTree, *length: int) -> ArrayTree:
    """Draw numbers -a, 0 or a of mean 0, variance 1 and kurtosis 2.98 like ``position``.

    A step of second weak order needs the first moments of its noise only, and three points have
    them (Milstein & Tretyakov 2004, section 2.2): what is left of their shape after the thousand
    steps of a relaxation time is far below all other errors, and the covariances of linear dynamics
    are exact. They take a tenth of the time of normal numbers, which in networks take as long as
    the gradient.
    """

    def draw(shape, dtype):
        count = int(np.prod(shape))
        words = _words(rng_key, -(-count // 4))
        size = np.asarray(np.sqrt(256 / (2 * OUTER)), dtype)

        def points(number):
            upper = jnp.where(number >= 256 - OUTER, size, np.zeros_like(size))
            return jnp.where(number < OUTER, -size, upper)

        # Each of the four bytes of a word has its own part of the numbers: to interleave them costs
        # more than all the rest.
        bytes_of = [(words >> shift) & 255 for shift in (0, 8, 16, 24)]
        return jnp.concatenate([points(x) for x in bytes_of])[:count].reshape(shape)

    return _like(draw, position, length)


def _words(rng_key: PRNGKey, count: int) -> jax.Array:
    """Return random uint32 numbers, both of each block of Threefry: JAX makes one of the two."""
    if jax.random.key_impl(rng_key) != "threefry2x32":
        return jax.random.bits(rng_key, (count,), jnp.uint32)
    counter = jnp.arange(count, dtype=jnp.uint32)
    return threefry_2x32(jax.random.key_data(rng_key), counter)


# The kinds of random numbers by the name that an integrator's ``numbers`` gives them.
DRAWS = {"gaussian": draw_normals, "three-point": draw_three_point}


def _like(draw: Callable, position: ArrayLikeTree, length: tuple[int, ...]) -> ArrayTree:
    """Return numbers from ``draw(shape, dtype)`` like a position, with axes in front."""
    # There is one call for all leaves, since each call takes long to compile.
    leaves, treedef = jax.tree.flatten(position)
    sizes, dtypes = [jnp.size(x) for x in leaves], [jnp.result_type(x) for x in leaves]
    flat = draw((*length, sum(sizes)), jnp.result_type(*dtypes))
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    draws = [
        part.reshape(*length, *jnp.shape(x)).astype(dtype)
        for part, x, dtype in zip(parts, leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(treedef, draws)


def check_position(position: ArrayLikeTree) -> ArrayTree:
    """Return the position as arrays; raise ``TypeError`` unless all are floating-point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"`position{jax.tree_util.keystr(path)}` is of type {jnp.result_type(leaf)}: "
                "Langevin dynamics needs floating-point positions. Convert it with "
                "jnp.asarray(x, float)."
            )
    return jax.tree.map(jnp.asarray, position)
