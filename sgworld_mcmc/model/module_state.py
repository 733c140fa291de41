"""What modules of Flax and Equinox bring into a model beside its latent sites.

``numpyro.contrib.module`` registers a module's weights as one ``numpyro.param`` site, and puts
priors on all or some of them. Statistics that a module keeps, such as those of BatchNorm, are a
``numpyro.mutable`` site.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.model.traces import Site

__all__ = ["module_sites"]


def module_sites(trace: dict[str, dict], latents: list[str]) -> dict[str, Site]:
    """Return the parts of a trace that are neither sampled nor observed, by name.

    Parameters
    ----------
    trace
        NumPyro's trace of the model.
    latents
        Names of the latent sites.

    Returns
    -------
    dict
        Sites of the kind ``"fixed"``, weights without a prior, which keep their initial values; and
        of the kind ``"mutable"``, the state of modules as far as it consists of real numbers.
    """
    found = {}
    for name, site in trace.items():
        if site["type"] == "param":
            for part, leaf in _without_prior(name, site["value"], latents):
                found[part] = Site("fixed", jnp.shape(leaf), False, ())
        elif site["type"] == "mutable":
            shapes = [jnp.shape(leaf) for leaf in jax.tree.leaves(site["value"]) if _is_real(leaf)]
            if shapes:
                found[name] = Site("mutable", shapes[0], False, ())
    return found


def _without_prior(name: str, value: Any, latents: list[str]) -> list[tuple[str, Any]]:
    """Return the names and values of the numbers of a ``numpyro.param`` site without a prior."""
    module = name.removesuffix("$params")
    sampled = [latent for latent in latents if latent.startswith(module)]
    found = []
    # Where a weight has a prior, NumPyro leaves its shape only, or (Equinox) its initial value.
    for path, leaf in jax.tree_util.tree_leaves_with_path(value):
        dotted = jax.tree_util.keystr(path, simple=True, separator=".")
        spelled = jax.tree_util.keystr(path)[1:]
        known = any(latent.endswith(own) for latent in sampled for own in (dotted, spelled) if own)
        if _is_real(leaf) and not known:
            found.append((f"{module}/{dotted}" if dotted else name, leaf))
    return found


def _is_real(leaf: Any) -> bool:
    is_array = isinstance(leaf, jax.Array | np.ndarray | float)
    return is_array and jnp.issubdtype(jnp.result_type(leaf), jnp.floating)
