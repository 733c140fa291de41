"""What the other processes of a run on several hosts do while the first one saves it."""

from typing import Any

import jax

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.checkpoint.copies import is_key
from sgworld_mcmc.checkpoint.states import host_leaves, like
from sgworld_mcmc.hosts import all_of
from sgworld_mcmc.sampling.collection import Collected, Collection
from sgworld_mcmc.sampling.loop import collect, empty_buffers

__all__ = ["Follower", "tell_followers"]


def tell_followers(begin: Any, collection: Collection, buffers: Any, *, ended: bool) -> None:
    """Tell the other processes where the run goes on; the first process calls this.

    Parameters
    ----------
    begin
        The state of the chains.
    collection
        What is to be collected from there.
    buffers
        The draws that an earlier run has made, or None if there are none.
    ended
        Whether all draws are there already.
    """
    words = None if buffers is None else host_leaves(buffers)
    all_of((host_leaves(begin), collection, words, ended))


class Follower:
    """The saved run as the processes see it that save nothing.

    It has those members of :class:`~sgworld_mcmc.checkpoint.saved_run.SavedRun` that a run uses.
    """

    on_disk = False

    def collect(self, state, args, kwargs, *, collection: Collection, **options: Any) -> Collected:
        """Make the draws from where the first process says."""
        leaves, collection, words, ended = all_of(None)[0]
        begin, buffers = like(state, leaves), options.pop("buffers")
        if words is not None:
            named = {name: options[name] for name in ("sampler", "postprocess")}
            buffers = like(
                empty_buffers(state, args, kwargs, collection=collection, **named), words
            )
        if ended:
            buffers = jax.tree.map(lambda x: x if is_key(x) else from_numpy(x), buffers)
            return Collected(buffers, begin, collection.draws)
        return collect(begin, args, kwargs, collection=collection, buffers=buffers, **options)

    def close(self) -> None:
        """Do nothing: the folder is the first process's."""
