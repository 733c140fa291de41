"""Tell models that are random from those that ask for keys and do not depend on them."""

import copy

import jax
import jax.numpy as jnp
from numpyro.handlers import substitute

from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.random_parts import RANDOM, depends_on_first

__all__ = ["without_idle_keys"]


def without_idle_keys(made: MinibatchModel, args: tuple, kwargs: dict) -> MinibatchModel:
    """Return the model as not random if its log density does not depend on the keys it asks for.

    Weights without a prior may be made from a key too, which then has to stay the same.

    Raises
    ------
    ValueError
        If the log density depends on further keys.
    """
    if not made.random:
        return made
    abstract = lambda x: jax.ShapeDtypeStruct(  # noqa: E731
        jnp.shape(x), jax.dtypes.canonicalize_dtype(x.dtype)
    )
    rows, constants = jax.tree.map(abstract, made.layout.split(args, kwargs))
    real = jnp.result_type(float)
    params = {name: jax.ShapeDtypeStruct(made.shapes[name], real) for name in made.latents}

    def densities(key, params, rows, constants, weights=None):
        held = made if weights is None else copy.copy(made)
        if weights is not None:
            held.model = substitute(made.model, data=weights)
        return held.log_densities(params, rows, constants, key=key)

    def weights_of(key, params, rows, constants):
        return made.weights(params, rows, constants, key)

    given = params, rows, constants
    fixed = [name for name, site in made.sites.items() if site.kind == "fixed"]
    if fixed and depends_on_first(weights_of, jax.random.key(0), *given):
        weights = jax.eval_shape(weights_of, jax.random.key(0), *given)
        if depends_on_first(densities, jax.random.key(0), *given, weights):
            raise ValueError(
                f"The model draws random numbers, on which its log density depends (dropout, "
                f"augmentation), and the weights {fixed} have no prior and come from random keys, "
                "too: they would be others in every step. Give the weights the values that they "
                "are to keep, numpyro.handlers.substitute(model, data={...}), or priors."
            )
        del made.sites[RANDOM]
    elif not depends_on_first(densities, jax.random.key(0), *given):
        del made.sites[RANDOM]
    return made
