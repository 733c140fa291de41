"""Overdamped Langevin dynamics with averaged noise."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.integrators.euler import langevin_step
from sgworld_mcmc.integrators.normals import check_position, draw_normals
from sgworld_mcmc.protocols import AffineStep, ArrayTree, Integrator

__all__ = ["Averaged", "AveragedState"]


class AveragedState(NamedTuple):
    """State of the dynamics.

    Attributes
    ----------
    position
        Pytree of floating-point arrays.
    noise
        The standard normal numbers of the last step, like the position.
    """

    position: ArrayTree
    noise: ArrayTree


@dataclass(frozen=True)
class Averaged(Integrator):
    """theta <- theta + h grad log p + sqrt(2 h tau) (xi_k + xi_{k+1}) / 2.

    Averaging the noise of neighbouring steps removes exactly the Euler error h/2 of the variance on
    Gaussian targets (Leimkuhler & Matthews 2013; docs/theory.md, section 2.3).
    """

    name: ClassVar[str] = "averaged"
    by_site: ClassVar[bool] = True
    law: ClassVar[str | None] = "averaged"

    def init(self, rng_key, position):
        if rng_key is None:
            raise ValueError(
                '`rng_key` is needed by `init` with `noise="averaged"`: xi_0 is drawn.'
            )
        position = check_position(position)
        return AveragedState(position, draw_normals(rng_key, position))

    def step(self, state, gradient, normals, step_size, temperature):
        x, last = state
        increment = jax.tree.map(lambda a, b: (a + b) / 2, last, normals)
        x = langevin_step(x, gradient(x), increment, step_size, temperature)
        return AveragedState(x, normals)

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        hessian = np.asarray(hessian)
        eye, zero = np.eye(len(hessian)), np.zeros_like(hessian, dtype=float)
        half = np.sqrt(step_size * temperature / 2) * eye
        return AffineStep(
            np.block([[eye - step_size * hessian, half], [zero, zero]]),
            np.concatenate([step_size * eye, zero]),
            np.concatenate([half, eye]),
            np.concatenate([eye, zero], axis=1),
        )
