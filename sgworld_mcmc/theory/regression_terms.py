"""Affine gradient terms of Bayesian linear regression, and their statistics for closed forms."""

from typing import NamedTuple

import numpy as np


class BatchStatistics(NamedTuple):
    """What the closed forms know about the batches: C0, K and E_b[(H_b - I) r_b] (D,)."""

    batch_noise: float
    hessian_noise: float
    coupling: np.ndarray


def whitened_regression(rng, num_data, dim, prior_variance=np.inf):
    """Simulate a regression (unit noise) in coordinates where the posterior is N(0, I).

    Returns
    -------
    (matrices, offsets), (prior_matrix, prior_offset)
        The terms ``H_i`` (N, D, D), ``r_i`` (N, D) of the gradient ``sum_i (H_i z - r_i)`` of the
        rows, and those of the prior, as arguments of `stationary_recursion.stationary_moments`.
    """
    features = rng.normal(size=(num_data, dim))
    response = features @ rng.normal(size=dim) + rng.normal(size=num_data)
    precision = features.T @ features + np.eye(dim) / prior_variance
    mode = np.linalg.solve(precision, features.T @ response)
    transform = np.linalg.inv(np.linalg.cholesky(precision)).T
    white = features @ transform
    rows = white[:, :, None] * white[:, None, :], white * (response - features @ mode)[:, None]
    prior = transform.T @ transform / prior_variance, -transform.T @ mode / prior_variance
    return rows, prior


def batch_statistics(matrices, offsets, batch_size=0):
    """Return C0, K and coupling of batches, or of random batches of rows (``batch_size`` > 0).

    Whitened coordinates are assumed. The formulas for rows are those for samples of distinct rows.
    """
    units, dim = offsets.shape
    factor = 1.0
    if batch_size:
        factor = units**2 * (units - batch_size) / (batch_size * (units - 1))
    spread = matrices - matrices.mean(0)
    centered = offsets - offsets.mean(0)
    return BatchStatistics(
        factor * np.mean(centered**2),
        factor * np.sum(spread**2) / (units * dim),
        factor * np.einsum("uij,uj->i", spread, centered) / units,
    )
