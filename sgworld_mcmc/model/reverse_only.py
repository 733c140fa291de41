"""Give a log density that knows only its reverse mode the forward mode of second derivatives.

Functions with a derivative rule of their own, such as ``jax.experimental.ode.odeint``, refuse
forward-mode differentiation. The product of a Hessian with a vector can be had from two reverse
passes all the same, because a Hessian is symmetric.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["is_reverse_only", "with_forward_mode"]


def is_reverse_only(closed: Any) -> bool:
    """Return whether a closed jaxpr calls a function with a reverse rule of its own.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> from jax.experimental.ode import odeint
    >>> decay = lambda rate: odeint(lambda y, t: -rate * y, 1.0, jnp.arange(3.0)).sum()
    >>> is_reverse_only(jax.make_jaxpr(decay)(1.0))
    True
    >>> is_reverse_only(jax.make_jaxpr(lambda rate: rate**2)(1.0))
    False
    """
    return any(_has_rule(equation) for equation in closed.jaxpr.eqns)


def with_forward_mode(density: Callable) -> Callable:
    """Return the same function of (position, ...), differentiable twice in the first argument.

    Parameters
    ----------
    density
        A scalar function; reverse mode works twice.

    Examples
    --------
    >>> import jax
    >>> cube = with_forward_mode(lambda x, factor: factor * x**3)
    >>> slope, curvature = jax.jvp(lambda x: jax.grad(cube)(x, 2.0), (1.0,), (1.0,))
    >>> float(slope), float(curvature)
    (6.0, 12.0)
    """

    gradient = jax.grad(density)

    @jax.custom_jvp
    def slope(position, *rest):
        return gradient(position, *rest)

    @slope.defjvp
    def slope_forward(at, along):
        found, pull = jax.vjp(lambda position: gradient(position, *at[1:]), at[0])
        return found, pull(along[0])[0]

    @jax.custom_jvp
    def height(position, *rest):
        return density(position, *rest)

    @height.defjvp
    def height_forward(at, along):
        return height(*at), jnp.vdot(slope(*at), along[0])

    return height


def _has_rule(equation: Any) -> bool:
    if equation.primitive.name.startswith("custom_vjp_call"):
        return True
    inner = jax.tree.leaves(equation.params, is_leaf=_is_jaxpr)
    return any(_has_rule(each) for part in inner if _is_jaxpr(part) for each in _open(part).eqns)


def _is_jaxpr(value: Any) -> bool:
    return hasattr(value, "eqns") or hasattr(value, "jaxpr")


def _open(value: Any) -> Any:
    return value.jaxpr if hasattr(value, "jaxpr") else value
