"""A gamma-Poisson hierarchy with many groups, whose moments are found by quadrature."""

import numpy as np
import numpyro
import numpyro.distributions as dist
from scipy.optimize import minimize
from scipy.special import gammaln

from sgworld_benchmarks.accuracy.problem import Problem, exact_moments

__all__ = ["gamma_poisson_groups_model", "gamma_poisson_groups_problem"]

POINTS = 151
REFINEMENTS = 3
WIDTH = 8.0  # half-width of the grid in standard deviations


def gamma_poisson_groups_problem(num_data: int, mean: float, seed: int = 33) -> Problem:
    """Return the Poisson rates of 200 groups; ``mean`` is the average count of a row."""
    rng = np.random.default_rng(seed)
    rate = rng.gamma(2.0, mean / 2.0, 200)
    group = rng.integers(0, 200, num_data)
    y = rng.poisson(rate[group]).astype(float)
    return Problem(
        "gamma-Poisson hierarchy, 200 groups",
        gamma_poisson_groups_model,
        (y, group, 200),
        ("shape", "mean", "rate"),
        quadrature(y, group, 200),
    )


def gamma_poisson_groups_model(y, group, num_groups):
    """Rates of groups are gamma with unknown shape and mean."""
    shape = numpyro.sample("shape", dist.LogNormal(0, 1))
    mean = numpyro.sample("mean", dist.LogNormal(0, 1))
    prior = dist.Gamma(shape, shape / mean).expand([num_groups]).to_event(1)
    rate = numpyro.sample("rate", prior)
    with numpyro.plate("data", y.shape[0]):
        numpyro.sample("y", dist.Poisson(rate[group]), obs=y)


def quadrature(y, group, num_groups):
    """Return exact `Moments` of (shape, mean, rates).

    With s counts in the n rows of a group its rate is Gamma(shape + s, shape / mean + n) given the
    hyperparameters, and s is negative binomial. The posterior of the two hyperparameters is summed
    on a grid in their logarithms (the trapezoidal rule is exact to rounding for such smooth
    functions).
    """
    count = np.bincount(group, y, num_groups)
    rows = np.bincount(group, minlength=num_groups)

    def log_density(point):
        """Return the log density of (log shape, log mean) (2, ...), up to a constant."""
        shape, rate = np.exp(point[0])[..., None], np.exp(point[0] - point[1])[..., None]
        terms = gammaln(shape + count) - gammaln(shape) + shape * np.log(rate)
        terms = terms - (shape + count) * np.log(rate + rows)
        return terms.sum(-1) - (point[0] ** 2 + point[1] ** 2) / 2

    # The first grid around the mode is a wide one; the second is as wide as the posterior needs.
    centre = minimize(lambda x: -log_density(x), np.zeros(2), method="Nelder-Mead").x
    half = np.full(2, 2.5)
    for _ in range(REFINEMENTS):
        axes = [np.linspace(c - w, c + w, POINTS) for c, w in zip(centre, half, strict=True)]
        grid = np.stack(np.meshgrid(*axes, indexing="ij")).reshape(2, -1)
        logs = np.concatenate([log_density(part) for part in np.array_split(grid, 50, axis=1)])
        weights = np.exp(logs - logs.max())
        weights /= weights.sum()
        centre = grid @ weights
        half = WIDTH * np.sqrt((grid - centre[:, None]) ** 2 @ weights)

    hyper = np.exp(grid)
    first = [weights @ value for value in hyper]
    second = [weights @ value**2 for value in hyper]
    for s, n in zip(count, rows, strict=True):
        shape, rate = hyper[0] + s, hyper[0] / hyper[1] + n
        first.append(weights @ (shape / rate))
        second.append(weights @ (shape * (shape + 1) / rate**2))
    names = ["shape", "mean", *(f"rate[{g}]" for g in range(num_groups))]
    mean = np.array(first)
    return exact_moments(names, mean, np.sqrt(np.array(second) - mean**2))
