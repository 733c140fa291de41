"""Check the user's functions of a draw, ``quantities`` and ``keep``, before the set-up."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["check_functions"]


def check_functions(
    model: MinibatchModel, data: tuple, constants: tuple, **functions: Callable | None
) -> None:
    """Call the functions on abstract sites of one draw.

    Parameters
    ----------
    data, constants
        The data leaves and the constant leaves; only their shapes are looked at.
    **functions
        Functions of the constrained sites of one draw by the name of their setting, or None.

    Raises
    ------
    TypeError
        If a function fails or returns no arrays; the message names it and the sites that exist.
    """
    given = {name: function for name, function in functions.items() if function is not None}
    if not given:
        return
    kind = jax.dtypes.canonicalize_dtype
    abstract = lambda x: jax.ShapeDtypeStruct(jnp.shape(x), kind(x.dtype))  # noqa: E731
    rows, constants = jax.tree.map(abstract, (data, constants))
    real = jnp.result_type(float)
    params = {name: jax.ShapeDtypeStruct(model.shapes[name], real) for name in model.latents}
    sites = jax.eval_shape(model.constrain, params, rows, constants)
    there = ", ".join(f"{name} {site.shape}" for name, site in sites.items())
    for name, function in given.items():
        _check(name, function, sites, there)


def _check(name: str, function: Callable, sites: dict[str, Any], there: str) -> None:
    rule = (
        f"It is given a dict of the sites of one draw: {there}. JAX traces it, so that it must "
        "compute with jax.numpy and return arrays, alone or in a dict, list or tuple."
    )
    try:
        made = jax.eval_shape(function, sites)
    except Exception as error:
        text = repr(error) if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
        raise TypeError(f"`{name}` fails: {text.splitlines()[0].rstrip('.')}. {rule}") from error
    leaves = jax.tree.leaves(made)
    if not leaves or any(jnp.issubdtype(x.dtype, jax.dtypes.extended) for x in leaves):
        raise TypeError(f"`{name}` returns no numbers. {rule}")
