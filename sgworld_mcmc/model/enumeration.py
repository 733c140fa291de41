"""Sum discrete latent sites out of a model's log density, as NumPyro's NUTS does.

NumPyro's handlers ``config_enumerate`` and ``enum`` give every discrete site an axis with all of
its values, and funsor sums over them. The result is one number for all sites together; the prior of
the continuous sites is subtracted from it, so that what is left can be seen as one site. If that is
a sum over rows, as for the assignments of a mixture, the model can be cut into minibatches.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import handlers

__all__ = ["SUMMED", "check_enumerable", "enumerated_terms"]

# The name of the site that stands for all sites which discrete sites connect.
SUMMED = "(discrete sites summed out)"


def check_enumerable(names: list[str], enumerable: bool) -> None:
    """Raise unless the discrete latent sites can be summed out.

    Raises
    ------
    ValueError
        If the sites have no finite number of values.
    ImportError
        If funsor, which NumPyro needs for this, is not installed.
    """
    if not enumerable:
        raise ValueError(
            f"The latent sites {names} are discrete without a finite number of values, so that "
            "they cannot be summed out; Langevin dynamics needs continuous ones. Use a finite "
            "support, or sum them out of the likelihood by hand."
        )
    try:
        import numpyro.contrib.funsor  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"The latent sites {names} are discrete: NumPyro sums them out with the package "
            "funsor. Install it with `pip install funsor`."
        ) from error


def enumerated_terms(
    model: Callable,
    args: tuple,
    kwargs: dict,
    values: dict[str, jax.Array],
    rng_key: jax.Array,
    *,
    discrete: frozenset[str],
    nesting: int,
) -> dict[str, jax.Array]:
    """Return log densities by site of sites without discrete ones, and of all the rest as one.

    The former are priors of continuous sites, ``numpyro.factor`` terms and observations.

    Parameters
    ----------
    model, args, kwargs
        The model with its arguments.
    values
        Values of the continuous latent sites.
    rng_key
        Random key for ``numpyro.prng_key`` in the model.
    discrete
        Names of the discrete latent sites.
    nesting
        Number of plates within each other, for which axes are kept free.
    """
    from numpyro.contrib.funsor import config_enumerate, enum, log_density

    enumerated = enum(config_enumerate(model), -nesting - 1)
    # Sites without a value are discrete ones, whose values are enumerated: they do not use the key,
    # but NumPyro asks for one.
    seeded = handlers.seed(enumerated, rng_key)
    total, trace = log_density(seeded, args, kwargs, values)
    terms: dict[str, Any] = {}
    for name, site in trace.items():
        known = site["type"] == "sample" and (name in values or site["is_observed"])
        # What depends on a discrete site belongs to the rest.
        if known and discrete.isdisjoint(site["infer"]["dim_to_name"].values()):
            scale = 1.0 if name in values or site["scale"] is None else site["scale"]
            terms[name] = jnp.sum(scale * site["fn"].log_prob(site["value"]))
    return {**terms, SUMMED: total - sum(terms.values())}
