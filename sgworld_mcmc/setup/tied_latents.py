"""Tell hierarchies, whose latent sites have priors that depend on each other, from other models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["FEW_ROWS", "has_tied_latents"]

# So many rows do: priors know nothing of them.
FEW_ROWS = 2


def has_tied_latents(
    model: MinibatchModel, position: np.ndarray, rows: Any, constants: tuple
) -> bool:
    """Return whether the prior of a latent site depends on another latent site.

    The density of such a model may grow without bound where a scale goes to zero: that a search
    finds no mode, and ends elsewhere from each point, does not mean that there are several.

    Parameters
    ----------
    position
        (D,) where to look; almost any will do.
    rows
        A few rows of the data, of which the priors know nothing.
    """

    def priors(flat):
        terms = model.log_densities(model.unravel(flat), rows, constants)
        return jnp.stack([jnp.asarray(terms.get(name, 0.0)) for name in model.latents])

    slopes = np.asarray(jax.jit(jax.jacrev(priors))(from_numpy(position)))
    site = np.repeat(np.arange(len(model.latents)), model.sizes)
    others = site[None, :] != np.arange(len(model.latents))[:, None]
    return bool(np.any(slopes[others] != 0))
