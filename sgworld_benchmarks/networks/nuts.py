"""Chains of NumPyro's NUTS with its default settings, one after the other."""

import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import NUTS

from sgworld_benchmarks.networks.problems import Network

__all__ = ["NutsChain", "NutsChains"]


class NutsChain(NamedTuple):
    """What one chain has found.

    Attributes
    ----------
    mean, square
        Means of the predictions at the test rows, and of their squares.
    energy
        Mean of minus the log joint density of data and sites.
    leapfrogs
        Number of gradients of all rows, those of the warm-up included.
    divergences
        Number of divergent transitions after the warm-up.
    seconds
        Seconds of the chain; of the first one with the compilation.
    cpu_seconds
        The same by the clock of the processor, of all threads: on a machine that does other work
        besides it is the fairer measure.
    """

    mean: np.ndarray
    square: np.ndarray
    energy: float
    leapfrogs: int
    divergences: int
    seconds: float
    cpu_seconds: float


class NutsChains:
    """Chains of one network, which share one compilation.

    Parameters
    ----------
    network
        The problem.
    warmup, draws
        Transitions of each chain.
    """

    def __init__(self, network: Network, warmup: int, draws: int) -> None:
        self.network, self.warmup, self.draws = network, warmup, draws
        self._kernel = NUTS(network.model)
        self._arrays = jnp.asarray(network.x), jnp.asarray(network.y)
        self._transitions = jax.jit(self._run, static_argnames="length")
        self._summary = jax.jit(self._summarise)

    def run(self, seed: int) -> NutsChain:
        """Run one chain; the seed decides everything random in it."""
        start, cpu = time.perf_counter(), time.process_time()
        state = self._kernel.init(jax.random.key(seed), self.warmup, None, self._arrays, {})
        state, (_, before, _) = self._transitions(state, self._arrays, length=self.warmup)
        _, (z, after, diverging) = self._transitions(state, self._arrays, length=self.draws)
        jax.block_until_ready(z)
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        mean, square, energy = self._summary(z, self._arrays, jnp.asarray(self.network.test_x))
        return NutsChain(
            np.asarray(mean),
            np.asarray(square),
            float(energy),
            int(before.sum()) + int(after.sum()),
            int(diverging.sum()),
            seconds,
            cpu,
        )

    def _run(self, state, arrays, length):
        def transition(state, _):
            state = self._kernel.sample(state, arrays, {})
            return state, (state.z, state.num_steps, state.diverging)

        return jax.lax.scan(transition, state, length=length)

    def _summarise(self, z, arrays, test_x):
        """Return means over the draws of the predictions, of their squares and of the energy."""
        constrain = self._kernel.postprocess_fn(arrays, {})

        def add(totals, z):
            sites = constrain(z)
            predicted = self.network.predict(sites, test_x)
            new = predicted, predicted**2, self.network.energy(sites)
            return jax.tree.map(lambda t, x: t + x / self.draws, totals, new), None

        first = self.network.predict(constrain(jax.tree.map(lambda x: x[0], z)), test_x)
        zeros = jnp.zeros_like(first), jnp.zeros_like(first), jnp.zeros(())
        return jax.lax.scan(add, zeros, z)[0]
