"""Read draws in the forms in which samplers return them."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_value

from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["Unconstrained", "positions_of", "read_draws"]

# Values that the support allows come back from unconstrained coordinates to within this, in single
# precision too.
ROUNDING = 1e-3


class Unconstrained(dict):
    """Draws by site in NumPyro's unconstrained coordinates, as a BlackJAX sampler makes them.

    Examples
    --------
    >>> import numpy as np
    >>> draws = Unconstrained({"log_sigma": np.zeros((4, 100))})
    >>> sorted(draws)
    ['log_sigma']
    """


def read_draws(draws: Any) -> Mapping[str, np.ndarray]:
    """Return the draws by site as NumPy's arrays.

    Parameters
    ----------
    draws
        A mapping from sites to arrays (draws, ...) or (chains, draws, ...), such as those of
        ``mcmc.get_samples()``, of a guide or :class:`Unconstrained` ones; a NumPyro ``MCMC`` object
        after its run; an ArviZ object with a group ``posterior``; or the path of a file of ArviZ.

    Raises
    ------
    TypeError, ValueError
        If it is nothing of this kind.
    """
    if isinstance(draws, str | os.PathLike):
        import arviz

        draws = arviz.from_netcdf(os.fspath(draws))
    if hasattr(draws, "get_samples"):
        draws = draws.get_samples(group_by_chain=True)
    if hasattr(draws, "posterior"):
        posterior = draws.posterior
        draws = {str(name): posterior[name].values for name in posterior.data_vars}
    if not isinstance(draws, Mapping) or not draws:
        raise TypeError(
            f"`draws` must be a dict of arrays by site, an MCMC object after its run, an ArviZ "
            f"object or the path of its file, not {type(draws).__name__}."
        )
    read = {str(name): np.asarray(value) for name, value in draws.items()}
    return Unconstrained(read) if isinstance(draws, Unconstrained) else read


def positions_of(
    view: MinibatchModel, rows: tuple, constants: tuple
) -> Callable[[Mapping], np.ndarray]:
    """Return a function from draws to their (chains, draws, D) flat unconstrained positions.

    Parameters
    ----------
    view
        The model.
    rows, constants
        Some rows of the data, on which no latent site's support depends, and the other arrays.
    """
    # Sites with fewer coordinates than values, such as probabilities that sum to one.
    tied = [name for name in view.latents if view.shapes[name] != view.sites[name].shape]

    def one(params, rows, constants):
        # The sites' own supports are used: one may depend on the values of other sites.
        given = init_to_value(values=params)
        free = view.initial_params(jax.random.key(0), given, rows, constants)
        back = view.constrain(free, rows, constants) if tied else {}
        missed = {name: jnp.abs(back[name] - params[name]).max() for name in tied}
        return view.ravel(free), missed

    invert = jax.jit(jax.vmap(one, (0, None, None)))
    ravel = jax.jit(jax.vmap(lambda params, *_: (view.ravel(params), {}), (0, None, None)))

    def positions(draws):
        free = isinstance(draws, Unconstrained)
        flat, chains = _flat(view, draws, free)
        with jax.enable_x64(view.precise):
            values = {name: jnp.asarray(x, jnp.result_type(float)) for name, x in flat.items()}
            found, missed = (ravel if free else invert)(values, rows, constants)
        found = np.asarray(found, float)
        for name, far in missed.items():
            bad = ~(np.asarray(far) <= ROUNDING)
            if bad.any():
                raise ValueError(
                    f"`draws[{name!r}]` has values outside of the support of its prior, or on its "
                    f"boundary, in {int(bad.sum())} of {len(bad)} draws: numbers that do not add "
                    "up as they should, or no factor of a correlation matrix."
                )
        bad = ~np.isfinite(found).all(axis=1)
        if bad.any():
            column = int(np.argmax(~np.isfinite(found[bad][0])))
            raise ValueError(
                f"`draws` has values of {view.scalar_names()[column]} outside of the support of "
                f"its prior, or on its boundary, in {int(bad.sum())} of {len(bad)} draws."
            )
        return found.reshape(chains, -1, view.dimension)

    return positions


def _flat(view: MinibatchModel, draws: Mapping, free: bool) -> tuple[dict[str, np.ndarray], int]:
    """Return the values of the latent sites (S, ...), and the number of chains.

    Raises
    ------
    ValueError
        If a latent site is missing, has another shape or values that are not finite.
    """
    missing = [name for name in view.latents if name not in draws]
    if missing:
        raise ValueError(
            f"`draws` has no values of the latent sites {missing} of the model; it has those of "
            f"{sorted(draws)}. A reparametrised model has other latent sites: give `audit` the "
            "model that the draws are of."
        )
    shapes = view.shapes if free else {name: view.sites[name].shape for name in view.latents}
    leading = {name: _leading(name, draws[name], shapes[name]) for name in view.latents}
    if len(set(leading.values())) > 1:
        raise ValueError(f"`draws` differ in their numbers of chains and draws: {leading}.")
    chains, count = next(iter(leading.values()))
    flat = {name: draws[name].reshape(chains * count, *shapes[name]) for name in view.latents}
    for name, values in flat.items():
        bad = ~np.isfinite(values.reshape(len(values), -1)).all(axis=1)
        if bad.any():
            raise ValueError(
                f"`draws[{name!r}]` has NaN or infinity in {int(bad.sum())} of {len(bad)} draws: "
                "a chain has diverged. Leave it out."
            )
    return flat, chains


def _leading(name: str, values: np.ndarray, shape: tuple[int, ...]) -> tuple[int, int]:
    extra = values.ndim - len(shape)
    if extra not in (1, 2) or values.shape[extra:] != shape:
        raise ValueError(
            f"`draws[{name!r}]` has shape {values.shape}, expected (draws, ...) or (chains, draws, "
            f"...) with {shape} in place of the dots."
        )
    return values.shape[:2] if extra == 2 else (1, values.shape[0])
