"""The static choices of a run: what decides which program its steps are compiled to."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from sgworld_mcmc.protocols import Gradient, Integrator, Order
from sgworld_mcmc.sampling.recording import Recorder

__all__ = ["Dynamics"]

# A segment in which positions are cut has so many steps, or cutting costs more than it saves.
FEWEST_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Dynamics:
    """The static choices of a run, under which its compiled program is stored and found again.

    Attributes
    ----------
    order, gradient, integrator
        Objects of the kinds that :mod:`sgworld_mcmc.protocols` describes.
    temperature
        Temperature tau: the draws are those of exp(-U / tau).
    num_batches
        Number of batches M.
    steps_per_draw
        Minibatch steps from one draw to the next.
    steps_per_warmup
        Minibatch steps of a warm-up call: an epoch, or the steps of a draw if they are fewer.
    limit
        A chain with a larger coordinate has diverged; None if the coordinates have no scale.
    recorded
        Number of leading coordinates whose moments are recorded; 0 for none.
    step_schedule, temperature_schedule
        Functions of the number of minibatch steps made so far that take the place of the step size
        of the state and of ``temperature``; None for constants.
    random
        Whether the target draws random numbers, with a key as its third argument: every step has a
        fresh one.
    shards
        Number of equal parts into which the rows of a batch are cut, for as many devices.
    """

    order: Order
    gradient: Gradient
    integrator: Integrator
    temperature: float
    num_batches: int
    steps_per_draw: int
    steps_per_warmup: int
    limit: float | None
    recorded: int = 0
    step_schedule: Callable | None = None
    temperature_schedule: Callable | None = None
    random: bool = False
    shards: int = 1

    @property
    def segment(self) -> int:
        """Number of steps of a segment: within one no epoch begins and no draw ends."""
        return math.gcd(self.num_batches, self.steps_per_draw, self.steps_per_warmup)

    def settings_at(self, step: jax.Array, step_size: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return step size and temperature of the segment that begins at a step.

        ``step_size`` is that of a constant one.
        """
        temperature = self.temperature
        if self.step_schedule is not None:
            step_size = jnp.asarray(self.step_schedule(step), step_size.dtype)
        if self.temperature_schedule is not None:
            temperature = jnp.asarray(self.temperature_schedule(step), step_size.dtype)
        return step_size, temperature

    @property
    def by_site(self) -> bool:
        """Whether positions may be cut at the sites within a segment, and it is worth it."""
        able = self.gradient.by_site and self.integrator.by_site and not self.recorded
        return able and self.segment >= FEWEST_STEPS

    @property
    def recorder(self) -> Recorder:
        """The recorder, which says what is recorded of a chain, and when."""
        return Recorder(self.recorded, self.order.period)
