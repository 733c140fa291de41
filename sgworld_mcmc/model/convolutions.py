"""See whether a model is a network with convolutions whose weights are sampled.

Such a posterior has many modes, as that of any network, and each step of its gradient costs far
more than its number of weights says: a weight is used at every place of an image.
"""

from typing import Any

__all__ = ["has_convolutions"]


def has_convolutions(closed: Any) -> bool:
    """Return whether the first argument of a closed jaxpr makes the weights of a convolution.

    That is one of several output channels: ``jnp.convolve`` with a few latent values is no network.

    Examples
    --------
    >>> import jax, jax.numpy as jnp
    >>> image = jnp.ones((1, 1, 8, 8))
    >>> layer = lambda w: jax.lax.conv(image, w.reshape(4, 1, 3, 3), (1, 1), "SAME").sum()
    >>> has_convolutions(jax.make_jaxpr(layer)(jnp.ones(36)))
    True
    >>> lags = lambda w: jnp.convolve(jnp.ones(20), w).sum()
    >>> has_convolutions(jax.make_jaxpr(lags)(jnp.ones(5)))
    False
    """
    jaxpr = closed.jaxpr
    return _found(jaxpr, {id(jaxpr.invars[0])})


def _found(jaxpr: Any, dependent: set[int]) -> bool:
    """Return whether variables make the weights of a convolution in a jaxpr, or in one inside."""
    for equation in jaxpr.eqns:
        inputs = [id(variable) in dependent for variable in equation.invars]
        if not any(inputs):
            continue
        if equation.primitive.name == "conv_general_dilated" and inputs[1]:
            outputs, *_ = equation.params["dimension_numbers"].rhs_spec
            if equation.invars[1].aval.shape[outputs] > 1:
                return True
        for inner in _inner(equation):
            # The last arguments are those of the function; conditions come before them.
            given = inputs[len(inputs) - len(inner.invars) :]
            pairs = zip(inner.invars, given, strict=False)
            if _found(inner, {id(variable) for variable, known in pairs if known}):
                return True
        dependent |= set(map(id, equation.outvars))
    return False


def _inner(equation: Any) -> list[Any]:
    """Return the jaxprs inside of an equation."""
    found = []
    for value in equation.params.values():
        for one in value if isinstance(value, list | tuple) else (value,):
            one = getattr(one, "jaxpr", one)
            if hasattr(one, "eqns") and hasattr(one, "invars"):
                found.append(one)
    return found
