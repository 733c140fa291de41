"""Find the scale of every parameter under the prior, from draws of the prior."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_sample

from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["PriorMoments", "by_site", "pooled_scales", "prior_moments"]

# Draws of the prior. The scale of a single parameter is then known to about a tenth.
DRAWS = 64
# The entries of a site share one scale if none of theirs differs from it by more than this factor.
ALIKE = 2.0
# A scale is at least and at most this.
SMALLEST, LARGEST = 1e-6, 1e6


class PriorMoments(NamedTuple):
    """Moments of the prior in unconstrained coordinates.

    Attributes
    ----------
    mean, scale
        (D,) mean, and mean absolute deviation from it times sqrt(pi / 2), which is the standard
        deviation of a Gaussian and finite for heavier tails too.
    """

    mean: jax.Array
    scale: jax.Array


def prior_moments(
    rng_key: jax.Array, model: MinibatchModel, rows: tuple, constants: tuple
) -> PriorMoments:
    """Return moments of the prior from draws of it; not finite where it cannot be drawn from."""

    def draw(key):
        return model.ravel(model.initial_params(key, init_to_sample(), rows, constants))

    # One loop for both moments: the model is compiled once. The first half of the draws is for the
    # mean, the second half for the deviations from it.
    def add(moments, inputs):
        key, first = inputs
        x = draw(key) / DRAWS
        mean = jnp.where(first, moments.mean + x, moments.mean)
        away = moments.scale + jnp.abs(x - mean / DRAWS)
        return PriorMoments(mean, jnp.where(first, moments.scale, away)), None

    zero = jnp.zeros(model.dimension)
    keys, first = jax.random.split(rng_key, 2 * DRAWS), np.arange(2 * DRAWS) < DRAWS
    mean, deviation = jax.lax.scan(add, PriorMoments(zero, zero), (keys, first))[0]
    return PriorMoments(mean, deviation * np.sqrt(np.pi / 2))


def pooled_scales(model: MinibatchModel, found: PriorMoments) -> tuple[np.ndarray, np.ndarray]:
    """Return centers and scales (D,) in which the entries of a site are pooled if they are alike.

    Where the prior cannot be drawn from, the center is 0 and the scale 1.
    """
    mean, scale = (np.array(x, float) for x in found)
    unknown = ~(np.isfinite(mean) & np.isfinite(scale) & (scale > 0))
    mean[unknown], scale[unknown] = 0.0, 1.0
    for places in by_site(model):
        center, width = mean[places].mean(), np.sqrt((scale[places] ** 2).mean())
        alike = np.abs(np.log(scale[places] / width)).max() < np.log(ALIKE)
        if alike and np.abs(mean[places] - center).max() < ALIKE * width:
            mean[places], scale[places] = center, width
    return mean, np.clip(scale, SMALLEST, LARGEST)


def by_site(model: MinibatchModel) -> list[slice]:
    """Return where each latent site lies in the flat position, in the order of its latents."""
    places, start = [], 0
    for name in model.latents:
        size = int(np.prod(model.shapes[name]))
        places.append(slice(start, start + size))
        start += size
    return places
