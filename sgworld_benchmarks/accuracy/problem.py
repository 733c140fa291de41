"""The record of a problem of the accuracy benchmark, and the fingerprint of its posterior."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer.util import initialize_model

__all__ = ["Moments", "Posterior", "Problem", "describe", "exact_problem", "representable"]


class Moments(NamedTuple):
    """Means and standard deviations by scalar parameter, all arrays (D,).

    Attributes
    ----------
    names
        Names of the scalar parameters, such as ``beta[0]``.
    mean, sd
        Mean and standard deviation of the posterior, or of draws.
    mean_se, sd_se
        Their Monte Carlo standard errors; zero if the moments are exact.
    ess
        Effective sample size, the smaller one of those for mean and squared deviation; infinite if
        the moments are exact.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    mean_se: np.ndarray
    sd_se: np.ndarray
    ess: np.ndarray


class Problem(NamedTuple):
    """A model with its data, and what is known about its posterior.

    Attributes
    ----------
    title
        Title of one line, for the table.
    model
        NumPyro model whose log density is a prior plus a sum over the rows of its array arguments.
    data
        Arguments of the model: arrays with N rows, and Python numbers.
    sites
        The sites that are compared in constrained values, deterministic ones included; empty if
        nothing can be compared.
    exact
        Exact `Moments`, or None if the reference is the stored run of NUTS.
    reference_model
        A model of the same posterior in coordinates that suit NUTS, for the stored run; None for
        the model itself.
    draws, warmup
        Numbers of draws and warm-up transitions of each of the four chains of the stored run.
    acceptance
        Acceptance probability that its step size is adapted to; more where the curvature varies.
    keywords
        Keyword arguments of the model.
    note
        What is special about the posterior, such as why nothing can be compared.
    """

    title: str
    model: Callable
    data: tuple[Any, ...]
    sites: tuple[str, ...]
    exact: Moments | None = None
    reference_model: Callable | None = None
    draws: int = 3000
    warmup: int = 600
    acceptance: float = 0.9
    keywords: Mapping[str, Any] = MappingProxyType({})
    note: str = ""

    @property
    def size(self) -> int:
        """Number of rows N, the length of the first array argument; 0 if there is none."""
        arrays = (x for x in jax.tree.leaves((self.data, dict(self.keywords))) if np.ndim(x) > 0)
        return next(map(len, arrays), 0)

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The array arguments, to be passed to compiled functions, which should not hold them."""
        return tuple(x for x in self.data if isinstance(x, np.ndarray))

    def arguments(self, arrays: tuple) -> tuple:
        """Return the model's arguments with other (traced) arrays in place of its own."""
        remaining = iter(arrays)
        return tuple(next(remaining) if isinstance(x, np.ndarray) else x for x in self.data)


class Posterior(NamedTuple):
    """The number of free coordinates of a posterior, and its fingerprint."""

    dimension: int
    fingerprint: float


def describe(problem: Problem) -> Posterior:
    """Count the unconstrained coordinates, and evaluate the potential where all of them are 0.1.

    The fingerprint ties a stored reference to the model and the data that it was made with: it is
    another one for another prior or another random stream. It is computed in double precision.
    """
    try:
        return _describe(problem, problem.model)
    except ValueError:
        # NumPyro cannot evaluate a plate with `subsample_size` outside of its own SVI.
        if problem.reference_model is None:
            raise
        return _describe(problem, problem.reference_model)


def _describe(problem, model):
    with jax.enable_x64(True):
        info = initialize_model(
            jax.random.key(0),
            model,
            model_args=problem.data,
            model_kwargs=dict(problem.keywords),
            validate_grad=False,
        )
        point = jax.tree.map(lambda z: jnp.full(jnp.shape(z), 0.1), info.param_info.z)
        value = float(info.potential_fn(point))
    return Posterior(sum(z.size for z in point.values()), value)


def exact_problem(title: str, posterior, reference_model: Callable | None = None) -> Problem:
    """Return a problem made from an object of :mod:`sgworld_mcmc.exact`."""
    moments = exact_moments(posterior.names, posterior.flatten(posterior.mean), posterior.sd)
    sites = tuple(posterior.shapes)
    return Problem(title, posterior.model, posterior.data, sites, moments, reference_model)


def exact_moments(names, mean, sd) -> Moments:
    """Return `Moments` without errors."""
    zero = np.zeros(len(names))
    return Moments(tuple(names), np.asarray(mean), np.asarray(sd), zero, zero, zero + np.inf)


def representable(array) -> np.ndarray:
    """Round to float32 values, kept as float64: single precision then sees the same data."""
    return np.asarray(array, np.float32).astype(np.float64)
