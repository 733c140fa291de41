"""Record a chain's lagged moments, at every time step of the theory.

The time step is a minibatch step if batches are drawn with replacement. Without replacement it is
the epoch or epochs in which the noise of the batches cancels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.protocols import ArrayTree
from sgworld_mcmc.sampling import lagged_moments

__all__ = ["Recorder"]


class Recorder(NamedTuple):
    """What is recorded of a chain, and when. All fields but the center are static.

    Attributes
    ----------
    coordinates
        Number of leading coordinates whose moments are recorded; 0 for none.
    period
        Number of epochs in a time step; 0 if the time step is a minibatch step.
    center
        (coordinates,) origin from which positions are measured.
    """

    coordinates: int
    period: int
    center: jax.Array | None = None

    def empty(self, position: jax.Array) -> ArrayTree:
        """Return the record of a chain that has made no step; ``()`` if nothing is recorded."""
        if not self.coordinates:
            return ()
        return lagged_moments.empty(jnp.zeros_like(position[: self.coordinates]))

    def begin(self, record: ArrayTree) -> ArrayTree:
        """Return the open sums of a draw."""
        return lagged_moments.begin(record) if self.coordinates else ()

    def add(self, sums: ArrayTree, position: jax.Array) -> ArrayTree:
        """Add a position to the open sums."""
        return lagged_moments.add(sums, position[: self.coordinates], self.center)

    @property
    def observer(self):
        """The observer of a sweep, which adds every step; None if not every step counts."""
        return self.add if self.coordinates and self.period == 0 else None

    def after(self, sums, position, step, epochs, count: int):
        """Add the position after a segment if an epoch, or a period of them, ends there.

        Parameters
        ----------
        step
            Number of minibatch steps made.
        epochs
            Number of epochs made since the first draw.
        count
            Number of batches M.
        """
        if not self.coordinates or self.period == 0:
            return sums
        ends = step % count == 0
        if self.period > 1:
            ends = ends & (epochs % self.period == 0)
        return jax.lax.cond(ends, self.add, lambda sums, _: sums, sums, position)

    def close(self, record, sums, warming, number):
        """Return the record with the sums of draw ``number`` added, if it was no warm-up call."""
        if not self.coordinates:
            return record
        return jax.lax.cond(
            warming, lambda: record, lambda: lagged_moments.absorb(record, sums, number)
        )
