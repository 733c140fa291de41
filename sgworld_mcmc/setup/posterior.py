"""The posterior that the set-up measures: its data in two precisions, and its coordinates."""

from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import float_dtype, from_numpy
from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import is_large
from sgworld_mcmc.device_layout import Layout
from sgworld_mcmc.gradients.batch_expansions import BatchExpansions
from sgworld_mcmc.gradients.taylor import Taylor, TaylorControls
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.groups import Structure
from sgworld_mcmc.setup.mode_search import ModeSearch
from sgworld_mcmc.setup.row_derivatives import (
    RowDerivatives,
    batch_expansions,
    count_numbers,
    row_derivatives,
)

# Vectors of random signs that estimate the correlation of many parameters.
SIGNS = 32
# The entries of a site are judged together if it has at least so many along an axis.
EXCHANGEABLE = 20
# Derivatives of single rows are kept, and those of batches, if they are at most so many numbers:
# 256 MB in single precision. Their time grows like their number.
MOST_NUMBERS = 2**26

__all__ = ["Derivatives", "Posterior", "derivatives", "gaussian_draws"]


class Posterior(NamedTuple):
    """A model with its data, and the coordinates in which it is looked at.

    Attributes
    ----------
    functions
        The model's compiled functions.
    rows, constants
        Shuffled data leaves and constants in the sampler's precision.
    constants_double
        The constants in the precision of the set-up.
    feed_double
        The rows in the precision of the set-up, cut into batches.
    rows_double
        The same rows, not cut.
    fit
        The coordinates.
    temperature
        The temperature tau > 0.
    structure
        How the parameters go by group, if the coordinates are made for that; else None.
    row_derivatives
        Derivatives of single rows at the center, in the order of ``rows_double``; None if they are
        too many or not known.
    whole
        The :class:`~sgworld_mcmc.setup.streamed.whole.WholeData` of rows that are streamed, of
        which the rows above are a random part; None if they are all rows.
    strata, layout
        Number of devices that may share batches, and where their rows lie; one, and None, if there
        are not several.
    """

    functions: SetUpFunctions
    rows: tuple
    constants: tuple
    rows_double: tuple
    constants_double: tuple
    feed_double: FixedPartition
    fit: CoordinateFit
    temperature: float
    structure: Structure | None = None
    row_derivatives: RowDerivatives | None = None
    whole: Any = None
    strata: int = 1
    layout: Layout | None = None

    @property
    def size(self) -> int:
        """Number of rows N."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    @property
    def coordinates(self) -> Coordinates:
        """The sampler's coordinates, which do not depend on the temperature."""
        return self.fit.coordinates

    def gradient(self) -> np.ndarray:
        """Return the (D,) gradient of the log density at the center."""
        if self.fit.gradient is not None:
            return self.fit.gradient
        with jax.enable_x64(self.functions.model.precise):
            if self.whole is not None:
                return self.whole.gradient(self.coordinates.center)[1]
            search = ModeSearch(self.functions, self.feed_double, self.constants_double)
            return search.gradient(self.coordinates.center)

    def with_gradient(self) -> "Posterior":
        """Return the posterior with the gradient at its center, which need not be found again."""
        return self._replace(fit=self.fit._replace(gradient=self.gradient()))

    def hessian(self, position: np.ndarray, used: int | None = None) -> np.ndarray:
        """Return the (D, D) Hessian of the potential, from the first ``used`` set-up batches."""
        if self.whole is not None and used is None:
            with jax.enable_x64(self.functions.model.precise):
                return self.whole.hessian(position)
        feed = self.feed_double
        used = feed.num_batches if used is None else used
        with jax.enable_x64(self.functions.model.precise):
            few = None if self.whole is None else self.whole.few
            if is_large(self.size) or few is not None:  # this function is compiled already
                search = ModeSearch(self.functions, feed, self.constants_double, few=few)
                return search.expand(position, used).hessian
            count_rows(used / feed.num_batches * self.size)
            hessian = self.functions.hessian(
                from_numpy(position), feed, self.constants_double, used
            )
        return np.asarray(hessian, float)

    def with_row_derivatives(self) -> "Posterior":
        """Return the posterior with the derivatives of its rows, if they are not too many."""
        known = self.structure is not None and self.whole is None  # of a part they are no use
        if not known or count_numbers(self.structure, self.size) > MOST_NUMBERS:
            return self._replace(row_derivatives=None)
        return self._replace(row_derivatives=row_derivatives(*self._at_center(), self.structure))

    def expansions(self, batches: np.ndarray, factor: float) -> BatchExpansions | None:
        """Return the derivatives of batches at the center, None if they would be too many.

        Parameters
        ----------
        batches
            (M, L) numbers of the rows of each batch, N where a batch has one row less than others.
        factor
            The factor before the sum over the rows of a batch.
        """
        if self.row_derivatives is None:
            return None
        widths = [grouping.columns.shape for grouping in self.structure.groupings]
        size = len(self.structure.rest)
        # Around a mean Hessian there is no other way.
        most = np.inf if self.fit.mean else MOST_NUMBERS
        numbers = len(batches) * (size**2 + sum(g * q * (1 + q + size) for g, q in widths))
        if numbers > most:
            return None
        made = batch_expansions(
            self.row_derivatives,
            self.structure,
            self.coordinates,
            self.gradient(),
            batches,
            factor,
        )
        return made.cast(float_dtype(), 1 / self.temperature)

    def taylor(self, batches: np.ndarray, factor: float) -> tuple[Taylor, TaylorControls] | None:
        """Return Taylor control variates with the derivatives of :meth:`expansions`, or None.

        The batches' Jacobians add up to minus the identity, whether K comes from the Hessian at the
        center or from a mean: what differs is taken for a part of the prior. The estimate is
        unbiased for any such Jacobians.
        """
        known = self.expansions(batches, factor)
        if known is None:
            return None
        dtype = float_dtype()
        gradient = self.coordinates.pull_back(self.gradient()) / self.temperature**0.5
        jacobian = from_numpy(-np.ones(self.fit.dimension), dtype)
        return Taylor(), TaylorControls(from_numpy(gradient, dtype), jacobian, known)

    def curvatures(self) -> np.ndarray:
        """Return the (N,) traces of the rows' curvatures at the center, in their group's entries.

        Rows are dealt into batches by them.
        """
        total, deviations = np.zeros(self.size), self.coordinates.deviations()
        first = self.structure.first
        for number, places in enumerate(first.columns.T):
            if self.row_derivatives is not None:
                own = self.row_derivatives.second[number][number]
                total += np.where(first.index < 0, 0, own * deviations[places[first.index]] ** 2)
                continue
            direction = np.zeros(self.fit.dimension)
            direction[places] = deviations[places]
            functions, center, feed, constants = self._at_center()
            count_rows(self.size)
            with jax.enable_x64(functions.model.precise):
                direction = from_numpy(direction)
                position = from_numpy(np.asarray(center))
                total += functions.mixed(position, direction, direction, feed, constants)[1]
        return total

    def _at_center(self) -> tuple:
        center = self.coordinates.center
        return self.functions, center, self.feed_double, self.constants_double

    def parts(self) -> tuple[tuple[np.ndarray, float], ...]:
        """Return which parameters are judged together where they go by group.

        The entries of a site along an axis of groups are exchangeable. All parameters without such
        an axis are one part. Each part comes with the number of independent directions that it is
        worth.
        """
        model, start, parts, rest = self.functions.model, 0, [], []
        for name in model.latents:
            shape = model.shapes[name]
            places = start + np.arange(int(np.prod(shape))).reshape(shape)
            start += places.size
            if max(shape, default=0) < EXCHANGEABLE:
                rest.append(places.ravel())
                continue
            axis = int(np.argmax(shape))
            parts += list(np.moveaxis(places, axis, -1).reshape(-1, shape[axis]))
        parts += [np.concatenate(rest)] if rest else []
        return tuple((places, self._worth(places)) for places in parts)

    def _worth(self, places: np.ndarray) -> float:
        """Return how many independent directions some parameters are worth.

        That is Q^2 over the sum of their squared correlations, which random signs estimate.
        """
        coordinates, generator = self.coordinates, np.random.default_rng(0)
        signs = np.zeros((SIGNS, self.fit.dimension))
        signs[:, places] = generator.choice([-1.0, 1.0], (SIGNS, len(places)))
        deviations = coordinates.deviations()
        turned = coordinates.apply(coordinates.pull_back(signs / deviations)) / deviations
        squares = (turned[:, places] ** 2).sum(1).mean()
        return float(np.clip(len(places) ** 2 / squares, 1, len(places)))

    def at(self, z: np.ndarray) -> np.ndarray:
        """Return the model's unconstrained parameters at positions z (..., D).

        z is measured in standard deviations of the tempered posterior.
        """
        return self.coordinates.scaled(self.temperature**0.5).to_model(z)


class Derivatives(NamedTuple):
    """Derivatives of the log density of all rows at the center.

    They are in the sampler's coordinates and precision.

    Attributes
    ----------
    gradient
        (D,) gradient.
    jacobian
        (D, D) Jacobian of the gradient, its diagonal (D,) if all else is zero, or None if the
        Hessian is not known.
    """

    gradient: jax.Array
    jacobian: jax.Array | None


def derivatives(posterior: Posterior, temperature: float = 1.0) -> Derivatives:
    """Return the derivatives of log p / tau at the center, in coordinates scaled by sqrt(tau)."""
    coordinates, dtype = posterior.coordinates, float_dtype()
    gradient = coordinates.pull_back(posterior.gradient()) / temperature**0.5
    jacobian = None
    if posterior.fit.unit and not posterior.fit.mean:
        jacobian = from_numpy(-np.ones(posterior.fit.dimension), dtype)
    elif posterior.fit.hessian is not None:
        jacobian = from_numpy(-coordinates.whiten(posterior.fit.hessian), dtype)
    return Derivatives(from_numpy(gradient, dtype), jacobian)


def gaussian_draws(generator: np.random.Generator, posterior: Posterior) -> np.ndarray:
    """Draw (P, D) positions of the Gaussian approximation at the center."""
    dimension = posterior.fit.dimension
    chains = 128 if dimension <= 64 else 64 if dimension <= 300 else 32
    if posterior.functions.model.reason is not None:
        chains = 32  # each step of a chain takes the gradient of all rows
    if posterior.fit.unit:  # a step has many parameters to move, and most are alike
        chains = 32
    draws = generator.standard_normal((chains, dimension))
    values, vectors = posterior.fit.spectrum()
    return draws if values is None else draws / np.sqrt(values) @ vectors.T
