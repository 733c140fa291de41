"""May a model be evaluated in double precision where the user works in single?

JAX keeps one copy of every NumPy array that a traced function closes over, in the precision in
which it was first traced (0.10 and 0.12: the copy is looked up by the array's identity). A model
that closes over NumPy arrays can therefore be traced in one precision only; all others in both.
"""

from collections.abc import Callable, Iterator

import jax
import numpy as np

__all__ = ["closes_over_numpy"]


def closes_over_numpy(function: Callable, *args) -> bool:
    """Whether tracing ``function(*args)`` meets NumPy arrays that outlive the trace.

    Examples
    --------
    >>> import jax.numpy as jnp, numpy as np
    >>> weights = np.ones(3)
    >>> closes_over_numpy(lambda x: jnp.sum(weights * x), jnp.ones(3))
    True
    >>> closes_over_numpy(lambda x: jnp.sum(np.ones(3) * x), jnp.ones(3))
    False
    """
    # Arrays made during the call are new in each of two traces; the first must stay alive.
    traces = [jax.make_jaxpr(lambda *x: function(*x))(*args) for _ in range(2)]
    first, second = ({id(value) for value in _arrays(trace)} for trace in traces)
    return bool(first & second)


def _arrays(closed) -> Iterator[np.ndarray]:
    """NumPy arrays with an axis among the constants of a closed jaxpr."""
    for value in closed.consts:
        if isinstance(value, np.ndarray) and value.ndim:
            yield value
    yield from _literals(closed.jaxpr)


def _literals(jaxpr) -> Iterator[np.ndarray]:
    for equation in jaxpr.eqns:
        for variable in equation.invars:
            value = getattr(variable, "val", None)
            if isinstance(value, np.ndarray) and value.ndim:
                yield value
        for parameter in jax.tree.leaves(
            equation.params, is_leaf=lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")
        ):
            if hasattr(parameter, "consts"):
                yield from _arrays(parameter)
            elif hasattr(parameter, "eqns"):
                yield from _literals(parameter)
