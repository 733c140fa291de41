"""Compare all that two runs have, bit for bit."""

import jax
import numpy as np

__all__ = ["numbers", "same"]


def numbers(tree):
    """Return the arrays of a pytree as NumPy's; random keys as their words."""
    key = lambda x: jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda x: np.asarray(jax.random.key_data(x) if key(x) else x), tree)


def same(a, b):
    """Check all that two runs have, bit for bit."""
    jax.tree.map(np.testing.assert_array_equal, numbers(a.last_state), numbers(b.last_state))
    for read in ("get_samples", "get_extra_fields"):
        one, other = (numbers(getattr(x, read)(group_by_chain=True)) for x in (a, b))
        # Random keys on disk are their words.
        jax.tree.map(np.testing.assert_array_equal, one, other)
