"""Gradient descent with momentum and weight decay, without any noise but the minibatches' own."""

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.integrators.normals import check_position
from sgworld_mcmc.protocols import AffineStep, ArrayTree, Integrator

__all__ = ["Momentum", "MomentumState"]


class MomentumState(NamedTuple):
    """State of the descent.

    Attributes
    ----------
    position
        Pytree of floating-point arrays.
    velocity
        Velocity v, a pytree like the position: the running sum of gradients that is *subtracted*,
        times the learning rate, from the position.
    """

    position: ArrayTree
    velocity: ArrayTree


@dataclass(frozen=True)
class Momentum(Integrator):
    """v <- beta v + g + lambda theta, theta <- theta - eta v (docs/theory.md, section 4).

    Here g is the gradient of the loss, that is minus the gradient of the log density that
    :meth:`step` is given, and eta is the step size. The temperature has no effect, since no noise
    is injected.

    Attributes
    ----------
    momentum
        Momentum beta in [0, 1).
    weight_decay
        Weight decay lambda >= 0.
    """

    name: ClassVar[str] = "momentum"
    by_site: ClassVar[bool] = True
    normals: ClassVar[int] = 0

    momentum: Any = 0.0
    weight_decay: Any = 0.0

    def init(self, rng_key, position):
        position = check_position(position)
        return MomentumState(position, jax.tree.map(jnp.zeros_like, position))

    def step(self, state, gradient, normals, step_size, temperature):
        velocity = jax.tree.map(
            lambda v, g, x: (self.momentum * v - g + self.weight_decay * x).astype(
                jnp.result_type(x)
            ),
            state.velocity,
            gradient(state.position),
            state.position,
        )
        position = jax.tree.map(
            lambda x, v: (x - step_size * v).astype(jnp.result_type(x)), state.position, velocity
        )
        return MomentumState(position, velocity)

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        dim = len(hessian)
        eye, zero = np.eye(dim), np.zeros((dim, dim))
        descent = np.asarray(hessian) + self.weight_decay * eye
        return AffineStep(
            np.block(
                [
                    [eye - step_size * descent, -step_size * self.momentum * eye],
                    [descent, self.momentum * eye],
                ]
            ),
            np.concatenate([step_size * eye, -eye]),
            np.zeros((2 * dim, 0)),
            np.concatenate([eye, zero], axis=1),
        )
