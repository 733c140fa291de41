"""The Euler-Maruyama step of overdamped Langevin dynamics."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.integrators.normals import check_position
from sgworld_mcmc.protocols import AffineStep, ArrayTree, Integrator

__all__ = ["Euler", "EulerState", "langevin_step"]


class EulerState(NamedTuple):
    """The position, a pytree of floating-point arrays."""

    position: ArrayTree


def langevin_step(position, gradient, increment, step_size, temperature) -> ArrayTree:
    """Return theta + h grad log p + sqrt(2 h tau) increment, in the position's precision."""
    scale = jnp.sqrt(2 * step_size * temperature)
    return jax.tree.map(
        lambda x, g, xi: (x + step_size * g + scale * xi).astype(jnp.result_type(x)),
        position,
        gradient,
        increment,
    )


@dataclass(frozen=True)
class Euler(Integrator):
    """theta <- theta + h grad log p + sqrt(2 h tau) xi, with noise independent in each step.

    On a Gaussian the relative error of the variance is h/2 (Welling & Teh 2011; docs/theory.md,
    section 2.2).
    """

    name: ClassVar[str] = "independent"
    by_site: ClassVar[bool] = True
    law: ClassVar[str | None] = "independent"

    def init(self, rng_key, position):
        return EulerState(check_position(position))

    def step(self, state, gradient, normals, step_size, temperature):
        (x,) = state
        return EulerState(langevin_step(x, gradient(x), normals, step_size, temperature))

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        eye = np.eye(len(hessian))
        kick = np.sqrt(2 * step_size * temperature) * eye
        return AffineStep(eye - step_size * np.asarray(hessian), step_size * eye, kick, eye)
