"""Draw standard normal numbers like a position, and check that a position is allowed."""

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = ["check_position", "draw_normals"]


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
