"""Compare predictions with those of a reference, in the measures that are usual for networks.

Total variation and agreement are those of Izmailov et al. (2021, arXiv:2104.14421).
"""

from typing import NamedTuple

import numpy as np

from sgworld_benchmarks.networks.problems import Network
from sgworld_benchmarks.networks.references import Reference
from sgworld_mcmc.diagnostics.predictive import agreement, total_variation

__all__ = ["ClassScore", "RegressionScore", "score"]


class ClassScore(NamedTuple):
    """How far predictive probabilities are from the reference.

    Attributes
    ----------
    tv
        Total variation distance, averaged over the test rows.
    tv_error
        The part of it that the reference's own Monte Carlo error is expected to make.
    agreement
        Fraction of the test rows for which the most probable class is the same.
    log_likelihood
        Mean log likelihood of the test labels, less that of the reference.
    """

    tv: float
    tv_error: float
    agreement: float
    log_likelihood: float

    def within(self) -> bool:
        """Return whether the limits of the benchmark are met."""
        return self.tv <= 0.015 and self.agreement >= 0.985 and abs(self.log_likelihood) <= 0.01

    def __str__(self) -> str:
        return (
            f"TV {self.tv:.4f} (reference's own error {self.tv_error:.4f}), agreement "
            f"{self.agreement:.4f}, log likelihood {self.log_likelihood:+.4f}"
        )


class RegressionScore(NamedTuple):
    """How far the posterior of a regression function is from the reference.

    Attributes
    ----------
    mean_error
        Distance of the means in posterior standard deviations, averaged over the test rows that
        lie inside the data.
    mean_error_of_reference
        The same of the reference itself: its standard error.
    sd_ratio
        Ratio of the standard deviations, averaged over these rows.
    outside
        Mean error and ratio for the test rows outside of the data; NaN if there are none.
    """

    mean_error: float
    mean_error_of_reference: float
    sd_ratio: float
    outside: tuple[float, float]

    def within(self) -> bool:
        """Return whether the limits of the benchmark are met."""
        return self.mean_error <= 0.15 and 0.9 <= self.sd_ratio <= 1.1

    def __str__(self) -> str:
        text = (
            f"mean {self.mean_error:.3f} sd off (reference's standard error "
            f"{self.mean_error_of_reference:.3f}), sd ratio {self.sd_ratio:.3f}"
        )
        far, ratio = self.outside
        return text + (f"; outside {far:.3f} and {ratio:.3f}" if np.isfinite(far) else "")


def score(
    network: Network, mean: np.ndarray, sd: np.ndarray, reference: Reference
) -> ClassScore | RegressionScore:
    """Compare posterior means and standard deviations at the test rows with a reference."""
    if network.is_classifier:
        rows = np.arange(len(mean)), network.test_y
        # The mean size of a Gaussian error with the standard deviation s is s sqrt(2 / pi).
        own = np.sqrt(2 / np.pi) * reference.se.sum(-1).mean() / 2
        return ClassScore(
            total_variation(mean, reference.mean),
            float(own),
            agreement(mean, reference.mean),
            float(np.mean(np.log(mean[rows]) - np.log(reference.mean[rows]))),
        )
    far, ratio = np.abs(mean - reference.mean) / reference.sd, sd / reference.sd
    inside = network.inside
    outside = (
        (np.nan, np.nan)
        if inside.all()
        else (float(far[~inside].mean()), float(ratio[~inside].mean()))
    )
    own = np.sqrt(2 / np.pi) * (reference.se / reference.sd)[inside].mean()
    return RegressionScore(
        float(far[inside].mean()), float(own), float(ratio[inside].mean()), outside
    )
