"""What the set-up works on: a model, its data in two precisions, and the sampler's coordinates."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.batches import Batches, num_batches
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.passes import count_rows
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinates_from_mode import Center, spectrum
from sgworld_mcmc.setup.mode_search import Finder

__all__ = ["Bench", "gaussian_draws"]


class Bench(NamedTuple):
    """A model, its data in two precisions, and the sampler's coordinates.

    Attributes
    ----------
    functions
        Of the model.
    rows, constants
        Shuffled data leaves and constants in the sampler's precision.
    rows_double, constants_double
        The same in the precision of the set-up.
    batches_double
        ``rows_double`` cut into batches.
    center
        The coordinates.
    temperature
        tau > 0.
    """

    functions: SetUpFunctions
    rows: tuple
    constants: tuple
    rows_double: tuple
    constants_double: tuple
    batches_double: Batches
    center: Center
    temperature: float

    @property
    def size(self) -> int:
        """N."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    def gradient(self) -> np.ndarray:
        """(D,) gradient of the log density at the center."""
        if self.center.gradient is not None:
            return self.center.gradient
        with jax.enable_x64(self.functions.model.precise):
            finder = Finder(self.functions, self.batches_double, self.constants_double)
            return finder.gradient(self.center.position)

    @property
    def directions(self) -> np.ndarray | None:
        """(D, D) unit vectors of the parameters in whitened coordinates; None for the axes."""
        scale = self.center.scale
        if scale.ndim == 1:
            return None
        return scale / np.linalg.norm(scale, axis=1, keepdims=True)

    def hessian(self, position: np.ndarray, used: int | None = None) -> np.ndarray:
        """(D, D) of the potential of all rows, from the first ``used`` of the set-up's batches."""
        batches = self.batches_double
        used = num_batches(batches) if used is None else used
        with jax.enable_x64(self.functions.model.precise):
            finder = Finder(self.functions, batches, self.constants_double)
            if is_large(self.size):  # the function that is compiled
                return finder.expand(position, used).hessian
            count_rows(used / num_batches(batches) * self.size)
            hessian = self.functions.hessian(
                jnp.asarray(position), batches, self.constants_double, used
            )
        return np.asarray(hessian, float)

    def at(self, z: np.ndarray) -> np.ndarray:
        """The model's unconstrained parameters at positions z (..., D) in these coordinates."""
        center, scale = self.center.position, self.center.scale * self.temperature**0.5
        return center + (z * scale if scale.ndim == 1 else z @ scale.T)


def gaussian_draws(generator: np.random.Generator, bench: Bench) -> np.ndarray:
    """(P, D) draws of the Gaussian approximation at the center, in its coordinates."""
    dimension = len(bench.center.position)
    chains = 128 if dimension <= 64 else 64 if dimension <= 300 else 32
    draws = generator.standard_normal((chains, dimension))
    values, vectors = spectrum(bench.center)
    return draws if values is None else draws / np.sqrt(values) @ vectors.T
