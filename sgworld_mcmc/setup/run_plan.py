"""The records of what the set-up decides, and of what a run is given.

A :class:`RunPlan` holds no data and no closures: static objects and named arrays, which can be
saved, shared and used again. A :class:`RunData` is a plan's part in the loop together with the data
laid out for it, and the argument of every compiled loop.
"""

import weakref
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.device_layout import Layout
from sgworld_mcmc.model.description import ModelDescription
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import ArrayTree, Coordinates, Feed
from sgworld_mcmc.sampling.dynamics import Dynamics
from sgworld_mcmc.setup.choose import Choice
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.measurements import Measurements
from sgworld_mcmc.setup.streamed.streaming import Streaming
from sgworld_mcmc.setup.without_mode.tune import KineticFit
from sgworld_mcmc.streaming.portions import Stream

__all__ = ["RunData", "RunPlan", "Tuning"]

# What of the data laid out for a plan are arrays, in the order in which compiled loops get them.
_ARRAYS = ("feed", "constants", "originals", "tuning", "sample")


class Tuning(NamedTuple):
    """The numbers that all chains share.

    Attributes
    ----------
    coordinates
        The sampler's coordinates z, with theta = center + K z.
    step_size
        Step size h in the coordinates z.
    controls
        What control variates know about the center.
    starts
        (P, D) positions z from which chains start.
    """

    coordinates: Coordinates
    step_size: jax.Array
    controls: ArrayTree
    starts: jax.Array


@dataclass(frozen=True, kw_only=True, eq=False)
class RunPlan:
    """Everything that a set-up has decided and measured, without data and closures.

    Attributes
    ----------
    dynamics
        Static objects and counts.
    tuning
        Arrays of the loop, in the sampler's precision.
    fit
        The coordinates in double precision, and how they were found.
    measurements
        What pilot chains have measured; None if there was nothing to choose.
    choice
        The settings and their predicted errors; None if nothing was measured.
    double
        Whether the sampler works in double precision.
    too_coarse
        Whether the sampler needs double precision but cannot use it
        (:mod:`sgworld_mcmc.model.precision`).
    partition
        Integers: the seed of the partition of the rows.
    description
        A description of the model and data that the plan was made for.
    tolerance
        The relative error of the posterior variance that was asked for.
    fixed
        Whether the user had given anything on which the predicted error depends.
    kinetic
        What a set-up without a mode has found; None if there is a mode.
    streaming
        How the rows are streamed; None if they are in memory.
    take_all
        Indices, among the shuffled rows, of those that are in every batch and in no sample
        (:mod:`sgworld_mcmc.setup.take_all`).
    dealt
        Fingerprint of the order in which the rows of a model with groups were dealt; else zero.
    strata
        Number of parts of the user's rows, each shuffled by itself, which give every stretch of the
        shuffled rows equal shares.
    sharing
        Why the rows of a batch are cut into ``dynamics.shards`` parts, as a clause; empty if
        nobody asked for parts.
    """

    dynamics: Dynamics
    tuning: Tuning
    fit: CoordinateFit
    measurements: Measurements | None
    choice: Choice | None
    double: bool
    too_coarse: bool
    partition: np.ndarray
    description: ModelDescription
    tolerance: float
    fixed: bool
    kinetic: KineticFit | None = None
    streaming: Streaming | None = None
    take_all: np.ndarray = field(default_factory=partial(np.zeros, 0, int))
    dealt: int = 0
    strata: int = 1
    sharing: str = ""

    @property
    def num_batches(self) -> int:
        """Number of batches M."""
        return self.dynamics.num_batches

    @property
    def step_size(self) -> float:
        """Step size h in the sampler's coordinates."""
        return float(self.tuning.step_size)

    @property
    def size(self) -> int:
        """Number of rows N of which the batches are samples."""
        return self.description.size - len(self.take_all)

    @property
    def batch_size(self) -> int:
        """Number of rows in the larger batches, without those that are in every batch."""
        return -(-self.size // self.dynamics.num_batches)


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False)
class RunData:
    """The data laid out for a plan, and the argument of compiled loops.

    Attributes
    ----------
    feed
        The rows, dealt into batches.
    constants
        The other arrays.
    originals
        The data leaves in the user's order if deterministic sites need them, else None.
    tuning
        The plan's tuning.
    model
        The :class:`~sgworld_mcmc.model.numpyro_model.MinibatchModel`, static.
    dynamics
        The plan's dynamics, static.
    rows
        The shuffled rows, if the batches are not all of one size and share memory with them; else
        None. (To join such batches again would copy them.) They are no part of the pytree.
        Of streamed rows they are the random part that the set-up has read.
    stream, whole
        Streamed rows, and what makes passes over them; None if the rows are in memory. The feed is
        then any one chunk, and ``dynamics`` those of calls of the kernel within a chunk.
    layout
        How chains and rows lie on several devices; None on one.
    here
        The same with the rows of this host only, if the rows lie on several hosts; else None.
    sample
        Some of the rows, always the same random ones, at which draws are looked at where not all
        rows are in memory; else None.
    """

    feed: Feed
    constants: tuple
    originals: tuple | None
    tuning: Tuning
    model: MinibatchModel
    dynamics: Dynamics
    rows: tuple | None = None
    stream: Stream | None = None
    whole: Any = None
    layout: Layout | None = None
    here: Any = None
    sample: Feed | None = None

    def tree_flatten_with_keys(self) -> tuple:
        """Return the arrays with their names, and what is static, as JAX asks for them."""
        arrays = [(jax.tree_util.GetAttrKey(name), getattr(self, name)) for name in _ARRAYS]
        # JAX's caches keep what is static for good: a model, with all that was compiled for it,
        # would never go.
        return arrays, (weakref.ref(self.model), self.dynamics)

    @classmethod
    def tree_unflatten(cls, static: tuple, arrays: Iterable) -> "RunData":
        """Return the data with these arrays."""
        model, dynamics = static
        return cls(model=model(), dynamics=dynamics, **dict(zip(_ARRAYS, arrays, strict=True)))

    def sites(self, position: jax.Array) -> dict[str, jax.Array]:
        """Return the unconstrained sites at a position z (D,)."""
        return self.model.unravel(self.tuning.coordinates.to_model(position))
