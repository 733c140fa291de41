"""Tell whether a run should leave what was found, because it is not where the posterior is."""

import jax

from sgworld_mcmc.data.in_memory import head
from sgworld_mcmc.setup.choose import Choice
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_at_mass import LOST_AT_MODE
from sgworld_mcmc.setup.coordinates_from_pilots import MOST_LOST
from sgworld_mcmc.setup.fitted_gaussian import GAUSSIAN_DIMENSION
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.tied_latents import FEW_ROWS, has_tied_latents

__all__ = ["is_doubtful", "is_slow", "says_nothing"]

# If searches end in several places, and a draw about one of them takes so many epochs, then that
# one does not have the posterior's shape.
SLOW = 250


def is_doubtful(found: CoordinateFit) -> bool:
    """Return whether what was found may be one place of several."""
    return bool(found.other_modes) or found.scattered


def is_slow(choice: Choice | None) -> bool:
    """Return whether each draw takes very many epochs, if settings were chosen."""
    return choice is not None and choice.steps_per_draw >= SLOW * choice.num_batches


def says_nothing(found: CoordinateFit, posterior: Posterior, measurements: Measurements) -> bool:
    """Return whether chains do not stay about what was found, which then says nothing.

    It is one mode of several, or a Gaussian fitted where there is none. If it seems to be the only
    mode, a Gaussian was fitted as well, in few enough dimensions, and chains did not stay about
    that either; but they may be lost in the neck of a hierarchy, where other dynamics are no help.
    """
    lost = measurements.lost
    if is_doubtful(found):
        return lost > (LOST_AT_MODE if found.scattered else MOST_LOST)
    many = posterior.fit.dimension > GAUSSIAN_DIMENSION
    if lost <= MOST_LOST or many or posterior.structure is not None:
        return False
    few = head(posterior.feed_double, FEW_ROWS).fetch((), 0).main
    with jax.enable_x64(posterior.functions.model.precise):
        model, constants = posterior.functions.model, posterior.constants_double
        return not has_tied_latents(model, found.coordinates.center, few, constants)
