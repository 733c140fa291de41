"""Control variates of second order (docs/theory.md, section 2.3).

g_b(z) - g_b(0) - J_b(0) z + g(0) + J(0) z, with g the gradient of the log density and J its
Jacobian: only the terms beyond first order in z are estimated from the minibatch.

Far from the center that estimate is noise in proportion to the distance: J z - J_b z has no bound,
and for batches of a few rows J_b is far from J. A step of size one would multiply the position by a
random matrix, and a chain that a rare batch has thrown out would run away. So the estimate is
bounded in a run: no batch leads a chain farther away than it is.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.gradients.batch_expansions import BatchExpansions
from sgworld_mcmc.gradients.weighting import batch_estimate, epoch_mean
from sgworld_mcmc.protocols import Gradient

__all__ = ["Taylor", "TaylorControls"]


class TaylorControls(NamedTuple):
    """What the estimate needs to know about the origin.

    Attributes
    ----------
    gradient
        (D,) gradient of the log density of all rows.
    jacobian
        (D, D) Jacobian of that gradient, or its diagonal (D,) if all else is zero.
    batches
        The :class:`~sgworld_mcmc.gradients.batch_expansions.BatchExpansions` at the origin, or None
        if every step computes them again.
    reach
        Length of the gradient up to which a batch's estimate is never shortened; None if it has no
        bound.
    """

    gradient: jax.Array
    jacobian: jax.Array
    batches: BatchExpansions | None = None
    reach: jax.Array | None = None


@dataclass(frozen=True)
class Taylor(Gradient):
    """A gradient without noise on a quadratic potential.

    A step costs two gradients more, or hardly more than one where the batches' derivatives at the
    origin are kept.
    """

    name: ClassVar[str] = "taylor"
    # A Taylor gradient differentiates twice, but reads the rows once.
    cost: ClassVar[float] = 1.5
    needs: ClassVar[int] = 2

    @staticmethod
    def residual(value, at_origin, change):
        return value - at_origin - change

    def prepare(self, target, feed, origin, gradient=None, jacobian=None):
        if gradient is None:
            gradient = epoch_mean(jax.grad(target), origin, feed)
        if jacobian is None:
            jacobian = epoch_mean(jax.hessian(target), origin, feed)
        return TaylorControls(gradient, jacobian)

    def bounded(self, controls, reach):
        return controls._replace(reach=jnp.asarray(reach, controls.gradient.dtype))

    def __call__(self, target, controls, feed, position, batch, index):
        # Where the target knows its coordinates, derivatives are taken with respect to the model's
        # parameters: the products with K, which may cost more than the rows, are made once.
        coordinates = getattr(target, "coordinates", None)
        gradient = jax.grad(target if coordinates is None else target.near)
        change = position if coordinates is None else coordinates.apply(position)

        def estimator(change, rows):
            value, origin = gradient(change, rows), jnp.zeros_like(change)
            # The batch's gradient at the origin comes with the product at no cost.
            at_origin, turned = jax.jvp(lambda x: gradient(x, rows), (origin,), (change,))
            return value - turned - at_origin

        if controls.batches is None:
            noisy = batch_estimate(estimator, change, batch, feed)
        else:
            noisy = batch_estimate(gradient, change, batch, feed)
            noisy -= controls.batches.at(index, change)
        noisy = noisy if coordinates is None else coordinates.pull_back(noisy)
        jacobian = controls.jacobian
        # The Jacobian is symmetric, and a product from this side is the faster one.
        turned = position @ jacobian if jacobian.ndim == 2 else jacobian * position
        if controls.reach is not None:
            most = jnp.maximum(jnp.sum(turned**2), controls.reach**2)
            noisy = _shortened(noisy, most)
        return noisy + controls.gradient + turned


def _shortened(vector: jax.Array, most: jax.Array) -> jax.Array:
    """Return the vector, or one in its direction whose square is ``most`` if its own is larger."""
    # Up to ``most`` the factor is one, and there is no division by zero.
    return vector * jnp.sqrt(most / jnp.maximum(jnp.sum(vector**2), most))
