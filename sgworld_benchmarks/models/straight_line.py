"""A straight line and its data, which many models of the suite write in ways of their own."""

import numpy as np
import numpyro
import numpyro.distributions as dist

from sgworld_benchmarks.accuracy.problem import representable
from sgworld_benchmarks.models.simulate import features

__all__ = ["LINE", "line", "line_parameters", "straight_line"]

LINE = ("a", "b", "sigma")


def straight_line(x, y=None):
    """A straight line with normal errors."""
    a, b, sigma = line_parameters()
    with numpyro.plate("data", len(x)):
        numpyro.sample("y", dist.Normal(a + b * x, sigma), obs=y)


def line_parameters():
    """Sample intercept, slope and noise."""
    a = numpyro.sample("a", dist.Normal(0, 5))
    b = numpyro.sample("b", dist.Normal(0, 5))
    return a, b, numpyro.sample("sigma", dist.HalfNormal(2))


def line(seed, size=250):
    """Simulate a feature and an outcome."""
    rng = np.random.default_rng(seed)
    x = features(rng, size)
    return x, representable(1 + 0.7 * x + 0.8 * rng.normal(size=size))
