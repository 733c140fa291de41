"""Integrators of underdamped Langevin dynamics, as somebody outside the package would write them.

dx = v dt, dv = grad log p dt - gamma v dt + sqrt(2 gamma tau) dW: the positions have the density p.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.types import ArrayTree

from sgworld_mcmc.integrators.normals import check_position, draw_normals
from sgworld_mcmc.protocols import AffineStep, Integrator


class KineticState(NamedTuple):
    """Position and velocity, pytrees alike."""

    position: ArrayTree
    velocity: ArrayTree


class Kinetic(Integrator):
    """What the integrators below have in common."""

    def init(self, rng_key, position):
        position = check_position(position)
        return KineticState(position, draw_normals(rng_key, position))

    def position(self, state):
        return state.position


@dataclass(frozen=True)
class FrictionEuler(Kinetic):
    """v <- e v + h g(x) + sqrt((1 - e^2) tau) xi, x <- x + h v with e = exp(-gamma h) (SGHMC)."""

    name: ClassVar[str] = "friction Euler"

    friction: float = 2.0

    def step(self, state, gradient, normals, step_size, temperature):
        left = jnp.exp(-self.friction * step_size)
        scale = jnp.sqrt((1 - left**2) * temperature)
        velocity = jax.tree.map(
            lambda v, g, xi: (left * v + step_size * g + scale * xi).astype(v.dtype),
            state.velocity,
            gradient(state.position),
            normals,
        )
        position = jax.tree.map(
            lambda x, v: (x + step_size * v).astype(x.dtype), state.position, velocity
        )
        return KineticState(position, velocity)

    def affine(self, step_size, hessian, temperature=1.0):
        h, hessian = step_size, np.asarray(hessian, float)
        eye, zero = np.eye(len(hessian)), np.zeros_like(hessian)
        left = np.exp(-self.friction * h)
        scale = np.sqrt((1 - left**2) * temperature)
        return AffineStep(
            np.block([[eye - h**2 * hessian, h * left * eye], [-h * hessian, left * eye]]),
            np.concatenate([h**2 * eye, h * eye]),
            np.concatenate([h * scale * eye, scale * eye]),
            np.concatenate([eye, zero], axis=1),
        )


@dataclass(frozen=True)
class UBU(Kinetic):
    """Half a step of free motion, a kick by the gradient, half a step (Zapatero 2017)."""

    name: ClassVar[str] = "UBU"
    normals: ClassVar[int] = 4

    friction: float = 2.0

    def free(self, time, temperature):
        """The 2 x 2 matrices of free motion: of the state and of two normal numbers."""
        g, e = self.friction, np.exp(-self.friction * time)
        covariance = [
            [(2 * g * time - 3 + 4 * e - e**2) / g**2, (1 - e) ** 2 / g],
            [(1 - e) ** 2 / g, 1 - e**2],
        ]
        return np.array([[1, (1 - e) / g], [0, e]]), np.linalg.cholesky(
            temperature * np.array(covariance)
        )

    def step(self, state, gradient, normals, step_size, temperature):
        raise NotImplementedError("only its affine map is needed")

    def affine(self, step_size, hessian, temperature=1.0):
        hessian = np.asarray(hessian, float)
        eye, zero = np.eye(len(hessian)), np.zeros_like(hessian)
        move, noise = (np.kron(x, eye) for x in self.free(step_size / 2, temperature))
        kick = np.block([[eye, zero], [-step_size * hessian, eye]])
        return AffineStep(
            move @ kick @ move,
            move @ np.concatenate([zero, step_size * eye]),
            np.concatenate([move @ kick @ noise, noise], axis=1),
            np.concatenate([eye, zero], axis=1),
        )
