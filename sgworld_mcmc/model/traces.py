"""Trace a NumPyro model, and describe its sites."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from numpyro import handlers
from numpyro.distributions import biject_to, constraints

from sgworld_mcmc.model.observed_values import ObservedValues

__all__ = ["Site", "is_circular", "log_density", "trace_of", "unconstrained"]


class Site(NamedTuple):
    """What a trace says about a site, without its values."""

    # "latent", "observed", "factor", "deterministic"; "fixed" for a part of a numpyro.param without
    # prior, "mutable" for statistics that a module keeps, and "random" for keys that are used.
    kind: str
    shape: tuple[int, ...]
    discrete: bool
    plates: tuple[tuple[str, int], ...]  # names and sizes
    enumerable: bool = False
    nesting: int = 0  # number of the axes that are those of plates
    values: ObservedValues | None = None  # where the values of an observed site must lie
    circular: bool = False  # an angle, whose two ends are one


def trace_of(model: Callable, rng_key: jax.Array, strategy: Callable, args, kwargs) -> dict:
    """Return NumPyro's trace of a model whose latent sites have the values of a strategy."""
    # The handler of the seed is the inner one: initialisation strategies draw with its keys.
    substituted = handlers.substitute(handlers.seed(model, rng_key), substitute_fn=strategy)
    return handlers.trace(substituted).get_trace(*args, **kwargs)


def is_circular(site: dict) -> bool:
    """Return whether the values of a latent site are angles."""
    support = site["fn"].support
    return getattr(support, "base_constraint", support) is constraints.circular


def unconstrained(site: dict) -> jax.Array:
    """Return the value of a latent site in unconstrained coordinates."""
    return biject_to(site["fn"].support).inv(site["value"])


def log_density(site: dict) -> jax.Array:
    """Return the log density of a site's value; an error of the distribution names the site."""
    try:
        return site["fn"].log_prob(site["value"])
    except (TypeError, ValueError) as error:
        value = site["value"]
        cure = ""
        if getattr(site["fn"].support, "is_discrete", False) and _is_floating(value):
            cure = " Labels must be integers: pass them .astype(int)."
        error.add_note(
            f"This was the log density of site {site['name']!r}, a {type(site['fn']).__name__} "
            f"at values of shape {jnp.shape(value)}, {jnp.result_type(value)}.{cure}"
        )
        raise


def _is_floating(value: object) -> bool:
    return jnp.issubdtype(jnp.result_type(value), jnp.floating)
