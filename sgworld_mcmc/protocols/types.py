"""Names of types for readers: pytrees of arrays, and random keys."""

from typing import Any, TypeAlias

import jax

__all__ = ["ArrayLikeTree", "ArrayTree", "PRNGKey"]

# Pytrees of JAX arrays, pytrees of anything that JAX takes for arrays, and random keys. BlackJAX
# has the same names, but its import would start a backend.
ArrayTree: TypeAlias = Any
ArrayLikeTree: TypeAlias = Any
PRNGKey = jax.Array
