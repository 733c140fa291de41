"""Decide whether the rows of a batch are worth to be shared by several devices, and say why."""

from typing import NamedTuple

from sgworld_mcmc.data.dealing import is_shared, numbers_of
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.settings import Settings

__all__ = ["Sharing", "sharing_of"]


class Sharing(NamedTuple):
    """Into how many parts each batch is cut, and why.

    Attributes
    ----------
    shards
        Number of parts; 1 if batches stay whole.
    reason
        A clause for the report; empty if one part was asked for.
    """

    shards: int = 1
    reason: str = ""


def sharing_of(
    settings: Settings, view: MinibatchModel, rows: tuple, count: int, *, by_group: bool = False
) -> Sharing:
    """Return how the rows of the M batches of a run are shared.

    Parameters
    ----------
    rows
        The data leaves.
    count
        Number of batches M.
    by_group
        Whether rows are dealt into batches by their groups.
    """
    shards, length = settings.data_shards, view.size // count
    if shards == 1:
        return Sharing()
    each = numbers_of(rows)
    problem = None
    if not is_shared(length, each, shards):
        problem = (
            f"batches of {length} rows ({length * each} numbers) are too small for {shards} "
            "devices to gain by an exchange of gradients in every step"
        )
    elif settings.order.redeals:
        problem = f"the order {settings.order.name!r} deals all rows anew in every epoch"
    elif view.random:
        problem = "the model draws random numbers for the rows"
    elif view.reason is not None:
        problem = "the model is not cut into minibatches"
    elif by_group:
        problem = "rows are dealt into batches by group"
    if problem:
        return Sharing(1, f"every device has all rows, because {problem}")
    return Sharing(shards, f"each batch of {length} rows is shared in {shards} equal parts")
