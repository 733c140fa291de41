"""Measure the errors of a run against reference moments, in reference standard deviations."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpyro.diagnostics import effective_sample_size, split_gelman_rubin

from sgworld_benchmarks.accuracy.problem import Moments
from sgworld_mcmc.diagnostics import flatten_scalars

__all__ = [
    "MEAN_TOLERANCE",
    "SD_HIGH",
    "SD_LOW",
    "Score",
    "moments_of",
    "score",
    "split_rhat_of",
]

MEAN_TOLERANCE = 0.1
SD_LOW, SD_HIGH = 0.93, 1.07


class Score(NamedTuple):
    """Errors by scalar parameter, all arrays (D,).

    Attributes
    ----------
    names
        Names of the scalar parameters, such as ``beta[0]``.
    mean_error, mean_error_se
        Error of the mean in reference standard deviations, and its Monte Carlo standard error,
        which includes that of the reference.
    sd_ratio, sd_ratio_se
        Ratio of the sampled to the reference standard deviation, and its standard error.
    ess
        Effective sample size of the run, the smaller one of those for mean and squared deviation.
    """

    names: tuple[str, ...]
    mean_error: np.ndarray
    mean_error_se: np.ndarray
    sd_ratio: np.ndarray
    sd_ratio_se: np.ndarray
    ess: np.ndarray

    def within(
        self,
        mean_tolerance: float = MEAN_TOLERANCE,
        sd_low: float = SD_LOW,
        sd_high: float = SD_HIGH,
    ) -> bool:
        """Return whether *every* scalar is within the tolerances; NaN is not."""
        mean_ok = np.abs(self.mean_error) <= mean_tolerance
        sd_ok = (self.sd_ratio >= sd_low) & (self.sd_ratio <= sd_high)
        return bool(np.all(mean_ok & sd_ok))

    @property
    def worst_mean(self) -> int:
        """Index of the scalar with the largest error of the mean (NaN counts as largest)."""
        return int(np.argmax(np.nan_to_num(np.abs(self.mean_error), nan=np.inf)))


def score(samples: Mapping[str, np.ndarray], reference: Moments) -> Score:
    """Compare draws with reference moments.

    Parameters
    ----------
    samples
        Constrained values (chains, draws, ...) by site. Sites that the reference does not name are
        ignored.
    reference
        Reference moments. Only scalars that vary are compared, so not those on the diagonal of a
        correlation matrix.

    Raises
    ------
    KeyError
        If a site of the reference is missing.

    Examples
    --------
    >>> import numpy as np
    >>> one = np.ones(1)
    >>> truth = Moments(("mu",), 0 * one, one, 0 * one, 0 * one, np.inf * one)
    >>> draws = np.random.default_rng(0).normal(0.5, 1.0, (4, 1000))
    >>> score({"mu": draws}, truth).within()
    False
    """
    free = reference.sd > 0
    scalars = flatten_scalars(samples)
    names = tuple(name for name, keep in zip(reference.names, free, strict=True) if keep)
    found = _moments(names, [scalars[name] for name in names])
    mean, sd, mean_se, sd_se = (
        getattr(reference, field)[free] for field in ("mean", "sd", "mean_se", "sd_se")
    )
    ratio = found.sd / sd
    return Score(
        names,
        (found.mean - mean) / sd,
        np.hypot(found.mean_se, mean_se) / sd,
        ratio,
        np.hypot(found.sd_se, ratio * sd_se) / sd,
        found.ess,
    )


def moments_of(samples: Mapping[str, np.ndarray]) -> Moments:
    """Return moments of draws (chains, draws, ...) of every site, with Monte Carlo errors."""
    scalars = flatten_scalars(samples)
    return _moments(tuple(scalars), list(scalars.values()))


def split_rhat_of(samples: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the (D,) split R-hat of every scalar; 1 for constants."""
    scalars = flatten_scalars(samples).values()
    return np.array([1.0 if _constant(v) else float(split_gelman_rubin(v)) for v in scalars])


def _constant(values):
    # Rounding of a transform makes the diagonal of a correlation matrix 1 to about 1e-7 only.
    return np.std(values) <= 1e-6 * np.abs(np.mean(values))


def _moments(names, values):
    columns = np.array([_scalar(np.asarray(v, float)) for v in values]).reshape(-1, 5).T
    return Moments(tuple(names), *columns)


def _scalar(values):
    """Return mean, sd, standard errors and effective sample size of one (chains, draws) array."""
    mean = values.mean()
    if not np.isfinite(values).all():
        return np.nan, np.nan, np.nan, np.nan, 0.0
    if _constant(values):
        # The values are constant, or the chains never moved.
        return mean, 0.0, 0.0, 0.0, 0.0
    sd = values.std(ddof=1)
    squares = (values - mean) ** 2
    # Antithetic chains gain for the mean but not for the variance, so the size is limited; with few
    # draws the estimate may be negative.
    ess_mean, ess_sd = (
        float(np.clip(np.nan_to_num(effective_sample_size(v), nan=1.0), 1.0, values.size))
        for v in (values, squares)
    )
    sd_se = squares.std() / (2 * sd * np.sqrt(ess_sd))
    return mean, sd, sd / np.sqrt(ess_mean), sd_se, min(ess_mean, ess_sd)
