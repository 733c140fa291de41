"""The exact posterior of what a single row of counts decides."""

import numpy as np

__all__ = ["exact_moments"]


def exact_moments(x, count):
    """Mean and standard deviation of c ~ Normal(0, 10), of which one count tells.

    Its rate is exp(0.2 + 0.3 x + c): all other rows leave no doubt about the first two terms.
    """
    c, known = np.linspace(-60, 20, 80_001), 0.2 + 0.3 * x
    log = count * c - np.exp(c + known) - c**2 / 200
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ c
    return mean, np.sqrt(weight @ (c - mean) ** 2)
