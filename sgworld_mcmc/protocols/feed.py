"""Where the batches come from."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import jax

from sgworld_mcmc.protocols.types import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = ["Batch", "Feed"]


class Batch(NamedTuple):
    """One minibatch.

    Attributes
    ----------
    main
        Pytree of arrays (b, ...) with the number of rows that all batches have.
    extra
        Pytree of arrays (w, ...) with w rows more, nearly always one, or None if all batches have
        the same size.
    has_extra
        Whether this batch has the extra rows, a bool array.
    """

    main: ArrayTree
    extra: ArrayTree | None
    has_extra: jax.Array


class Feed(ABC):
    """Where batches come from: N rows dealt into M batches.

    A feed is a pytree. What differs from chain to chain, such as which rows are in which batch, is
    a state of the chain's own that :meth:`init` and :meth:`renew` return; ``()`` if there is none.

    Attributes
    ----------
    name
        Name in messages and tests.
    partitions
        Whether the batches of an epoch hold every row exactly once.
    parts
        Number of devices that share a batch, as a program of one of them sees it; each has as many
        rows as the others.
    shards
        Number of equal parts into which batches are cut for them.
    """

    name: ClassVar[str]
    partitions: ClassVar[bool] = True
    parts: ClassVar[int] = 1
    shards: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def deal(cls, rng_key: PRNGKey, data: ArrayLikeTree, batch_size: int) -> "Feed":
        """Deal rows, a pytree of arrays (N, ...), into ceil(N / batch_size) batches."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Number of rows N."""

    @property
    @abstractmethod
    def num_batches(self) -> int:
        """Number of batches M in an epoch."""

    def across(self, estimate: ArrayTree) -> ArrayTree:
        """Return the mean of an estimate over the devices that share a batch."""
        return estimate

    def init(self, rng_key: PRNGKey) -> ArrayTree:
        """Return the chain's own dealing of the rows for its first epoch."""
        return ()

    def renew(self, rng_key: PRNGKey, dealing: ArrayTree) -> ArrayTree:
        """Return the dealing for the epoch that begins."""
        return dealing

    @abstractmethod
    def fetch(self, dealing: ArrayTree, index: jax.Array | int) -> Batch:
        """Return batch number ``index`` of a dealing."""
