"""Deal the rows into the batches of a run, and find what its gradients need to know about them.

The same functions deal the rows when a plan is made and when it is laid out again, so that the same
seed gives the same batches.
"""

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.contents import identity
from sgworld_mcmc.data.dealt_by_group import deal_by_group
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import cut, generator_of, take_rows
from sgworld_mcmc.device_layout import Layout
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.progress import count_rows, stage
from sgworld_mcmc.protocols import ArrayTree, Feed, Gradient
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.posterior import Posterior, derivatives
from sgworld_mcmc.setup.run_plan import RunData, RunPlan

__all__ = [
    "BY_GROUP",
    "controls_of",
    "dealt",
    "feed_of",
    "fingerprint_of",
    "reach_of",
    "run_data",
    "with_structure",
]

# Numbers that, beside the seed, begin random numbers of their own.
BY_GROUP, DEALING = 11, 12
# A batch is not bounded in what it does to a chain within the distance that BULK of the pilot
# chains keep to, and BEYOND standard deviations more.
BULK, BEYOND = 0.9, 6.0


def with_structure(posterior: Posterior, seed: np.ndarray) -> Posterior:
    """Return the posterior of a model with groups with its structure, which is looked for again."""
    own = generator_of(np.append(seed, BY_GROUP))
    with jax.enable_x64(posterior.functions.model.precise):
        structure = find_structure(
            own, posterior.functions, posterior.feed_double, posterior.constants_double
        )
    return posterior._replace(structure=structure)


def dealt(
    seed: np.ndarray, posterior: Posterior, dynamics: Dynamics
) -> tuple[Posterior, np.ndarray | None]:
    """Return the posterior with its rows in an order whose batches are dealt by group.

    The order is returned too; None if the rows are left as they are.
    """
    count = dynamics.num_batches
    if posterior.structure is None or dynamics.order.redeals or count == 1:
        return posterior, None
    stage("dealing the rows")
    generator = generator_of(np.append(seed, DEALING))
    index = posterior.structure.first.index
    order = deal_by_group(generator, index, posterior.curvatures(), count)
    return posterior._replace(rows=take_rows(posterior.rows, order)), order


def fingerprint_of(order: np.ndarray | None) -> int:
    """Return a number that tells orders of the rows apart; zero for none."""
    return 0 if order is None else identity({"order": order})[0]


def feed_of(rows: tuple, dynamics: Dynamics, layout: Layout | None = None):
    """Return the rows dealt into the batches of a run, over the devices that share them."""
    if dynamics.order.redeals:
        return DealtRows(rows, dynamics.num_batches)
    feed = cut(rows, dynamics.num_batches, dynamics.shards)
    return feed if layout is None else layout.place_feed(feed)


def controls_of(
    posterior: Posterior, gradient: Gradient, feed: Feed, order: np.ndarray | None = None
) -> ArrayTree:
    """Return what the gradient needs to know about the center.

    ``order`` is that in which the rows of a model with groups were dealt into batches.
    """
    if gradient.needs == 0:
        return ()
    stage("control variates")
    if gradient.visits_batches:
        coordinates = posterior.coordinates.cast(float_dtype())
        count_rows(posterior.size)
        return posterior.functions.offsets(
            coordinates, feed, posterior.constants, gradient=gradient
        )
    made = None
    batches_stay = isinstance(feed, FixedPartition)
    if posterior.structure is not None and gradient.needs > 1 and batches_stay:
        order = np.arange(posterior.size) if order is None else order  # all rows are one batch
        count, size = feed.num_batches, len(order)
        length, left = divmod(size, count)
        batches = np.full((count, length + (left > 0)), size)
        batches[:, :length] = order[: count * length].reshape(count, length)
        batches[:left, length:] = order[count * length :, None]
        if posterior.row_derivatives is None:  # nothing was measured
            posterior = posterior.with_row_derivatives()
        # The run's controls are those of log p: its temperature acts elsewhere.
        made = posterior._replace(temperature=1.0).taylor(batches, count)
    return gradient.prepare(None, None, None, *derivatives(posterior)) if made is None else made[1]


def reach_of(starts: np.ndarray, fit: CoordinateFit) -> float:
    """Return a length that the gradient hardly exceeds at draws of the posterior."""
    distance = np.quantile(np.linalg.norm(starts, axis=1), BULK)
    low, high = np.quantile(starts, (0.16, 0.84), axis=0)
    return float(fit.extremes()[0] * (distance + BEYOND * np.max(high - low) / 2))


def run_data(plan: RunPlan, view: MinibatchModel, feed, rows, constants, data) -> RunData:
    """Return the arguments of the loop; ``data`` are the data leaves in the user's order."""
    kept = set(view.deterministics) - set(view.left_out())
    ragged = isinstance(feed, FixedPartition) and feed.extra is not None
    return RunData(
        feed,
        constants,
        jax.tree.map(from_numpy, data) if kept else None,
        plan.tuning,
        view,
        plan.dynamics,
        rows if ragged and jax.default_backend() == "cpu" else None,
    )
