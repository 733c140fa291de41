"""The compiled functions of the set-up: one instance of the model each, kept from run to run."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.gradients.estimators import make_offsets, whitened_log_density
from sgworld_mcmc.gradients.weighting import epoch_mean
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.setup.coupled_chains import advance_pilot
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION, dense_hessian, diagonal_hessian
from sgworld_mcmc.setup.descent import adam, descend
from sgworld_mcmc.setup.gaussian_fit import fit_gaussian
from sgworld_mcmc.setup.one_pass import expand
from sgworld_mcmc.setup.part_gradients import corrected_gradients, part_gradients
from sgworld_mcmc.setup.row_noise import measure_noise

__all__ = ["SetUpFunctions"]

# Above, many passes over all rows take longer than compilation, and above the second a single one
# with the Hessian does.
MANY_ROWS, VERY_MANY_ROWS = 2**20, 2**22


class SetUpFunctions:
    """What the set-up of one model calls, compiled when first called.

    Parameters
    ----------
    model
        The model; data and constants are arguments of every function.
    strategy
        NumPyro's initialisation strategy.
    """

    def __init__(self, model: MinibatchModel, strategy: Callable) -> None:
        self.model, self.strategy = model, strategy
        work = "much" if model.size > MANY_ROWS else "some"
        once = "much" if model.size > VERY_MANY_ROWS else "some"
        # The search on growing parts reads all rows once or twice; L-BFGS does so all the way.
        search = "some" if model.dimension <= DENSE_DIMENSION else work
        self.initial = quick_jit(self._initial)
        self.adam = quick_jit(self._adam)
        self.descend = quick_jit(self._descend, search, static_argnames="newton")
        self.hessian = quick_jit(self._hessian, work)
        self.expansion = quick_jit(self._expansion, once)
        self.diagonal = quick_jit(self._diagonal, work)
        self.noise = quick_jit(self._noise, static_argnames="block")
        self.pilot = quick_jit(self._pilot, static_argnames="whole")
        self.offsets = quick_jit(self._offsets, work)
        self.gradients = quick_jit(self._gradients, work)
        self.part_gradients = quick_jit(self._part_gradients, static_argnames="length")
        self.gaussian = quick_jit(self._gaussian)

    def _density(self, constants):
        return lambda flat, rows: self.model.log_density(flat, rows, constants)

    def _initial(self, seeds, rows, constants):
        """(S, D) starting points: for each of (S, T) seeds the first finite of T candidates."""
        model = self.model

        def one(seeds):
            def candidate(seed):
                key = jax.random.key(seed)
                point = model.ravel(model.initial_params(key, self.strategy, rows, constants))
                return point, jnp.isfinite(model.log_density(point, rows, constants))

            points, finite = jax.lax.map(candidate, seeds)
            return points[jnp.argmax(finite)]

        return jax.lax.map(one, seeds)

    def _adam(self, starts, orders, batches, constants):
        density = self._density(constants)
        return jax.vmap(lambda x, order: adam(x, order, density, batches))(starts, orders)

    def _descend(self, start, scale, batches, constants, used, limit, *, newton):
        density = self._density(constants)
        return descend(start, scale, newton, density, batches, used, limit)

    def _hessian(self, position, batches, constants, used):
        return dense_hessian(self._density(constants), position, batches, used)

    def _expansion(self, position, batches, constants, used):
        return expand(self._density(constants), position, batches, used)

    def _diagonal(self, probes, position, batches, constants):
        return diagonal_hessian(probes, self._density(constants), position, batches)

    def _whitened(self, center, scale, constants, temperature=1.0):
        """The target log p / tau in coordinates where it is about a standard Gaussian."""
        density = whitened_log_density(self.model, constants, center, scale * jnp.sqrt(temperature))
        return lambda z, rows: density(z, rows) / temperature

    def _noise(self, center, scale, draws, rows, constants, directions, temperature, *, block):
        density = lambda flat, row: self.model.log_density(flat, row, constants) / temperature  # noqa: E731
        scale = scale * jnp.sqrt(temperature)
        return measure_noise(density, center, scale, draws, rows, block, directions)

    def _pilot(
        self,
        chains,
        fresh,
        order,
        step_size,
        burn_in,
        steps,
        center,
        scale,
        anchor,
        batches,
        constants,
        directions,
        limit,
        temperature,
        *,
        whole,
    ):
        density = self._whitened(center, scale, constants, temperature)

        def gradient(z, index):
            if whole:
                return jax.vmap(lambda x: epoch_mean(jax.grad(density), x, batches))(z)
            rows = jax.tree.map(lambda x: x[index], batches.main)
            return corrected_gradients(density, rows, anchor, z)

        return advance_pilot(
            chains, fresh, order, step_size, burn_in, steps, gradient, directions, limit
        )

    def _offsets(self, center, scale, batches, constants):
        density = self._whitened(center, scale, constants)
        return make_offsets(density, jnp.zeros_like(center), batches)

    def _gaussian(self, seed, start, order, batches, constants):
        return fit_gaussian(seed, start, order, self._density(constants), batches)

    def _gradients(self, positions, center, scale, batches, constants):
        """(S, D) gradients of the log density of all rows, in preconditioned coordinates."""
        gradient = jax.grad(self._whitened(center, scale, constants))
        one = lambda z: epoch_mean(gradient, z, batches)  # noqa: E731
        return jax.lax.map(one, positions, batch_size=min(16, positions.shape[0]))

    def _part_gradients(self, positions, center, scale, anchor, rows, constants, *, length):
        """(S, D) estimates of the same, each from rows of its own."""
        density = self._whitened(center, scale, constants)
        return part_gradients(density, positions, anchor, rows, length)
