"""The five ideas that a sampler is put together from, as protocols.

====================  ==========================================================================
:class:`Feed`         where the batches come from
:class:`Order`        in which order an epoch visits them
:class:`Gradient`     what is computed from a batch
:class:`Integrator`   what a step does with the gradient
:class:`Coordinates`  in which coordinates the chain moves
====================  ==========================================================================

Orders, gradients and integrators are *static*: hashable frozen dataclasses of Python numbers, so
that a compiled program is found again by the objects that it was made with. Feeds and coordinates
are pytrees whose leaves are arrays, so that data are arguments of compiled programs. The members
live in ``data/``, ``gradients/``, ``integrators/`` and ``coordinates/``, one in each file;
:mod:`sgworld_mcmc.members` finds them there by their ``name``. docs/add_a_sampler.md shows how to
write another one. Here nothing is imported from the rest of the package, but for its functions of
arrays.
"""

from sgworld_mcmc.protocols.coordinates import Coordinates
from sgworld_mcmc.protocols.feed import Batch, Feed
from sgworld_mcmc.protocols.gradient import Gradient
from sgworld_mcmc.protocols.integrator import AffineStep, Integrator
from sgworld_mcmc.protocols.order import Order
from sgworld_mcmc.protocols.types import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = [
    "AffineStep",
    "ArrayLikeTree",
    "ArrayTree",
    "Batch",
    "Coordinates",
    "Feed",
    "Gradient",
    "Integrator",
    "Order",
    "PRNGKey",
]
