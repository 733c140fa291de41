"""Put those streamed rows that matter more than others into every batch."""

import jax
import numpy as np

from sgworld_mcmc.model.take_all import TakeAll, taking_all
from sgworld_mcmc.progress import stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.influential_rows import chosen_rows
from sgworld_mcmc.setup.streamed.posterior import FoundPosterior
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.rows_without import RowsWithout

__all__ = ["few_that_matter", "without_few"]


def few_that_matter(found: FoundPosterior, settings: Settings) -> np.ndarray:
    """Return the numbers (k,) of the rows that matter, from a pass if there seem to be any.

    They are those that the rows have in their sources.
    """
    if found.look is None or (settings.complete and found.problem is None):
        return np.zeros(0, int)
    stage("rows that matter")
    model, whole = found.posterior.functions.model, found.posterior.whole
    with jax.enable_x64(model.precise):
        numbers, slopes, directions = whole.influences(found.look)
    chosen = numbers[chosen_rows(slopes, directions, whole.rows.size)]
    return np.array([whole.rows.place(number) for number in chosen.tolist()], int)


def without_few(
    checked: CheckedModel, rows: Rows, few: np.ndarray
) -> tuple[CheckedModel, RowsWithout]:
    """Return model and rows of which a few are in every batch."""
    model = taking_all(checked.model, len(few))
    taken = Rows(rows.leaves, model.precise)
    stratum = taken.empty(len(few))
    for place, number in enumerate(few.tolist()):
        taken.read(number, number + 1, tuple(x[place : place + 1] for x in stratum))
    others = TakeAll(checked.others, stratum)
    return checked._replace(model=model, others=others), RowsWithout(rows.leaves, rows.double, few)
