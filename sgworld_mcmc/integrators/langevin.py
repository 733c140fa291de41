"""The Euler step of overdamped Langevin dynamics, and its two kinds of noise."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.types import ArrayLikeTree, ArrayTree, PRNGKey

from sgworld_mcmc.checks import check_choice

__all__ = ["NOISES", "Schedule", "draw_noise", "initial_noise", "langevin_step", "value_at"]

NOISES = ("independent", "averaged")

Schedule = float | jax.Array | Callable[[jax.Array], jax.Array]


def value_at(schedule: Schedule, step: jax.Array) -> jax.Array | float:
    """The value of a number or of a function of the step counter."""
    return schedule(step) if callable(schedule) else schedule


def draw_noise(rng_key: PRNGKey, position: ArrayLikeTree, *length: int) -> ArrayTree:
    """Standard normal numbers like ``position``, with ``length`` more steps in front if given."""
    # One call for all leaves: each is long to compile.
    leaves, treedef = jax.tree.flatten(position)
    sizes, dtypes = [jnp.size(x) for x in leaves], [jnp.result_type(x) for x in leaves]
    flat = jax.random.normal(rng_key, (*length, sum(sizes)), jnp.result_type(*dtypes))
    parts = jnp.split(flat, np.cumsum(sizes)[:-1], axis=-1)
    draws = [
        part.reshape(*length, *jnp.shape(x)).astype(dtype)
        for part, x, dtype in zip(parts, leaves, dtypes, strict=True)
    ]
    return jax.tree.unflatten(treedef, draws)


def initial_noise(rng_key: PRNGKey | None, position: ArrayLikeTree, noise: str) -> ArrayTree:
    """What the state carries of the last step's noise: nothing, or xi_0 of averaged noise."""
    check_choice("noise", noise, NOISES)
    for path, leaf in jax.tree_util.tree_leaves_with_path(position):
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise TypeError(
                f"`position{jax.tree_util.keystr(path)}` is of type {jnp.result_type(leaf)}: "
                "Langevin dynamics needs floating-point positions. Convert it with "
                "jnp.asarray(x, float)."
            )
    if noise == "independent":
        return ()
    if rng_key is None:
        raise ValueError('`rng_key` is needed by `init` with `noise="averaged"`: xi_0 is drawn.')
    return draw_noise(rng_key, position)


def langevin_step(
    position: ArrayLikeTree,
    gradient: ArrayLikeTree,
    carried: ArrayTree,
    fresh: ArrayTree,
    step_size: jax.Array | float,
    temperature: jax.Array | float,
    noise: str,
) -> tuple[ArrayTree, ArrayTree]:
    """One step theta + h grad log p + sqrt(2 h tau) increment, and the noise to carry on.

    Independent noise: the increment is xi_k. Averaged noise (Leimkuhler & Matthews 2013): the
    increment is (xi_k + xi_{k+1}) / 2, which removes the Euler error h/2 of the variance exactly
    on Gaussian targets (docs/theory.md, section 2.3).

    Parameters
    ----------
    position, gradient
        Pytrees of arrays; the gradient is that of the log density (it ascends).
    carried, fresh
        The noise of the step before (``()`` if independent) and new standard normal numbers.
    step_size, temperature
        h and tau, in BlackJAX's convention (Welling and Teh's epsilon is 2 h).
    """
    if noise == "averaged":
        increment = jax.tree.map(lambda a, b: (a + b) / 2, carried, fresh)
        carried = fresh
    else:
        increment = fresh
    scale = jnp.sqrt(2 * step_size * temperature)
    position = jax.tree.map(
        lambda x, g, xi: (x + step_size * g + scale * xi).astype(jnp.result_type(x)),
        position,
        gradient,
        increment,
    )
    return position, carried
