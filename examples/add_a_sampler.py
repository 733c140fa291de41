"""A sampler of your own in one file: SGHMC (Chen, Fox & Guestrin 2014).

    v <- (1 - h gamma) v + h grad log p(x) + sqrt(2 h gamma tau) xi,    x <- x + h v

docs/add_a_sampler.md explains each part.
"""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from blackjax.sgmcmc.gradients import grad_estimator

import sgworld_mcmc as sg
from sgworld_mcmc.protocols import AffineStep, ArrayTree, Integrator


class SGHMCState(NamedTuple):
    """Position and velocity, pytrees of the same structure."""

    position: ArrayTree
    velocity: ArrayTree


@dataclass(frozen=True)
class SGHMC(Integrator):
    """Stochastic gradient Hamiltonian Monte Carlo, with the friction gamma."""

    name: ClassVar[str] = "sghmc"
    friction: float = 1.0

    def init(self, rng_key, position):
        return SGHMCState(position, jax.tree.map(jnp.zeros_like, position))

    def step(self, state, gradient, normals, step_size, temperature):
        damping = step_size * self.friction
        keep, kick = 1 - damping, jnp.sqrt(2 * damping * temperature)
        push = lambda v, g, xi: (keep * v + step_size * g + kick * xi).astype(v.dtype)  # noqa: E731
        velocity = jax.tree.map(push, state.velocity, gradient(state.position), normals)
        move = lambda x, v: (x + step_size * v).astype(x.dtype)  # noqa: E731
        return SGHMCState(jax.tree.map(move, state.position, velocity), velocity)

    def position(self, state):
        return state.position

    def affine(self, step_size, hessian, temperature=1.0):
        eye = np.eye(len(hessian))
        velocity = np.hstack(
            [-step_size * np.asarray(hessian), (1 - step_size * self.friction) * eye]
        )
        push, kick = step_size * eye, np.sqrt(2 * step_size * self.friction * temperature) * eye
        return AffineStep(
            np.vstack([np.hstack([eye, 0 * eye]) + step_size * velocity, velocity]),
            np.vstack([step_size * push, push]),
            np.vstack([step_size * kick, kick]),
            np.hstack([eye, 0 * eye]),
        )


def main():
    target = sg.exact.LinearRegression(num_data=2000)
    settings = {"step_size": 0.1, "batch_size": 100, "gradient": "plain", "order": "symmetric"}
    mcmc = sg.SGWORLD(target.model, integrator=SGHMC(2.0), num_samples=500, **settings)
    mcmc.run(jax.random.key(0), *target.data)  # 1. a NumPyro model
    comparison, report = target.compare(mcmc.get_samples()), mcmc.bias_report()
    print(comparison, report, sep="\n")  # 2. what the theory says of it, from `affine`

    y = 1 + jax.random.normal(jax.random.key(1), (1000,))  # 3. BlackJAX's form
    estimator = grad_estimator(lambda mu: 0.0, lambda mu, y: -((y - mu) ** 2) / 2, 1000)
    alg = sg.sgworld(estimator, y, batch_size=100, step_size=0.01, integrator=SGHMC(friction=20.0))
    state, _ = jax.jit(alg.step)(jax.random.key(3), alg.init(jnp.zeros(()), jax.random.key(2)))
    print(f"after an epoch: {state.position:.3f}; the mean of the data is {y.mean():.3f}")
    return comparison, report


if __name__ == "__main__":
    main()
