"""The flat unconstrained position of a model's latent sites: where each of them lies in it."""

from typing import Any

import jax
import numpy as np
from jax.flatten_util import ravel_pytree

__all__ = ["FlatPosition"]


class FlatPosition:
    """The places of latent sites in one vector of D unconstrained coordinates.

    Parameters
    ----------
    shapes
        Unconstrained shape of each latent site.

    Attributes
    ----------
    latents
        Names of the latent sites, sorted, in the order of the flat position.
    shapes
        Their shapes.
    dimension
        Length D of the flat position.

    Examples
    --------
    >>> places = FlatPosition({"b": (2,), "a": ()})
    >>> places.dimension, places.scalar_names()
    (3, ['a', 'b[0]', 'b[1]'])
    """

    def __init__(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self.latents = tuple(sorted(shapes))
        self.shapes = {name: shapes[name] for name in self.latents}
        self.dimension = sum(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of unconstrained coordinates of each latent site."""
        return tuple(int(np.prod(self.shapes[name])) for name in self.latents)

    def unravel(self, flat: jax.Array | tuple) -> dict[str, jax.Array]:
        """Return the unconstrained sites of a flat position (D,), or of one cut at the sites."""
        # The transpose of one split is one concatenation, that of slices a sum of padded vectors,
        # which XLA does not vectorise.
        parts = flat if isinstance(flat, tuple) else jax.lax.split(flat, self.sizes)
        named = zip(self.latents, parts, strict=True)
        return {name: part.reshape(self.shapes[name]) for name, part in named}

    def ravel(self, params: dict[str, jax.Array]) -> jax.Array:
        """Return the flat position (D,) of unconstrained sites."""
        return ravel_pytree({name: params[name] for name in self.latents})[0]

    def scalar_names(self) -> list[str]:
        """Return a name for each of the D unconstrained coordinates, such as ``beta[3]``."""
        names = []
        for site in self.latents:
            for index in np.ndindex(*self.shapes[site]):
                names.append(site + (f"[{','.join(map(str, index))}]" if index else ""))
        return names

    def check_params(
        self, params: dict[str, Any], leading: tuple[int, ...] | None, name: str
    ) -> None:
        """Raise unless ``params`` has exactly the latent sites, of shapes ``leading`` + their own.

        If ``leading`` is None, any one common leading axis is allowed. One point is allowed always.
        """
        if not isinstance(params, dict):
            raise TypeError(
                f"`{name}` must be a dict of unconstrained values by site, not {type(params)}."
            )
        unknown, missing = sorted(set(params) - set(self.latents)), set(self.latents) - set(params)
        if unknown or missing:
            raise ValueError(
                f"`{name}` must name the latent sites {list(self.latents)}: "
                + (f"unknown {unknown}" if unknown else f"missing {sorted(missing)}")
                + ". Values are unconstrained, as in numpyro.infer.MCMC.run."
            )
        if leading is None:
            first = self.latents[0]
            extra = np.ndim(params[first]) - len(self.shapes[first])
            leading = np.shape(params[first])[:1] if extra == 1 else ()
        if all(np.shape(params[site]) == self.shapes[site] for site in self.latents):
            return  # one point for all chains
        for site in self.latents:
            if np.shape(params[site]) != leading + self.shapes[site]:
                raise ValueError(
                    f"`{name}[{site!r}]` has shape {np.shape(params[site])}, expected "
                    f"{leading + self.shapes[site]}"
                    + (f" (chains first) or {self.shapes[site]} for all." if leading else ".")
                )
