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
:mod:`sgworld_mcmc.settings` finds them there by their ``name``. docs/add_a_sampler.md shows how to
write another one. This module imports nothing from the rest of the package.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeAlias

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy

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

# Names for readers: pytrees of JAX arrays, pytrees of anything that JAX takes for arrays, and
# random keys. BlackJAX has the same names, but its import would start a backend.
ArrayTree: TypeAlias = Any
ArrayLikeTree: TypeAlias = Any
PRNGKey = jax.Array


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


class Order(ABC):
    """The order in which an epoch visits the M batches.

    Attributes
    ----------
    name
        The public spelling.
    law
        The scheme of :mod:`sgworld_mcmc.theory.variance_bias` whose closed form holds.
    period
        Number of epochs after which the noise of the batches has cancelled; 0 if it never does.
    redeals
        Whether the rows are dealt into new batches when an epoch begins.
    """

    name: ClassVar[str]
    law: ClassVar[str]
    period: ClassVar[int] = 1
    redeals: ClassVar[bool] = False

    @abstractmethod
    def init(self, rng_key: PRNGKey, count: int) -> jax.Array:
        """Return the order of the first epoch: (count,) int32 batch numbers."""

    @abstractmethod
    def next(self, rng_key: PRNGKey, order: jax.Array, epoch: jax.Array | int) -> jax.Array:
        """Return the order of epoch number ``epoch`` >= 1, given that of the epoch before."""


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
    """

    name: ClassVar[str]
    cost: ClassVar[float] = 1.0
    needs: ClassVar[int] = 0

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


class AffineStep(NamedTuple):
    """One step of an integrator on a quadratic potential.

    With state ``s`` (k numbers), batch gradient ``-(H x - r)`` of the log density and standard
    normal numbers ``xi``, the step is s <- advance s + push r + kick xi, and the position is
    ``read s``.

    Attributes
    ----------
    advance
        (k, k) matrix.
    push
        (k, D) matrix.
    kick
        (k, n D) matrix, for n vectors of normal numbers.
    read
        (D, k) matrix.
    """

    advance: np.ndarray
    push: np.ndarray
    kick: np.ndarray
    read: np.ndarray


class Integrator(ABC):
    """What a step does with the gradient: one discretisation of a stochastic dynamics.

    Attributes
    ----------
    name
        The public spelling.
    normals
        Number of vectors of standard normal numbers that a step needs.
    joined_normals
        The same for a step in a row of them, if the end of one can be joined with the beginning of
        the next: :meth:`joined_step` and :meth:`close` then make the row. None if it cannot.
    numbers
        The kind of random numbers: ``"gaussian"``, or ``"three-point"`` for numbers that have the
        same first moments and take less time (:mod:`sgworld_mcmc.integrators.normals`).
    law
        The ``noise`` of :mod:`sgworld_mcmc.theory.variance_bias` for which the closed forms hold;
        None if there are no closed forms, and predictions come from :meth:`affine`.
    """

    name: ClassVar[str]
    normals: ClassVar[int] = 1
    joined_normals: ClassVar[int | None] = None
    numbers: str = "gaussian"
    law: ClassVar[str | None] = None

    @abstractmethod
    def init(self, rng_key: PRNGKey | None, position: ArrayLikeTree) -> ArrayTree:
        """Return the state of a chain at ``position``."""

    @abstractmethod
    def step(
        self,
        state: ArrayTree,
        gradient: Callable,
        normals: ArrayTree | tuple,
        step_size: jax.Array | float,
        temperature: jax.Array | float,
    ) -> ArrayTree:
        """Advance the state by one minibatch step.

        Parameters
        ----------
        state
            State from :meth:`init` or the last step.
        gradient
            Function of the position that returns the minibatch's gradient of the log density there.
        normals
            Standard normal numbers like the position; a tuple of :attr:`normals` of them if
            there are several, ``()`` if none.
        step_size, temperature
            Step size h in BlackJAX's convention, and temperature tau.
        """

    def joined_step(
        self,
        state: ArrayTree,
        gradient: Callable,
        normals: ArrayTree | tuple,
        step_size: jax.Array | float,
        temperature: jax.Array | float,
        first: jax.Array | bool,
    ) -> ArrayTree:
        """Advance the state by a step in a row, all but the end that the next step makes up for.

        The arguments are those of :meth:`step`, and whether this is the first step of the row. A
        row is as good in law as that many steps: :meth:`close` makes its end.
        """
        raise NotImplementedError(f"{type(self).__name__} has no joined steps.")

    def close(
        self,
        state: ArrayTree,
        normals: ArrayTree | tuple,
        step_size: jax.Array | float,
        temperature: jax.Array | float,
    ) -> ArrayTree:
        """Make the end of the last step of a row."""
        raise NotImplementedError(f"{type(self).__name__} has no joined steps.")

    @abstractmethod
    def position(self, state: ArrayTree) -> ArrayTree:
        """Return the position that a state stands for."""

    @abstractmethod
    def affine(self, step_size: float, hessian: np.ndarray, temperature: float = 1.0) -> AffineStep:
        """Return the step as an affine map, for a batch whose potential has this Hessian (D, D)."""


class Coordinates(ABC):
    """The coordinates z in which a chain moves: theta = center + K z.

    They are a pytree with the center (D,) and the arrays that K is made of; K K^T estimates the
    posterior covariance. All methods take NumPy and JAX arrays.

    Attributes
    ----------
    name
        The public spelling.
    whitens
        Whether a posterior standard deviation has about length one in z.
    """

    name: ClassVar[str]
    whitens: ClassVar[bool] = True
    center: Any

    @classmethod
    @abstractmethod
    def from_covariance(cls, center: np.ndarray, covariance: np.ndarray) -> "Coordinates":
        """Return coordinates for a posterior covariance (D, D), or for posterior variances (D,)."""

    @classmethod
    def from_hessian(cls, center: np.ndarray, hessian: np.ndarray) -> "Coordinates":
        """Return coordinates for a positive definite Hessian of the potential at the center.

        The Hessian is (D, D), or (D,) if only its diagonal is known.
        """
        inverse = 1 / hessian if np.ndim(hessian) == 1 else np.linalg.inv(hessian)
        return cls.from_covariance(center, inverse)

    @abstractmethod
    def apply(self, z: Any) -> Any:
        """Return K z for z (..., D)."""

    @abstractmethod
    def solve(self, change: Any) -> Any:
        """Return K^-1 times a change of theta (..., D)."""

    @abstractmethod
    def pull_back(self, gradient: Any) -> Any:
        """Return K^T times gradients with respect to theta (..., D): those with respect to z."""

    @abstractmethod
    def scaled(self, factor: Any) -> "Coordinates":
        """Return the coordinates with ``factor`` K in place of K."""

    @abstractmethod
    def covariance(self) -> np.ndarray:
        """Return K K^T as (D, D), or as (D,) if it is diagonal."""

    @abstractmethod
    def whiten(self, hessian: np.ndarray) -> np.ndarray:
        """Return K^T H K for a Hessian H (D, D) with respect to theta."""

    @abstractmethod
    def error_of(self, errors: np.ndarray) -> np.ndarray:
        """Return the standard deviations in z (D,) of independent errors of theta (D,)."""

    @property
    def directions(self) -> np.ndarray | None:
        """The (D, D) unit vectors of the parameters theta in z.

        They are None if they are the axes, or if there are too many numbers in them:
        :meth:`along` then projects on them all the same.
        """
        return None

    def deviations(self) -> np.ndarray:
        """Return the standard deviations of theta (D,), if those of z are one."""
        covariance = self.covariance()
        return np.sqrt(covariance if covariance.ndim == 1 else np.diagonal(covariance))

    def to_model(self, z: Any) -> Any:
        """Return theta at positions z (..., D)."""
        return self.center + self.apply(z)

    def to_z(self, theta: Any) -> Any:
        """Return z at the model's unconstrained coordinates theta (..., D)."""
        return self.solve(theta - self.center)

    def distance(self, change: np.ndarray) -> float:
        """Return the length of a change of theta (D,) in posterior standard deviations."""
        return float(np.linalg.norm(self.solve(np.asarray(change))))

    def along(self, z: Any) -> Any:
        """Return the components of z (..., D) along :attr:`directions`."""
        return z if self.directions is None else z @ self.directions.T

    def projector(self) -> Callable:
        """Return a function of gradients with respect to theta (..., D).

        It returns the components along :attr:`directions` of the gradients with respect to z.
        """
        return self.pull_back

    def cast(self, dtype: Any) -> "Coordinates":
        """Return the coordinates with JAX arrays of this precision."""
        return jax.tree.map(lambda x: from_numpy(x, dtype), self)
