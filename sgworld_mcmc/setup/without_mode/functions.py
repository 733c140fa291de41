"""The compiled functions of a set-up without a mode. Each model has one set of them."""

import jax
import jax.numpy as jnp

from sgworld_mcmc.compilation import Ahead, quick_jit
from sgworld_mcmc.interrupts import waiting
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.setup.descent import adam
from sgworld_mcmc.setup.without_mode.prior_scales import prior_moments
from sgworld_mcmc.setup.without_mode.spectrum import lanczos_runs
from sgworld_mcmc.setup.without_mode.warm_start import advance

__all__ = ["KineticFunctions", "kinetic_functions_of"]

# The learning rate of Adam at the start, in standard deviations of the prior.
LEARNING_RATE = 0.05


def kinetic_functions_of(model: MinibatchModel) -> "KineticFunctions":
    """Return the functions of a model, the same ones for as long as the model lives."""
    if KineticFunctions not in model.kept:
        model.kept[KineticFunctions] = KineticFunctions(model)
    return model.kept[KineticFunctions]


class KineticFunctions:
    """The functions that the set-up of one model calls, compiled when first called.

    Each of them can be stopped by Ctrl-C while it runs. Data, constants and coordinates are
    arguments. The programs can be compiled side by side before the first of them is called
    (:class:`~sgworld_mcmc.compilation.Ahead`).
    """

    def __init__(self, model: MinibatchModel) -> None:
        self.model = model
        self.programs = {
            name: Ahead(quick_jit(getattr(self, f"_{name}")))
            for name in ("prior", "adam", "lanczos", "advance", "density")
        }
        self.prior, self.adam, self.lanczos, self.advance, self.density = map(
            waiting, self.programs.values()
        )

    def _prior(self, seed, rows, constants):
        return prior_moments(jax.random.key(seed), self.model, rows, constants)

    def _adam(self, starts, radii, order, coordinates, feed, constants):
        """Return (P, D) starts, where the density is finite, and where Adam leads from them.

        The first radius is taken where it is finite, or zero. The chains share the batches.
        """
        target = target_of(self.model, constants, coordinates)
        rows = feed.fetch((), 0).main

        def one(start):
            finite = jax.lax.map(lambda r: jnp.isfinite(target(r * start, rows)), radii)
            start = jnp.where(jnp.any(finite), radii[jnp.argmax(finite)], 0) * start
            return start, adam(start, order, target, feed, learning_rate=LEARNING_RATE)

        return jax.vmap(one)(starts)

    def _lanczos(self, seed, positions, coordinates, rows, constants):
        target = target_of(self.model, constants, coordinates)
        return lanczos_runs(jax.random.key(seed), target, positions, rows, self.model.size)

    def _advance(self, seed, chains, order, clock, settings, coordinates, feed, constants):
        """Return burn-in chains after more steps.

        ``clock`` holds the numbers of rows to make and to count, and ``settings`` step size,
        friction and temperature.
        """
        target = target_of(self.model, constants, coordinates)
        return advance(jax.random.key(seed), chains, order, *clock, *settings, target, feed)

    def _density(self, positions, coordinates, rows, constants):
        """Return the (P,) log densities at positions (P, D)."""
        target = target_of(self.model, constants, coordinates)
        return jax.lax.map(lambda z: target(z, rows), positions)
