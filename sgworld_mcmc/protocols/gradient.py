"""What is computed from a batch."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import jax

from sgworld_mcmc.protocols.feed import Batch, Feed
from sgworld_mcmc.protocols.types import ArrayTree

__all__ = ["Gradient"]


class Gradient(ABC):
    """What is computed from a batch: an unbiased estimate of the gradient of the log density.

    All gradients know a ``target(position, rows)``, the log density estimated as a mean over rows
    (:mod:`sgworld_mcmc.gradients.weighting`), in coordinates whose origin is the center.

    Attributes
    ----------
    name
        The public spelling.
    cost
        Cost of a row, in plain gradients of a row.
    needs
        Order of the derivatives of the log density of all rows at the origin that it needs: 0 for
        none, 1 for the gradient, 2 for the gradient and its Jacobian.
    by_site
        Whether positions may be tuples of arrays, one for each site.
    """

    name: ClassVar[str]
    cost: ClassVar[float] = 1.0
    needs: ClassVar[int] = 0
    by_site: ClassVar[bool] = False

    @classmethod
    def make(cls, *, cache: bool) -> "Gradient":
        """Return the gradient; ``cache`` says whether one array (D,) for each batch may be kept."""
        return cls()

    @staticmethod
    def residual(value: Any, at_origin: Any, change: Any) -> Any:
        """Return the part of a row's gradient whose mean is estimated from a batch.

        The variance of this part over the rows is the noise from which settings are chosen and the
        bias is predicted.

        Parameters
        ----------
        value, at_origin
            The row's gradient at a position and at the origin.
        change
            The change from the origin to the position to first order.
        """
        return value

    @property
    def visits_batches(self) -> bool:
        """Whether :meth:`prepare` reads the batches although the derivatives are known."""
        return False

    def prepare(
        self,
        target: Callable,
        feed: Feed,
        origin: jax.Array,
        gradient: jax.Array | None = None,
        jacobian: jax.Array | None = None,
    ) -> ArrayTree:
        """Return the arrays that :meth:`__call__` needs to know about the origin.

        Parameters
        ----------
        target, feed
            The log density as a function of (position, rows), and the batches.
        origin
            The position of the origin, (D,) zeros.
        gradient, jacobian
            (D,) gradient of the log density of all rows at the origin, and (D, D) its Jacobian,
            if they are known. A Jacobian (D,) is the diagonal of one whose other entries are zero.
        """
        return ()

    def bounded(self, controls: ArrayTree, reach: float) -> ArrayTree:
        """Return the controls with a bound on what a single batch may do to a chain, if any.

        Parameters
        ----------
        controls
            What :meth:`prepare` returned.
        reach
            Length of a gradient that draws of the posterior hardly exceed.
        """
        return controls

    @abstractmethod
    def __call__(
        self,
        target: Callable,
        controls: ArrayTree,
        feed: Feed,
        position: ArrayTree,
        batch: Batch,
        index: jax.Array | int,
    ) -> ArrayTree:
        """Estimate the gradient of the log density of all rows from one batch.

        Parameters
        ----------
        target, feed
            As for :meth:`prepare`.
        controls
            The arrays that :meth:`prepare` returned.
        position
            Position of the gradient, which is a pytree like it.
        batch, index
            The batch and its number.
        """
