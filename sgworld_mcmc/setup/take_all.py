"""Put the rows that matter more than others into every batch."""

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.in_memory import generator_of, order_without, take_rows
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.take_all import TakeAll, TakeAllModel, taking_all
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.influential_rows import (
    FEW,
    Look,
    are_very_many,
    chosen_rows,
    places_about,
)
from sgworld_mcmc.setup.posterior import Posterior

__all__ = ["take_out", "taken_out", "with_take_all"]

# The noise of at most this many rows is measured whole, and the batches are large parts of them.
FEW_ROWS = 2**11
# A pass is made to look for rows that matter if rows times squared dimensions are at most so many:
# it takes less time than a Hessian.
MOST_PRODUCTS = 2 * 10**10
# A number that, beside the seed, begins random numbers of its own.
OWN = 14


def with_take_all(
    seed: np.ndarray, posterior: Posterior, settings: Settings
) -> tuple[Posterior, np.ndarray]:
    """Return the posterior with the rows that matter in every batch, and their indices (k,).

    The indices are those of the shuffled rows. There are none where such rows are not looked for:
    where rows lie on several hosts, where they are few, or very many of which the search for the
    mode has seen none, where all of them are one batch, and where a user has given everything that
    could be chosen.

    Parameters
    ----------
    seed
        Integers that begin the random numbers of the points where slopes are looked at.
    posterior
        The posterior, in coordinates of its mode or by group. The derivatives of its rows are
        returned with it where parameters go by group.
    """
    size, model = posterior.size, posterior.functions.model
    given = settings.complete or (settings.batch_size or 0) > size - FEW
    special = model.random or model.reason is not None or not posterior.coordinates.whitens
    if given or special or posterior.whole is not None or size <= FEW_ROWS:
        return posterior, np.zeros(0, int)
    if posterior.structure is not None:
        stage("derivatives of the rows")
        posterior = posterior.with_row_derivatives()
        found = _by_derivatives(posterior)
    else:
        found = _by_slopes(seed, posterior)
    posterior = posterior._replace(fit=posterior.fit._replace(decided=()))
    few = np.zeros(0, int) if found is None else chosen_rows(*found)
    return (take_out(posterior, few) if len(few) else posterior), few


def _by_slopes(seed: np.ndarray, posterior: Posterior) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (N,) largest slopes of the rows, and the numbers of their directions."""
    size, functions = posterior.size, posterior.functions
    few = not are_very_many(size) and size * posterior.fit.dimension**2 <= MOST_PRODUCTS
    if not few and not posterior.fit.decided:
        return None
    stage("rows that matter")
    count_rows(size)
    places = places_about(generator_of(np.append(seed, OWN)), posterior.coordinates)
    places = np.sqrt(posterior.temperature) * places
    with jax.enable_x64(functions.model.precise):
        found = functions.influences(
            Look(*jax.tree.map(from_numpy, (posterior.coordinates, places))),
            posterior.rows_double,
            posterior.constants_double,
        )
        return np.asarray(found[0], float), np.asarray(found[1])


def _by_derivatives(posterior: Posterior) -> tuple[np.ndarray, np.ndarray] | None:
    """Return (N,) largest slopes of the rows along what all groups share, and along which of it.

    They are those at the center, and the root mean squares that follow from the curvatures there.
    """
    known, structure = posterior.row_derivatives, posterior.structure
    if known is None or len(structure.groupings) > 1:
        return None
    start, found = len(known.first) - len(structure.rest), [np.zeros(posterior.size)]
    for number, deviation in enumerate(posterior.coordinates.deviations()[structure.rest], start):
        curvature = np.abs(known.second[number][number])
        found.append(deviation * np.maximum(np.abs(known.first[number]), np.sqrt(curvature)))
    return np.max(found, axis=0), np.argmax(found, axis=0)


def take_out(posterior: Posterior, few: np.ndarray) -> Posterior:
    """Return the posterior with these of its rows in every batch."""
    functions, rows, constants = posterior.functions, posterior.rows, posterior.constants
    model, structure, known = functions.model, posterior.structure, posterior.row_derivatives
    shards = posterior.strata
    with jax.enable_x64(model.precise):
        double = taken_out(model, posterior.rows_double, posterior.constants_double, few, shards)
        feed = set_up_feed(double[1], shards, posterior.layout)
    same = rows is posterior.rows_double
    single = double if same else taken_out(model, rows, constants, few, shards)
    others = order_without(few, posterior.size, shards)
    if structure is not None:
        left = [g._replace(index=g.index[others]) for g in structure.groupings]
        structure = structure._replace(groupings=tuple(left))
    if known is not None:
        known = jax.tree.map(lambda x: x[others], known)
    return posterior._replace(
        functions=functions_of(double[0], functions.strategy),
        rows=single[1],
        constants=single[2],
        rows_double=double[1],
        constants_double=double[2],
        feed_double=feed,
        structure=structure,
        row_derivatives=known,
    )


def taken_out(
    model: MinibatchModel, rows: tuple, constants: tuple, few: np.ndarray, shards: int
) -> tuple[TakeAllModel, tuple, TakeAll]:
    """Return model, rows and constants that have these rows in every batch; the same model again.

    Parameters
    ----------
    rows, constants
        All rows, and the constants of the user's model.
    few
        Indices of the rows.
    shards
        Number of parts from which the rows come in turn.
    """
    others = order_without(few, model.size, shards)
    made = taking_all(model, len(few))
    return made, take_rows(rows, others), TakeAll(constants, take_rows(rows, few))
