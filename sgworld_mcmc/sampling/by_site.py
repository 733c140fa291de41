"""Walks whose positions are cut at the model's sites, which XLA makes faster code of.

The gradient of a flat position is put together from those of the sites. In the loop XLA makes that
part of the step that uses it, where every number looks up the site that it belongs to, and nothing
is vectorised: in networks this takes as long as the random numbers. So a walk may take the sites as
they are, and the position is cut and joined once in a segment of steps.
"""

import jax
import jax.numpy as jnp

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import ArrayTree, Coordinates

__all__ = ["cut", "joined", "sites_apart"]

# Fewer numbers are not worth it, and more sites would take longer to compile.
FEWEST_NUMBERS, MOST_SITES = 2**13, 64


def sites_apart(model: MinibatchModel, coordinates: Coordinates) -> tuple[int, ...]:
    """Return the sizes of the sites at which positions are to be cut; () if they are not."""
    pays = model.dimension >= FEWEST_NUMBERS and len(model.sizes) <= MOST_SITES
    can = coordinates.divisible and not model.reverse_only
    return model.sizes if pays and can else ()


def cut(motion: ArrayTree, sizes: tuple[int, ...]) -> ArrayTree:
    """Return an integrator's state with tuples of sites in place of its vectors (D,)."""
    return jax.tree.map(lambda x: tuple(jax.lax.split(x, sizes)), motion)


def joined(motion: ArrayTree) -> ArrayTree:
    """Return what :func:`cut` was given."""
    return jax.tree.map(jnp.concatenate, motion, is_leaf=lambda x: type(x) is tuple)
