"""Kinetic (underdamped) Langevin dynamics: free motion, a kick by the gradient, free motion."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.integrators.normals import DRAWS, check_position, draw_normals
from sgworld_mcmc.protocols import AffineStep, ArrayTree, Integrator

__all__ = ["UBU", "UBUState"]


class UBUState(NamedTuple):
    """State of the dynamics.

    Attributes
    ----------
    position
        Pytree of floating-point arrays.
    velocity
        Pytree like the position; its stationary law is N(0, tau I).
    """

    position: ArrayTree
    velocity: ArrayTree


@dataclass(frozen=True)
class UBU(Integrator):
    """dx = v dt, dv = grad log p dt - gamma v dt + sqrt(2 gamma tau) dW, one gradient in a step.

    A step is U(h/2) B(h) U(h/2): U is the motion without the gradient, which is solved exactly, and
    B(h) adds h times the gradient to the velocity (Zapatero 2017; Sanz-Serna & Zygalakis 2021). The
    error of the posterior is of order h^2. In a row of steps neighbouring U's are joined, so that
    a step takes two vectors of normal numbers instead of four (docs/theory.md, section 5).

    The step size h is a time here: an overdamped step of size h spans about the time h^2 / 2.

    Attributes
    ----------
    friction
        Friction gamma > 0, in units of the coordinates' time: a mode of curvature lambda relaxes
        fastest at gamma = 2 sqrt(lambda).
    numbers
        ``"gaussian"`` (default) or ``"three-point"``: for thousands of parameters and short steps
        normal numbers take as long as the gradient, and do no better.
    """

    name: ClassVar[str] = "ubu"
    by_site: ClassVar[bool] = True
    normals: ClassVar[int] = 4
    joined_normals: ClassVar[int | None] = 2

    friction: Any = 2.0
    numbers: str = "gaussian"

    def __post_init__(self):
        if self.numbers not in DRAWS:
            raise ValueError(f"`numbers` must be one of {sorted(DRAWS)}, not {self.numbers!r}.")
        # Inside of compiled functions the friction may be traced.
        number = isinstance(self.friction, int | float)
        if number and not (math.isfinite(self.friction) and self.friction > 0):
            raise ValueError(f"`friction` must be a positive number, not {self.friction!r}.")

    def init(self, rng_key, position):
        if rng_key is None:
            raise ValueError("`rng_key` is needed by `init` of UBU: the velocity is drawn.")
        position = check_position(position)
        return UBUState(position, draw_normals(rng_key, position))

    def step(self, state, gradient, normals, step_size, temperature):
        state = self._free(state, normals[:2], step_size / 2, temperature)
        state = _kicked(state, gradient, step_size)
        return self._free(state, normals[2:], step_size / 2, temperature)

    def joined_step(self, state, gradient, normals, step_size, temperature, first):
        time = jnp.where(first, step_size / 2, step_size)
        return _kicked(self._free(state, normals, time, temperature), gradient, step_size)

    def close(self, state, normals, step_size, temperature):
        return self._free(state, normals, step_size / 2, temperature)

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        hessian = np.asarray(hessian, float)
        eye, zero = np.eye(len(hessian)), np.zeros_like(hessian)
        motion = _motion(self.friction, step_size / 2, np)
        left, lead, kick, spread = (float(x) for x in motion)
        root = np.sqrt(temperature)
        free = np.block([[eye, lead * (1 + left) * eye], [zero, left * eye]])
        noise = root * np.block([[lead * kick * eye, spread * eye], [kick * eye, zero]])
        turn = np.block([[eye, zero], [-step_size * hessian, eye]])
        return AffineStep(
            free @ turn @ free,
            free @ np.concatenate([zero, step_size * eye]),
            np.concatenate([free @ turn @ noise, noise], axis=1),
            np.concatenate([eye, zero], axis=1),
        )

    def _free(self, state: UBUState, normals, time, temperature) -> UBUState:
        """Return the state after free motion U(time)."""
        left, lead, kick, spread = _motion(self.friction, time, jnp)
        root = jnp.sqrt(temperature)

        def velocity(v, xi):
            return (left * v + root * kick * xi).astype(jnp.result_type(v))

        def position(x, v, new, xi):
            return (x + lead * (v + new) + root * spread * xi).astype(jnp.result_type(x))

        new = jax.tree.map(velocity, state.velocity, normals[0])
        return UBUState(
            jax.tree.map(position, state.position, state.velocity, new, normals[1]), new
        )


def _kicked(state: UBUState, gradient, step_size) -> UBUState:
    """Return the state after the kick B(step_size)."""
    velocity = jax.tree.map(
        lambda v, g: (v + step_size * g).astype(jnp.result_type(v)),
        state.velocity,
        gradient(state.position),
    )
    return UBUState(state.position, velocity)


def _motion(friction: float, time: Any, xp: Any) -> tuple[Any, Any, Any, Any]:
    """Return the numbers e, r, s, w of free motion over a time.

    v' = e v + s xi_1, x' = x + r (v + v') + w xi_2 at temperature 1, with y = gamma t: e = exp(-y),
    s^2 = 1 - e^2, r = tanh(y/2) / gamma, w^2 = 2 (y - 2 tanh(y/2)) / gamma^2. (docs/theory.md, K1:
    the covariance of THEORY's a and b, with a regressed on b.)
    """
    y = friction * time
    half = xp.tanh(y / 2)
    small = xp.minimum(y, 1.0)
    # y - 2 tanh(y/2) = y^3/12 - y^5/120 + ..., without cancellation in single precision.
    series, square = 0.0, small * small
    for coefficient in reversed(_TANH):
        series = series * square + coefficient
    rest = xp.where(y < 1, small * square * series, y - 2 * half)
    return (
        xp.exp(-y),
        half / friction,
        xp.sqrt(-xp.expm1(-2 * y)),
        xp.sqrt(2 * rest) / friction,
    )


# The coefficients of y^3, y^5, ... in y - 2 tanh(y/2). They fall by a factor of pi^2 each.
_TANH = (
    1 / 12,
    -1 / 120,
    17 / 20160,
    -31 / 362880,
    691 / 79833600,
    -5461 / 6227020800,
    929569 / 10461394944000,
    -3202291 / 355687428096000,
)
