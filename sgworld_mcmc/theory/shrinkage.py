"""Judge many noisy estimates of related quantities together.

The largest of a thousand estimates is mostly noise. The scatter of all beyond their standard errors
shows how different the quantities are, and each estimate moves towards the mean of all as far as
that allows (the normal empirical Bayes estimator). It moves by at most the largest noise that is
expected among so many, so that a real outlier keeps its size (the limited translation estimator
of Efron & Morris, JASA 67, 130 (1972)).
"""

import numpy as np

__all__ = ["pool", "pool_parts"]


def pool(value: np.ndarray, error: np.ndarray, independent: float) -> tuple[np.ndarray, np.ndarray]:
    """Return estimates shrunk towards their mean, and their errors (docs/theory.md, B16).

    Parameters
    ----------
    value, error
        (Q,) estimates and standard errors.
    independent
        Number of independent estimates that they are worth, 1 to Q. The spread of a few is not
        known: up to about four estimates are left as they are.
    """
    count = len(value)
    if count < 2 or independent <= 1:
        return value, error
    middle = value.mean()
    noise = np.mean(error**2)
    # An upper confidence limit: two standard deviations of a sum of squares are added.
    scatter = value.var(ddof=1) * (1 + 2 * np.sqrt(2 / (independent - 1)))
    spread = max(scatter - noise, 0.0)
    kept = spread / np.maximum(spread + error**2, np.finfo(float).tiny)
    most = np.sqrt(2 * np.log(count)) * error
    pooled = value + np.clip((1 - kept) * (middle - value), -most, most)
    return pooled, np.sqrt(kept * error**2 + (1 - kept) ** 2 * noise / independent)


def pool_parts(
    value: np.ndarray, error: np.ndarray, parts: tuple[tuple[np.ndarray, float], ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return (Q,) estimates and errors, where those of each part are pooled by themselves.

    Parameters
    ----------
    parts
        For each part the numbers of its estimates, and how many independent ones they are worth.
    """
    pooled, remaining = np.array(value, float), np.array(error, float)
    for places, independent in parts:
        pooled[places], remaining[places] = pool(value[places], error[places], independent)
    return pooled, remaining
