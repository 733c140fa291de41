"""What a problem of the accuracy benchmark is, and a fingerprint of its posterior."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from numpyro.infer.util import initialize_model

__all__ = ["Moments", "Posterior", "Problem", "describe", "exact_problem", "representable"]


class Moments(NamedTuple):
    """Means and standard deviations by scalar parameter, all arrays (D,).

    Attributes
    ----------
    names
        Scalar parameters, such as ``beta[0]``.
    mean, sd
        Of the posterior, or of draws.
    mean_se, sd_se
        Their Monte Carlo standard errors; zero where they are exact.
    ess
        Effective sample size: the smaller one of the mean's and of the squared deviation's;
        infinite where the moments are exact.
    """

    names: tuple[str, ...]
    mean: np.ndarray
    sd: np.ndarray
    mean_se: np.ndarray
    sd_se: np.ndarray
    ess: np.ndarray


class Problem(NamedTuple):
    """A model with its data and what is known of its posterior.

    Attributes
    ----------
    title
        One line for the table.
    model
        NumPyro model: a prior plus a sum over the rows of its array arguments.
    data
        Its arguments: arrays with N rows, and Python numbers.
    sites
        The sites compared, in constrained values; deterministic ones included.
    exact
        Exact `Moments`, or None where the truth is the stored run of NUTS.
    reference_model
        A model of the same posterior in coordinates that suit NUTS, for the stored run; None:
        the model itself.
    draws, warmup
        Of each of the four chains of the stored run.
    """

    title: str
    model: Callable
    data: tuple[Any, ...]
    sites: tuple[str, ...]
    exact: Moments | None = None
    reference_model: Callable | None = None
    draws: int = 3000
    warmup: int = 600

    @property
    def size(self) -> int:
        """N, the number of rows."""
        return len(self.data[0])

    @property
    def arrays(self) -> tuple[np.ndarray, ...]:
        """The array arguments: to be passed to compiled functions, which should not hold them."""
        return tuple(x for x in self.data if isinstance(x, np.ndarray))

    def arguments(self, arrays: tuple) -> tuple:
        """The model's arguments with other (traced) arrays in place of its own."""
        remaining = iter(arrays)
        return tuple(next(remaining) if isinstance(x, np.ndarray) else x for x in self.data)


class Posterior(NamedTuple):
    """The number of free coordinates of a posterior, and its fingerprint."""

    dimension: int
    fingerprint: float


def describe(problem: Problem) -> Posterior:
    """Count the unconstrained coordinates, and evaluate the potential where all of them are 0.1.

    The fingerprint ties a stored reference to the model and the data it was made with: a changed
    prior or another random stream moves it. It is computed in double precision.
    """
    with jax.enable_x64(True):
        info = initialize_model(
            jax.random.key(0), problem.model, model_args=problem.data, validate_grad=False
        )
        point = jax.tree.map(lambda z: np.full(np.shape(z), 0.1), info.param_info.z)
        value = float(info.potential_fn(point))
    return Posterior(sum(z.size for z in point.values()), value)


def exact_problem(title: str, posterior, reference_model: Callable | None = None) -> Problem:
    """A problem from an object of :mod:`sgworld_mcmc.exact`."""
    moments = exact_moments(posterior.names, posterior.flatten(posterior.mean), posterior.sd)
    sites = tuple(posterior.shapes)
    return Problem(title, posterior.model, posterior.data, sites, moments, reference_model)


def exact_moments(names, mean, sd) -> Moments:
    """`Moments` without errors."""
    zero = np.zeros(len(names))
    return Moments(tuple(names), np.asarray(mean), np.asarray(sd), zero, zero, zero + np.inf)


def representable(array) -> np.ndarray:
    """Round to float32 values, kept as float64: single precision then sees the same data."""
    return np.asarray(array, np.float32).astype(np.float64)
