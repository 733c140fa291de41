"""Trace a NumPyro model, and describe its sites."""

from collections.abc import Callable
from typing import NamedTuple

import jax
from numpyro import handlers
from numpyro.distributions import biject_to
from numpyro.primitives import Messenger

from sgworld_mcmc.model.observed_values import ObservedValues

__all__ = ["AskedForKey", "Site", "trace_of", "unconstrained"]


class Site(NamedTuple):
    """What a trace says about a site, without its values."""

    kind: str  # "latent", "observed", "factor", "deterministic" or "random"
    shape: tuple[int, ...]
    discrete: bool
    plates: tuple[tuple[str, int], ...]  # names and sizes
    enumerable: bool = False
    nesting: int = 0  # number of the axes that are those of plates
    values: ObservedValues | None = None  # where the values of an observed site must lie


class AskedForKey(Messenger):
    """A model that notes whether it asks for random keys, with ``numpyro.prng_key``."""

    asked = False

    def process_message(self, msg: dict) -> None:
        self.asked = self.asked or msg["type"] == "prng_key"


def trace_of(model: Callable, rng_key: jax.Array, strategy: Callable, args, kwargs) -> dict:
    """Return NumPyro's trace of a model whose latent sites have the values of a strategy."""
    # The handler of the seed is the inner one: initialisation strategies draw with its keys.
    substituted = handlers.substitute(handlers.seed(model, rng_key), substitute_fn=strategy)
    return handlers.trace(substituted).get_trace(*args, **kwargs)


def unconstrained(site: dict) -> jax.Array:
    """Return the value of a latent site in unconstrained coordinates."""
    return biject_to(site["fn"].support).inv(site["value"])
