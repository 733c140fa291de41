"""Put the rows that matter more than others into every batch."""

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.in_memory import generator_of, take_rows
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.take_all import TakeAll, TakeAllModel
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import MOST_PRODUCTS, set_up_feed
from sgworld_mcmc.setup.influential_rows import FEW, chosen_rows
from sgworld_mcmc.setup.posterior import Posterior, gaussian_draws

__all__ = ["taken_out", "with_take_all"]

# The noise of at most this many rows is measured whole, and the batches are large parts of them.
FEW_ROWS = 2**11
# Rows that matter are looked for among so many: of more rows each pass counts.
MOST_ROWS = 2**21
# A number that, beside the seed, begins random numbers of its own.
OWN = 13


def with_take_all(
    seed: np.ndarray, posterior: Posterior, settings: Settings
) -> tuple[Posterior, np.ndarray]:
    """Return the posterior with the rows that matter in every batch, and their indices (k,).

    The indices are those of the shuffled rows. There are none where such rows are not looked for:
    where rows lie on several devices or go by group, where they are few or very many, where all of
    them are one batch, and where a user has given everything that could be chosen.

    Parameters
    ----------
    seed
        Integers that begin the random numbers of the points where slopes are looked at.
    posterior
        The posterior, in coordinates of its mode.
    """
    size, model = posterior.size, posterior.functions.model
    given = settings.complete or (settings.batch_size or 0) > size - FEW
    many = size > MOST_ROWS or size * posterior.fit.dimension**2 > MOST_PRODUCTS
    special = model.random or model.reason is not None or posterior.structure is not None
    apart = posterior.layout is not None or posterior.whole is not None or posterior.strata > 1
    if given or size <= FEW_ROWS or many or special or apart or not posterior.coordinates.whitens:
        return posterior, np.zeros(0, int)
    stage("rows that matter")
    count_rows(size)
    # Both sides of the center, and far from it along all directions if they are few.
    draws = gaussian_draws(generator_of(np.append(seed, OWN)), posterior)
    far = draws[np.abs(posterior.coordinates.along(draws)).min(1).argmax()]
    places = np.sqrt(posterior.temperature) * np.stack([far, -far])
    functions, data = posterior.functions, (posterior.rows_double, posterior.constants_double)
    with jax.enable_x64(model.precise):
        coordinates = jax.tree.map(from_numpy, posterior.coordinates)
        found = functions.influences(coordinates, from_numpy(places), *data)
        few = chosen_rows(np.asarray(found, float))
        if len(few) == 0:
            return posterior, few
        double = taken_out(model, *data, few)
        feed = set_up_feed(double[1])
    same = posterior.rows is posterior.rows_double
    rows, constants = posterior.rows, posterior.constants
    run = double if same else taken_out(model, rows, constants, few)
    changed = posterior._replace(
        functions=functions_of(double[0], functions.strategy),
        rows=run[1],
        constants=run[2],
        rows_double=double[1],
        constants_double=double[2],
        feed_double=feed,
    )
    return changed, few


def taken_out(
    model: MinibatchModel, rows: tuple, constants: tuple, few: np.ndarray
) -> tuple[TakeAllModel, tuple, TakeAll]:
    """Return model, rows and constants that have these rows in every batch; the same model again.

    Parameters
    ----------
    rows, constants
        All rows, and the constants of the user's model.
    few
        Indices of the rows.
    """
    place = "take all", len(few)
    if place not in model.kept:
        model.kept[place] = TakeAllModel(model, len(few))
    others = np.delete(np.arange(model.size), few)
    return model.kept[place], take_rows(rows, others), TakeAll(constants, take_rows(rows, few))
