"""The problems of the speed benchmark, and their reference moments."""

from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from sgworld_benchmarks import laplace
from sgworld_benchmarks.accuracy.gamma_poisson import gamma_poisson_groups_problem
from sgworld_benchmarks.accuracy.problem import Moments, Problem, describe, representable
from sgworld_benchmarks.accuracy.references import entry_of, moments_from, store, stored
from sgworld_benchmarks.accuracy.regressions import (
    logistic_model,
    rare_events_problem,
    student_t_problem,
)

__all__ = ["REFERENCES", "SKEWED", "Truth", "logistic", "truth"]

REFERENCES = Path(__file__).with_name("references.json")
MAXIMUM_K_HAT = 0.7
MINIMUM_ESS = 2000


class Truth(NamedTuple):
    """Reference moments and a line that says where they come from."""

    moments: Moments
    source: str


def logistic(num_data: int, dim: int, correlation: float = 0.0, seed: int = 40) -> Problem:
    """Return a logistic regression with moderate coefficients.

    Features are independent, which suits NUTS best, or have ``correlation`` with their neighbours
    and correlation^k with the k-th next ones (an autoregression).
    """
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(num_data, dim))
    for j in range(1, dim if correlation else 0):
        X[:, j] = correlation * X[:, j - 1] + np.sqrt(1 - correlation**2) * X[:, j]
    X = representable(X)
    logits = X @ rng.normal(0, 1 / np.sqrt(dim), dim)
    y = (rng.random(num_data) < 1 / (1 + np.exp(-logits))).astype(float)
    design = f"features of correlation {correlation:g}" if correlation else "independent features"
    title = f"logistic regression, D={dim}, {design}"
    return Problem(title, logistic_model, (X, y), ("beta",))


def rare_events(scale: float) -> Problem:
    """Return a logistic regression with about 25 events in 100 000 rows (times ``scale``)."""
    num_data = max(1000, round(100_000 * scale))
    return rare_events_problem(num_data, -8.8 - np.log(num_data / 100_000), seed=41)


def gamma_poisson(scale: float) -> Problem:
    """Return rates of 200 groups from 200 000 rows (times ``scale``), about 30 counts in each."""
    num_data = max(400, round(200_000 * scale))
    return gamma_poisson_groups_problem(num_data, 6000 / num_data, seed=42)


def student_t(scale: float) -> Problem:
    """Return a regression with Student-t errors and 1500 rows (times ``scale``).

    The unknown degrees of freedom are many, 40: the likelihood hardly tells them from more.
    """
    return student_t_problem(max(200, round(1500 * scale)), 5, df=40.0, seed=43)


# Posteriors that are visibly not Gaussian. The importance sampler has a Student-t proposal; the
# hierarchy is solved by quadrature.
SKEWED = {"rare_events": rare_events, "gamma_poisson": gamma_poisson, "student_t": student_t}


def truth(
    name: str, problem: Problem, draws: int, df: float | None = None, save: bool = False
) -> Truth:
    """Return exact moments, or stored ones, or else new ones by importance sampling.

    Parameters
    ----------
    name
        Name of the stored entry.
    problem, draws, df
        See :func:`sgworld_benchmarks.laplace.importance_moments`.
    save
        Whether to store new moments with the package.

    Raises
    ------
    ValueError
        If the k-hat is above 0.7 or the effective sample size below 2000 (or half the draws, if
        that is less): such weights are no reference.
    """
    if problem.exact is not None:
        return Truth(problem.exact, "exact, by quadrature")
    posterior = describe(problem)
    entry = stored(REFERENCES).get(name)
    if entry is not None and np.isclose(entry["fingerprint"], posterior.fingerprint, rtol=1e-9):
        return Truth(moments_from(entry), f"stored, {_source(entry)}")
    approximation = laplace.fit(problem)
    key = jax.random.key(4)
    moments, k_hat = laplace.importance_moments(approximation, problem, key, draws, df)
    ess = float(np.min(moments.ess))
    if not (k_hat < MAXIMUM_K_HAT and ess >= min(MINIMUM_ESS, draws / 2)):
        raise ValueError(
            f"Importance sampling gives no reference of {name!r}: k-hat {k_hat:.2f}, effective "
            f"sample size {ess:.0f}."
        )
    made = {"method": "importance sampling", "draws": draws, "k_hat": k_hat}
    entry = entry_of(problem, posterior.fingerprint, moments, made)
    if save:
        store(name, entry, REFERENCES)
    return Truth(moments, _source(entry))


def _source(entry):
    return (
        f"importance sampling from the Laplace approximation, {entry['draws']} draws, effective "
        f"{min(entry['ess']):.0f}, k-hat {entry['k_hat']:.2f}"
    )
