"""Stochastic gradient Langevin dynamics (Welling & Teh 2011). Each step uses one minibatch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from blackjax.base import SamplingAlgorithm

from sgworld_mcmc.integrators.normals import draw_normals
from sgworld_mcmc.kernels.epoch import Schedule, value_at
from sgworld_mcmc.members import choose_integrator
from sgworld_mcmc.protocols import ArrayLikeTree, ArrayTree, PRNGKey
from sgworld_mcmc.sampling.sweep import is_finite

__all__ = ["SGLDInfo", "SGLDState", "as_top_level_api", "build_kernel", "init"]


class SGLDState(NamedTuple):
    """State of an SGLD chain.

    Attributes
    ----------
    motion
        The integrator's state: the position, and whatever else a step hands to the next one.
    step
        Number of steps made, int32: the argument of step-size schedules.
    """

    motion: ArrayTree
    step: jax.Array

    @property
    def position(self) -> ArrayTree:
        """Pytree of floating-point arrays."""
        return self.motion.position

    @property
    def noise(self) -> ArrayTree:
        """The last step's standard normal numbers with averaged noise, ``()`` otherwise."""
        return getattr(self.motion, "noise", ())


class SGLDInfo(NamedTuple):
    """What happened in a step.

    Attributes
    ----------
    step_size
        The step size used, after the schedule.
    gradient
        The minibatch's estimate of the gradient of the log density, like the position.
    diverging
        Whether the step led to NaN or infinity; the position has then been left where it was.
    """

    step_size: jax.Array
    gradient: ArrayTree
    diverging: jax.Array


def init(
    position: ArrayLikeTree, rng_key: PRNGKey | None = None, *, noise: str = "independent"
) -> SGLDState:
    """Return the state at ``position``; ``rng_key`` is needed for averaged noise only."""
    motion = choose_integrator(noise).init(rng_key, position)
    return SGLDState(motion, jnp.zeros((), jnp.int32))


def build_kernel(noise: str = "independent") -> Callable:
    """Build the SGLD kernel.

    Parameters
    ----------
    noise
        ``"independent"`` (Euler-Maruyama, the published algorithm) or ``"averaged"``, without
        the Euler error of the variance (Leimkuhler & Matthews 2013).

    Returns
    -------
    Callable
        ``kernel(rng_key, state, grad_estimator, minibatch, step_size, temperature=1.0)``, which
        returns (:class:`SGLDState`, :class:`SGLDInfo`).
    """
    integrator = choose_integrator(noise)

    def kernel(
        rng_key: PRNGKey,
        state: SGLDState,
        grad_estimator: Callable,
        minibatch: ArrayLikeTree,
        step_size: Schedule,
        temperature: Schedule = 1.0,
    ) -> tuple[SGLDState, SGLDInfo]:
        motion, step = state
        h, position = value_at(step_size, step), integrator.position(motion)
        gradient = grad_estimator(position, minibatch)
        proposal = integrator.step(
            motion,
            lambda _: gradient,
            draw_normals(rng_key, position),
            h,
            value_at(temperature, step),
        )
        finite = is_finite(integrator.position(proposal))
        motion = jax.tree.map(lambda new, old: jnp.where(finite, new, old), proposal, motion)
        return SGLDState(motion, step + 1), SGLDInfo(jnp.asarray(h), gradient, ~finite)

    return kernel


def as_top_level_api(grad_estimator: Callable, *, noise: str = "independent") -> SamplingAlgorithm:
    """Make stochastic gradient Langevin dynamics in BlackJAX's form.

    theta <- theta + h g(theta) + sqrt(2 h tau) xi, with g a minibatch's estimate of the gradient
    of the log density (Welling & Teh 2011; their epsilon is 2 h). The caller chooses the minibatch.
    Its noise adds to the temperature, and the relative error of the posterior variance is
    (h/2)(C0 + 1 + K) in whitened coordinates (docs/theory.md, section 2.2).

    Parameters
    ----------
    grad_estimator
        ``grad_estimator(position, minibatch)``, as ``blackjax.sgmcmc.gradients.grad_estimator``
        and ``control_variates`` return.
    noise
        ``"independent"`` or ``"averaged"``.

    Returns
    -------
    blackjax.base.SamplingAlgorithm
        ``init(position, rng_key=None)`` and
        ``step(rng_key, state, minibatch, step_size, temperature=1.0)``; step size and
        temperature are numbers or functions of ``state.step``.

    Examples
    --------
    >>> import jax, jax.numpy as jnp, sgworld_mcmc as sg
    >>> from blackjax.sgmcmc.gradients import grad_estimator
    >>> y = 1 + jax.random.normal(jax.random.key(0), (1000,))
    >>> estimator = grad_estimator(lambda mu: -mu**2 / 2, lambda mu, y: -((y - mu) ** 2) / 2, 1000)
    >>> alg = sg.sgld(estimator)
    >>> state = alg.init(jnp.array(0.0))
    >>> state, info = jax.jit(alg.step)(jax.random.key(1), state, y[:100], 1e-4)
    >>> bool(info.diverging), int(state.step)
    (False, 1)
    """
    kernel = build_kernel(noise)

    def init_fn(position: ArrayLikeTree, rng_key: PRNGKey | None = None) -> SGLDState:
        return init(position, rng_key, noise=noise)

    def step_fn(
        rng_key: PRNGKey,
        state: SGLDState,
        minibatch: ArrayLikeTree,
        step_size: Schedule,
        temperature: Schedule = 1.0,
    ) -> tuple[SGLDState, SGLDInfo]:
        return kernel(rng_key, state, grad_estimator, minibatch, step_size, temperature)

    return SamplingAlgorithm(init_fn, step_fn)
