"""Decide the precision of a run, and check what single precision may have hidden.

The search for the mode is in double precision wherever the model allows it. A run is in that of the
user unless rounding would move its draws.
"""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.model.additivity import check_minibatching
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit

__all__ = ["Precision", "precision_at"]

# The run is in double precision if rounding in single precision moves a position by more posterior
# standard deviations than this.
ROUNDING = 0.01


class Precision(NamedTuple):
    """The precision of a run.

    Attributes
    ----------
    double
        Whether it is double precision.
    too_coarse
        Whether the run needs double precision but cannot have it.
    """

    double: bool
    too_coarse: bool = False


def precision_at(fit: CoordinateFit, checked: CheckedModel, constants: tuple) -> Precision:
    """Return the precision of a run around a mode, and check the model there once more.

    Parameters
    ----------
    constants
        The constants in the precision of the search.
    """
    _check_additivity(fit, checked, constants)
    user = bool(jax.config.jax_enable_x64)
    rounding = np.abs(fit.coordinates.center) * np.finfo(np.float32).eps / 2
    coarse = not user and bool(np.max(fit.coordinates.error_of(rounding)) > ROUNDING)
    double = user or (coarse and checked.model.precise)
    return Precision(double, coarse and not double)


def _check_additivity(fit: CoordinateFit, checked: CheckedModel, constants: tuple) -> None:
    """Check at the mode once more that the model is a sum over rows, if that is in doubt.

    In single precision sums far from the mode may be so large that they hide what does not add up.
    """
    view, center = checked.model, fit.coordinates.center
    if view.precise or view.size == 1:
        return
    ahead = fit.coordinates.to_model(np.ones(len(center)))
    points = [from_numpy(point) for point in (center, ahead) if np.isfinite(point).all()]
    additive = check_minibatching(view, view.evaluate, checked.part, constants, points)
    if additive != view.additive:
        raise NotMinibatchable(
            f"The sites {sorted(additive ^ view.additive)} are a sum over rows at some points and "
            "not at others, as far as single precision can tell. Pass NumPy arrays that the model "
            "refers to as arguments: it can then be looked at in double precision."
        )
