"""Batches whose rows are all drawn independently: a row can repeat within a batch."""

from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import jax

from sgworld_mcmc.data.dealing import Blocks, split_rows
from sgworld_mcmc.data.dealt_rows import DealtRows
from sgworld_mcmc.protocols import PRNGKey

__all__ = ["IndependentRows"]


@partial(jax.tree_util.register_dataclass, data_fields=["data"], meta_fields=["count"])
@dataclass(frozen=True)
class IndependentRows(DealtRows):
    """The rows in memory; every row of every batch is drawn independently, anew each epoch.

    The covariance of the batch gradient is exactly 1/B of that of the examples, with B = N / M rows
    in each of the M batches of an epoch.
    """

    name: ClassVar[str] = "independent rows"
    partitions: ClassVar[bool] = False

    def init(self, rng_key: PRNGKey) -> Blocks:
        rows = jax.random.randint(rng_key, (self.size,), 0, self.size)
        return split_rows(rows, self.num_batches)
