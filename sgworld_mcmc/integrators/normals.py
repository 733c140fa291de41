"""Draw the random numbers of a step like a position, and check that a position is allowed."""

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.hashing import random_words
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = ["DRAWS", "check_position", "draw_normals", "draw_three_point"]

# Each of the outer points has a sixth of all words.
SIXTH = round(2**32 / 6)


def draw_normals(rng_key: PRNGKey, position: ArrayLikeTree, *length: int) -> ArrayTree:
    """Draw standard normal numbers like ``position``, with axes ``length`` in front if given."""
    # There is one call for all leaves, since each call takes long to compile.
    leaves, treedef = jax.tree.flatten(position)
    sizes, dtypes = [jnp.size(x) for x in leaves], [jnp.result_type(x) for x in leaves]
    flat = jax.random.normal(rng_key, (*length, sum(sizes)), jnp.result_type(*dtypes))
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    draws = [
        part.reshape(*length, *jnp.shape(x)).astype(dtype)
        for part, x, dtype in zip(parts, leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(treedef, draws)


def draw_three_point(rng_key: PRNGKey, position: ArrayLikeTree, *length: int) -> ArrayTree:
    """Draw -sqrt(3), 0 or sqrt(3) with probabilities 1/6, 2/3 and 1/6 like ``position``.

    A step of second weak order needs the first moments of its noise only, and three points have
    those of a normal number up to the fifth (Milstein & Tretyakov 2004, section 2.2): what is left
    of their shape after the thousand steps of a relaxation time is far below all other errors, and
    the covariances of linear dynamics are exact. Normal numbers take as long as the gradient of a
    network, these a tenth of that.
    """
    # Each leaf has numbers of its own, which XLA can make where it needs them: to cut them from one
    # array takes longer than to make them.
    leaves, treedef = jax.tree.flatten(position)
    sizes = [int(np.prod((*length, *jnp.shape(x)))) for x in leaves]
    seeds, draws = jax.random.bits(rng_key, (2,), jnp.uint32), []
    for start, size, leaf in zip(np.cumsum([0, *sizes]), sizes, leaves, strict=False):
        words = random_words(seeds, int(start), size).reshape(*length, *jnp.shape(leaf))
        point = np.asarray(np.sqrt(3), jnp.result_type(leaf))
        upper = jnp.where(words >= np.uint32(2**32 - SIXTH), point, np.zeros_like(point))
        draws.append(jnp.where(words < np.uint32(SIXTH), -point, upper))
    return jax.tree.unflatten(treedef, draws)


# The kinds of random numbers by the name that an integrator's ``numbers`` gives them.
DRAWS = {"gaussian": draw_normals, "three-point": draw_three_point}


def check_position(position: ArrayLikeTree) -> ArrayTree:
    """Return the position as arrays; raise ``TypeError`` unless all are floating-point."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"`position{jax.tree_util.keystr(path)}` is of type {jnp.result_type(leaf)}: "
                "positions must be floating-point numbers. Convert it with jnp.asarray(x, float)."
            )
    return jax.tree.map(jnp.asarray, position)
