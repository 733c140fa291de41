"""Control variates of second order (docs/theory.md, section 2.3).

g_b(z) - g_b(0) - J_b(0) z + g(0) + J(0) z, with g the gradient of the log density and J its
Jacobian: only the terms beyond first order in z are estimated from the minibatch.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp

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
    """

    gradient: jax.Array
    jacobian: jax.Array


@dataclass(frozen=True)
class Taylor(Gradient):
    """A gradient without noise on a quadratic potential; a step costs two gradients more."""

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

    def __call__(self, target, controls, feed, position, batch, index):
        gradient = jax.grad(target)

        def estimator(z, rows):
            value, origin = gradient(z, rows), jnp.zeros_like(z)
            # The batch's gradient at the origin comes with the product at no cost.
            at_origin, change = jax.jvp(lambda x: gradient(x, rows), (origin,), (z,))
            return value - change - at_origin

        jacobian = controls.jacobian
        turned = jacobian @ position if jacobian.ndim == 2 else jacobian * position
        known = controls.gradient + turned
        return batch_estimate(estimator, position, batch, feed) + known
