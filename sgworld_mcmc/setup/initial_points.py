"""The points that a user gives: those from which a search for the mode, or the chains, begin."""

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.model.additivity import check_initial
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel

__all__ = ["check_start", "initial_points"]


def check_start(settings: Settings, init_params: object) -> None:
    """Raise if chains are to start at given points, and none are given."""
    if settings.start == "given" and init_params is None:
        raise ValueError(
            "`start='given'` starts the chains at given points: pass them as `init_params`, a dict "
            "of unconstrained values by site, for all chains or with the axis of chains first."
        )


def initial_points(
    checked: CheckedModel, given: tuple[dict, tuple | None] | None
) -> np.ndarray | None:
    """Return (S, D) unconstrained points at which the log density is finite, or None.

    Parameters
    ----------
    given
        Unconstrained values by site with or without a leading axis, and the leading axis that they
        must have (None allows any); or None.
    """
    if given is None:
        return None
    view = checked.model
    points = _flat(view, *given)
    with jax.enable_x64(view.precise):
        check_initial(view.evaluate, points, checked.part, checked.constants(view.precise))
    return points


def _flat(view: MinibatchModel, init_params: dict, leading: tuple | None) -> np.ndarray:
    view.check_params(init_params, leading, "init_params")
    name = view.latents[0]
    if np.ndim(init_params[name]) == len(view.shapes[name]):
        return np.asarray(view.ravel(init_params), float)[None]
    return np.asarray(jax.vmap(view.ravel)(jax.tree.map(from_numpy, init_params)), float)
