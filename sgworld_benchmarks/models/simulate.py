"""Small helpers with which the models' data are simulated."""

import numpy as np

from sgworld_benchmarks.accuracy.problem import representable

__all__ = ["binary", "features"]


def features(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Return standard normal features."""
    return representable(rng.normal(size=shape))


def binary(rng: np.random.Generator, logits: np.ndarray) -> np.ndarray:
    """Draw outcomes 0.0 or 1.0 with the given logits."""
    return (rng.random(np.shape(logits)) < 1 / (1 + np.exp(-np.asarray(logits)))).astype(float)
