"""Find coordinates about the mass of a posterior whose mode lies elsewhere.

The mode of a non-centred hierarchy is where its scale is largest, up to seven times the scale of
the mass: most pilot chains that start about such a mode are lost, and the others are slow to leave
it.
"""

import jax
import numpy as np

from sgworld_mcmc.progress import stage
from sgworld_mcmc.setup.coupled_chains import Pilot
from sgworld_mcmc.setup.fitted_gaussian import stepwise_gaussian
from sgworld_mcmc.setup.mode_search import ModeSearch
from sgworld_mcmc.setup.pilot_chains import reference_pilots
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws

__all__ = ["about_mass"]

# If a larger fraction of the chains about a mode is lost even at the smallest step, the mass is
# elsewhere.
LOST_AT_MODE = 0.02


def about_mass(
    generator: np.random.Generator, posterior: Posterior, pilots: list[Pilot]
) -> tuple[Posterior, np.ndarray, tuple] | None:
    """Return the posterior about a Gaussian fitted to it, positions there and what pilots find.

    None if hardly one of the ``pilots`` about the mode is lost, if the coordinates are fitted
    already or there are too many, or if pilots are lost about the Gaussian too: the curvature at
    the mode then says more.
    """
    before = posterior.fit
    if pilots[0].diverged <= LOST_AT_MODE or before.fitted:
        return None
    if posterior.whole is not None or posterior.structure is not None:
        return None
    stage("coordinates")
    with jax.enable_x64(posterior.functions.model.precise):
        feed, constants = posterior.feed_double, posterior.constants_double
        search = ModeSearch(posterior.functions, feed, constants, generator)
        fit = stepwise_gaussian(search, np.asarray(before.coordinates.center))
    if fit is None:
        return None
    found = dict(converged=before.converged, gain=before.gain, other_modes=before.other_modes)
    posterior = posterior._replace(fit=fit._replace(modes=before.modes, **found))
    positions = gaussian_draws(generator, posterior)
    stage("pilot chains")
    tried = reference_pilots(generator, posterior, positions)
    return (posterior, positions, tried) if len(tried[0]) == 1 else None
