"""Measure how far draws are from an exact posterior, or from long reference draws."""

from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size
from scipy.stats import ks_2samp

from sgworld_mcmc.demo.problems import Problem
from sgworld_mcmc.demo.samplers import Run
from sgworld_mcmc.diagnostics import flatten_scalars

__all__ = ["MEAN_TOLERANCE", "SD_TOLERANCE", "SIGNIFICANT", "Score", "score"]

MEAN_TOLERANCE = 0.1
SD_TOLERANCE = 0.08
# Number of standard errors that count as significant. With ten to thirty parameters, errors of two
# standard errors occur by chance.
SIGNIFICANT = 3.0


class Score(NamedTuple):
    """The errors of a run. All arrays have the shape (D,), an entry for each scalar parameter.

    Attributes
    ----------
    names
        Scalar parameters, such as ``beta[0]``.
    mean_error, mean_error_se
        Error of the mean in posterior standard deviations, and its Monte Carlo standard error,
        which includes that of the reference if the truth is a reference run.
    sd_ratio, sd_ratio_se
        Sampled standard deviation over the true one, and its Monte Carlo standard error.
    ks
        Kolmogorov-Smirnov distance.
    ess
        Effective sample size of the mean.
    """

    names: tuple[str, ...]
    mean_error: np.ndarray
    mean_error_se: np.ndarray
    sd_ratio: np.ndarray
    sd_ratio_se: np.ndarray
    ks: np.ndarray
    ess: np.ndarray

    @property
    def worst_mean(self) -> int:
        """Index of the parameter with the largest error of the mean."""
        return int(np.argmax(np.abs(self.mean_error)))

    @property
    def worst_sd(self) -> int:
        """Index of the parameter with the largest error of the standard deviation."""
        return int(np.argmax(np.abs(self.sd_ratio - 1)))

    def verdict(self) -> str:
        """Judge the run: ``"yes"``, ``"no"`` or ``"noise"``.

        ``"yes"`` means that every estimate is within the tolerances; ``"no"`` that one is beyond
        them by more than three standard errors; ``"noise"`` that some are beyond them, but none
        significantly.
        """
        mean_excess = np.abs(self.mean_error) - MEAN_TOLERANCE
        sd_excess = np.abs(self.sd_ratio - 1) - SD_TOLERANCE
        if np.all(mean_excess <= 0) and np.all(sd_excess <= 0):
            return "yes"
        surely = (mean_excess > SIGNIFICANT * self.mean_error_se) | (
            sd_excess > SIGNIFICANT * self.sd_ratio_se
        )
        return "no" if surely.any() else "noise"


def score(problem: Problem, run: Run, reference: Run | None = None) -> Score:
    """Compare a run with the exact posterior, or with a reference run if there is none."""
    if reference is None:
        comparison = problem.exact.compare(run.samples)
        return Score(*(getattr(comparison, field) for field in Score._fields))
    truth, scalars = flatten_scalars(reference.samples), flatten_scalars(run.samples)
    names = tuple(truth)
    return Score(names, *np.array([_against(scalars[name], truth[name]) for name in names]).T)


def _against(values, reference):
    """Return a parameter's numbers in the order of the fields of `Score`.

    Both arguments are (chains, draws) arrays.
    """
    mean, sd, mean_se, sd_se, ess = _moments(values.astype(float))
    true_mean, true_sd, true_mean_se, true_sd_se, _ = _moments(reference.astype(float))
    ratio = sd / true_sd
    return (
        (mean - true_mean) / true_sd,
        np.hypot(mean_se, true_mean_se) / true_sd,
        ratio,
        ratio * np.hypot(sd_se / sd, true_sd_se / true_sd),
        ks_2samp(values.ravel(), reference.ravel(), method="asymp").statistic,
        ess,
    )


def _moments(values):
    """Return mean, standard deviation, their standard errors, and the effective sample size."""
    mean, sd = values.mean(), values.std(ddof=1)
    ess = float(effective_sample_size(values))
    squares = (values - mean) ** 2
    sd_se = squares.std() / (2 * sd * np.sqrt(effective_sample_size(squares)))
    return mean, sd, sd / np.sqrt(ess), float(sd_se), ess
