"""Posteriors whose unconstrained parameters have variances that are known exactly."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.special import polygamma

from sgworld_mcmc import exact

__all__ = ["TARGETS", "Target"]


class Target(NamedTuple):
    """An exact posterior, and the variances of its D unconstrained parameters."""

    label: str
    posterior: Any
    variance: np.ndarray


def _linear() -> Target:
    posterior = exact.LinearRegression(jax.random.key(1), 384, 3)
    return Target("linear regression", posterior, np.diagonal(posterior.covariance))


def _unknown_noise() -> Target:
    """Return the target with unknown noise.

    The log of an inverse gamma variable of shape a has the variance trigamma(a).
    """
    posterior = exact.LinearRegressionUnknownNoise(jax.random.key(2), 96, 3)
    variance = np.append(np.diagonal(posterior.covariance)[:-1], polygamma(1, posterior.a))
    return Target("linear regression, unknown noise", posterior, variance)


def _counts() -> Target:
    """Return the target of counts: the log of a gamma variable has the variance trigamma(a) too."""
    posterior = exact.GammaPoisson(jax.random.key(3), 48, rate=0.5)
    return Target("gamma-Poisson", posterior, np.array([polygamma(1, posterior.a)]))


TARGETS = {"linear": _linear, "unknown-noise": _unknown_noise, "counts": _counts}
