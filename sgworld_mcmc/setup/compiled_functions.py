"""The compiled functions of the set-up. Each model has one set of them, kept from run to run."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from sgworld_mcmc.compilation import Ahead, quick_jit
from sgworld_mcmc.gradients.weighting import epoch_mean, gradient_of
from sgworld_mcmc.interrupts import waiting
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.target import target_of
from sgworld_mcmc.setup.arrow_hessian import along_rows, expand_along, mixed_of_rows
from sgworld_mcmc.setup.batch_moments import batch_moments
from sgworld_mcmc.setup.coupled_chains import advance_chains
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION, dense_hessian, diagonal_hessian
from sgworld_mcmc.setup.descent import adam, descend
from sgworld_mcmc.setup.gaussian_fit import fit_gaussian
from sgworld_mcmc.setup.groups import touched
from sgworld_mcmc.setup.influential_rows import influences
from sgworld_mcmc.setup.one_pass import expand
from sgworld_mcmc.setup.part_gradients import part_gradients
from sgworld_mcmc.setup.row_noise import measure_noise

__all__ = ["SetUpFunctions", "functions_of"]

# Above the first number of rows, many passes over all of them take longer than the compilation of
# a function; above the second, a single pass with the Hessian does.
MANY_ROWS, VERY_MANY_ROWS = 2**20, 2**22
# The gradients of so many pilot chains are computed together: more take more memory.
CHAINS = 64


def functions_of(model: MinibatchModel, strategy: Callable | None) -> "SetUpFunctions":
    """Return the functions of a model, the same ones for as long as the model lives."""
    if strategy not in model.kept:
        model.kept[strategy] = SetUpFunctions(model, strategy)
    return model.kept[strategy]


class SetUpFunctions:
    """The functions that the set-up of one model calls, compiled when first called.

    Each of them can be stopped by Ctrl-C while it runs.

    Parameters
    ----------
    model
        The model; data and constants are arguments of every function.
    strategy
        NumPyro's initialisation strategy, or None for its default.
    """

    def __init__(self, model: MinibatchModel, strategy: Callable | None) -> None:
        self.model, self.strategy = model, strategy
        work = "much" if model.size > MANY_ROWS else "some"
        once = "much" if model.size > VERY_MANY_ROWS else "some"
        # The search on growing parts reads all rows once or twice; L-BFGS reads them in every step.
        search = "some" if model.dimension <= DENSE_DIMENSION else work
        compiled = lambda *args, **options: waiting(quick_jit(*args, **options))  # noqa: E731
        self.initial = compiled(self._initial)
        self.adam = compiled(self._adam)
        self.descend = compiled(self._descend, search, static_argnames="newton")
        self.hessian = compiled(self._hessian, work)
        self.expansion = compiled(self._expansion, once)
        self.diagonal = compiled(self._diagonal, work)
        self.touched = compiled(self._touched, once)
        self.mixed = compiled(self._mixed, once)
        self.noise = compiled(self._noise, static_argnames=("block", "length"))
        self.influences = compiled(self._influences, work)
        self.pilot = compiled(self._pilot, static_argnames=("gradient", "integrator"))
        self.offsets = compiled(self._offsets, work, static_argnames="gradient")
        self.gradients = compiled(self._gradients, work)
        static = ("length", "gradient")
        self.part_gradients = compiled(self._part_gradients, static_argnames=static)
        self.gaussian = compiled(self._gaussian, static_argnames="dense")
        # These can be compiled while others run.
        self.programs = {
            "products": Ahead(quick_jit(self._products, once)),
            "values": Ahead(quick_jit(self._values, work)),
            "batch_moments": Ahead(quick_jit(self._batch_moments)),
        }
        made = map(waiting, self.programs.values())
        self.products, self.values, self.batch_moments = made

    def _density(self, constants, weight=None):
        return lambda flat, rows: self.model.log_density(flat, rows, constants, None, weight)

    def _initial(self, seeds, rows, constants):
        """Return (S, D) starting points: each is the first of T candidates with finite density."""
        model = self.model

        def one(seeds):
            def candidate(seed):
                key = jax.random.key(seed)
                point = model.ravel(model.initial_params(key, self.strategy, rows, constants))
                return point, jnp.isfinite(model.log_density(point, rows, constants))

            points, finite = jax.lax.map(candidate, seeds)
            return points[jnp.argmax(finite)]

        return jax.lax.map(one, seeds)

    def _adam(self, starts, orders, feed, constants):
        density = self._density(constants)
        return jax.vmap(lambda x, order: adam(x, order, density, feed))(starts, orders)

    def _descend(self, start, coordinates, feed, constants, used, limit, tilt=None, *, newton):
        own = self._density(constants)
        tilted = lambda flat, rows: own(flat, rows) + tilt @ flat  # noqa: E731
        density = own if tilt is None else tilted
        return descend(start, coordinates, newton, density, feed, used, limit)

    def _hessian(self, position, feed, constants, used):
        return dense_hessian(self._density(constants), position, feed, used)

    def _expansion(self, position, feed, constants, used, first, look=None):
        look = look and (look, self.model.size)
        return expand(self._density(constants), position, feed, used, first, look)

    def _diagonal(self, probes, position, feed, constants):
        return diagonal_hessian(probes, self._density(constants), position, feed)

    def _likelihood(self, constants):
        return lambda flat, rows: self.model.log_likelihood(flat, rows, constants)

    def _touched(self, position, tangents, feed, constants, groups):
        """Return the (N,) indices that rows touch, and the number of rows that are no guide."""
        likelihood = self._likelihood(constants)
        one = lambda rows: touched(likelihood, position, tangents, rows, groups)  # noqa: E731
        index, infinite = along_rows(one, feed)
        return index, infinite.sum()

    def _products(self, position, probes, feed, constants, used, first, weight, look=None):
        density, look = self._density(constants, weight), look and (look, self.model.size)
        return expand_along(density, position, probes, feed, used, first, look)

    def _mixed(self, position, one, other, feed, constants):
        """Return (N,) slopes of the rows' potentials along ``one``, and mixed derivatives."""
        likelihood = self._likelihood(constants)
        return along_rows(lambda rows: mixed_of_rows(likelihood, position, one, other, rows), feed)

    def _tempered(self, coordinates, constants, temperature):
        """Return the target log p / tau in coordinates where it is nearly a standard Gaussian."""
        scaled = coordinates.scaled(jnp.sqrt(temperature))
        return target_of(self.model, constants, scaled, temperature)

    def _noise(self, coordinates, draws, rows, constants, temperature, *, block, length=1):
        density = lambda flat, row: self.model.of_sample(flat, row, constants) / temperature  # noqa: E731
        scaled = coordinates.scaled(jnp.sqrt(temperature))
        return measure_noise(density, scaled, draws, rows, block, length)

    def _influences(self, look, rows, constants):
        return influences(self._density(constants), look, self.model.size, rows)

    def _batch_moments(self, coordinates, draws, rows, constants, pieces, number, temperature):
        density = lambda flat, some: self.model.of_sample(flat, some, constants) / temperature  # noqa: E731
        scaled = coordinates.scaled(jnp.sqrt(temperature))
        return batch_moments(density, scaled, draws, rows, pieces, number)

    def _pilot(
        self,
        chains,
        fresh,
        order,
        clock,
        coordinates,
        controls,
        feed,
        constants,
        temperature,
        *,
        gradient,
        integrator,
    ):
        target = self._tempered(coordinates, constants, temperature)

        def each(z, index):
            batch = feed.fetch((), index)
            one = lambda x: gradient(target, controls, feed, x, batch, index)  # noqa: E731
            return jax.lax.map(one, z, batch_size=CHAINS)

        return advance_chains(chains, fresh, order, clock, each, coordinates.along, integrator)

    def _offsets(self, coordinates, feed, constants, *, gradient):
        """Return (M, D) offsets, which the sampler's control variates need for every batch."""
        target = target_of(self.model, constants, coordinates)
        return gradient.prepare(target, feed, jnp.zeros_like(coordinates.center))

    def _gaussian(self, seed, start, order, feed, constants, *, dense=True):
        return fit_gaussian(seed, start, order, self._density(constants), feed, dense=dense)

    def _gradients(self, positions, coordinates, feed, constants):
        """Return (S, D) gradients of the log density of all rows, in the sampler's coordinates."""
        gradient = partial(epoch_mean, gradient_of(target_of(self.model, constants, coordinates)))
        one = lambda z: gradient(z, feed)  # noqa: E731
        return jax.lax.map(one, positions, batch_size=min(16, positions.shape[0]))

    def _values(self, positions, coordinates, feed, constants, used, weight=None):
        """Return (S,) log densities and (S, D) gradients, in the sampler's coordinates."""
        function = jax.value_and_grad(self._density(constants, weight))

        def one(z):
            value, gradient = epoch_mean(function, coordinates.to_model(z), feed, used)
            return value, coordinates.pull_back(gradient)

        return jax.lax.map(one, positions, batch_size=min(16, positions.shape[0]))

    def _part_gradients(
        self, positions, coordinates, controls, rows, constants, *, length, gradient
    ):
        """Return (S, D) estimates of the gradients of all rows, each from rows of its own."""
        target = target_of(self.model, constants, coordinates)
        return part_gradients(target, positions, gradient, controls, rows, length)
