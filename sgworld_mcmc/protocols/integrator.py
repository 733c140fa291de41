"""What a step does with the gradient."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.protocols.types import ArrayLikeTree, ArrayTree, PRNGKey

__all__ = ["AffineStep", "Integrator"]


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
    by_site
        Whether all arrays of the state are like the position, which may then be a tuple of arrays,
        one for each site of a model.
    """

    name: ClassVar[str]
    normals: ClassVar[int] = 1
    joined_normals: ClassVar[int | None] = None
    numbers: str = "gaussian"
    law: ClassVar[str | None] = None
    by_site: ClassVar[bool] = False

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
