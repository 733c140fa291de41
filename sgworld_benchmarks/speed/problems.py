"""The problems of the speed benchmark, and their truth."""

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
    """Logistic regression with moderate coefficients.

    Features are independent, where NUTS is at its best, or have ``correlation`` with their
    neighbours and correlation^k with the k-th next (an autoregression).
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
    """Some 25 events in 100 000 rows (times ``scale``)."""
    num_data = max(1000, round(100_000 * scale))
    return rare_events_problem(num_data, -8.8 - np.log(num_data / 100_000), seed=41)


def gamma_poisson(scale: float) -> Problem:
    """Rates of 200 groups from 200 000 rows (times ``scale``), some 30 counts in each group."""
    num_data = max(400, round(200_000 * scale))
    return gamma_poisson_groups_problem(num_data, 6000 / num_data, seed=42)


def student_t(scale: float) -> Problem:
    """Student-t errors with unknown degrees of freedom, 1500 rows (times ``scale``).

    The truth, 40, is large: the likelihood hardly tells it from larger ones.
    """
    return student_t_problem(max(200, round(1500 * scale)), 5, df=40.0, seed=43)


# Posteriors that are visibly not Gaussian. A Student-t proposal with these degrees of freedom
# serves as the importance sampler; the hierarchy is solved by quadrature.
SKEWED = {"rare_events": rare_events, "gamma_poisson": gamma_poisson, "student_t": student_t}


def truth(
    name: str, problem: Problem, draws: int, df: float | None = None, save: bool = False
) -> Truth:
    """Exact moments, or stored ones, or else new ones by importance sampling.

    Parameters
    ----------
    name
        Key of the stored entry.
    problem, draws, df
        See :func:`sgworld_benchmarks.laplace.importance_moments`.
    save
        Store new moments with the package.

    Raises
    ------
    ValueError
        For a k-hat above 0.7 or an effective sample size below 2000 (or half the draws, if that
        is less): such weights are no reference.
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
