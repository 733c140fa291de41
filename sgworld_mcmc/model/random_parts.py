"""Random parts of a model, such as dropout and augmentation: where they are, and their keys.

A model has random parts if its log density depends on the keys that it asks for, by
``numpyro.prng_key()`` or as the state of an NNX module's ``rngs``. (A Flax module asks for a key to
make initial weights too; where all of them have a prior, the log density does not depend on it.)
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.primitives import Messenger

__all__ = ["RANDOM", "AskedForKey", "FreshState", "depends_on_first", "holds_keys", "key_at"]

# The name among a model's sites that stands for its random parts.
RANDOM = "numpyro.prng_key"


class AskedForKey(Messenger):
    """A model that notes whether it asks for random keys, or holds some in a module's state."""

    asked = False

    def process_message(self, msg: dict) -> None:
        kept = msg["type"] == "mutable" and holds_keys(msg["value"])
        self.asked = self.asked or kept or msg["type"] == "prng_key"


class FreshState(Messenger):
    """A model whose modules find keys made from ``rng_key`` in place of those of their state."""

    def __init__(self, fn: Callable, rng_key: jax.Array) -> None:
        super().__init__(fn)
        self.rng_key = rng_key

    def process_message(self, msg: dict) -> None:
        if msg["type"] != "mutable" or not holds_keys(msg["value"]):
            return
        leaves, treedef = jax.tree.flatten(msg["value"])
        for place, leaf in enumerate(leaves):
            if _is_key(leaf):
                self.rng_key, fresh = jax.random.split(self.rng_key)
                leaves[place] = jax.random.split(fresh, leaf.shape) if leaf.shape else fresh
        msg["value"] = jax.tree.unflatten(treedef, leaves)


def holds_keys(value: Any) -> bool:
    """Return whether there are typed random keys among the leaves of a pytree."""
    return any(map(_is_key, jax.tree.leaves(value)))


def key_at(params: dict[str, jax.Array], rows: tuple) -> jax.Array:
    """Return a key that belongs to a point and to rows, made from their bits.

    It serves where no key is given: in the set-up and in the report. Other points and other rows
    have other random numbers, and all derivatives at one point have the same.
    """
    first = jax.tree.map(lambda x: x[:1], rows)
    bits = sum(map(_bits, jax.tree.leaves((params, first))), jnp.zeros((), jnp.uint32))
    return jax.random.fold_in(jax.random.key(0), bits)


def depends_on_first(function: Callable, *args: Any) -> bool:
    """Return whether the results of a function depend on its first argument, an array.

    Nothing is computed. A result of a nested function counts as dependent if one of the
    arguments is.

    Examples
    --------
    >>> depends_on_first(lambda x, y: x + y, 1.0, 2.0)
    True
    >>> depends_on_first(lambda x, y: (x * y, y)[1], 1.0, 2.0)
    False
    """
    jaxpr = jax.make_jaxpr(function)(*args).jaxpr
    dependent = {id(jaxpr.invars[0])}
    for equation in jaxpr.eqns:
        if any(id(variable) in dependent for variable in equation.invars):
            dependent.update(map(id, equation.outvars))
    return any(id(variable) in dependent for variable in jaxpr.outvars)


def _is_key(value: Any) -> bool:
    return isinstance(value, jax.Array) and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _bits(x: jax.Array) -> jax.Array:
    """Return the sum of an array's bits, taken as whole numbers modulo 2^32."""
    x = jax.lax.stop_gradient(jnp.asarray(x))
    if jnp.issubdtype(x.dtype, jnp.floating):
        x = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return jnp.sum(x.astype(jnp.uint32), dtype=jnp.uint32)
