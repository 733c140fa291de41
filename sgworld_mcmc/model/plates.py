"""Handlers that make plates as long as the rows that a model is given, or full."""

from collections.abc import Callable

import jax.numpy as jnp
from numpyro.primitives import Messenger

from sgworld_mcmc.data.model_views import as_model_sees

__all__ = ["FullData", "RowPlates"]


class RowPlates(Messenger):
    """Make the data plates cover exactly the rows that the model was given.

    ``plates`` are the names of the data plates. A data plate with a ``subsample_size`` becomes a
    full one over the rows (any other subsampled plate becomes full, as in :class:`FullData`). A
    data plate whose size is written into the model, as in ``plate("N", 1000)``, is cut to the rows;
    the scale that NumPyro derives from its size is recorded in ``scales``, so that it can be
    undone.
    """

    def __init__(self, fn: Callable, plates: frozenset[str], rows: int) -> None:
        super().__init__(fn)
        self.plates, self.rows, self.scales = plates, rows, {}

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "plate" and msg["name"] in self.plates:
            size = msg["args"][0]
            msg["args"] = (size, self.rows)
            msg["value"] = jnp.arange(self.rows)
            if size != self.rows:
                self.scales[msg["name"]] = size / self.rows
        elif msg["type"] == "plate":
            _make_full(msg)
        elif msg["type"] == "subsample":
            # The rows are the minibatch already: without event_dim the plate does not cut them.
            msg["kwargs"] = {**msg["kwargs"], "event_dim": None}


class FullData(Messenger):
    """A model with every subsampled plate made full, so that it sees all rows.

    It is a Messenger, so that ``numpyro.infer.log_likelihood``, ``Predictive`` and ArviZ can call
    it like the model itself. Sparse rows among the arguments reach the model as a sparse matrix.
    """

    def __call__(self, *args, **kwargs):
        args, kwargs = as_model_sees((args, kwargs))
        return super().__call__(*args, **kwargs)

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "plate":
            _make_full(msg)


def _make_full(msg: dict) -> None:
    size, subsample_size = msg["args"]
    if subsample_size not in (None, size):
        msg["args"], msg["value"] = (size, size), jnp.arange(size)
