"""Stein identities: what gradients at the draws say about the draws' mean and width.

For draws x of a density p with score s = grad log p, E[s] = 0 and E[s (x - E x)^T] = -1 (Stein).
In coordinates z in which the draws have mean zero and covariance one, let g be the score there and
A = -E[g z^T]. If p is Gaussian the score is linear in z, A^-1 is the covariance of p and
A^-1 E[g] its mean, whatever the draws are; and the draws are right only if A = 1 and E[g] = 0,
whatever p is. So A^-1 and A^-1 E[g] are compared with one and zero.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from sgworld_mcmc.auditing.series import MeanTest, mean_test

__all__ = ["Identities", "stein_identities"]

# Eigenvalues of A below this are not inverted: the draws are far from the posterior.
SMALLEST = 0.05


class Identities(NamedTuple):
    """The errors of draws along K directions, as the scores show them.

    Attributes
    ----------
    shift, shift_test
        (K,) means of the draws minus those of the posterior, in posterior standard deviations.
    width, width_test
        (K,) logarithms of the draws' standard deviations over those of the posterior.
    joint_shift
        p-value of E[g] = 0 in all directions together.
    virial, joint_width
        -E[z . g] / D, which is one at draws of the posterior, and its p-value.
    """

    shift: np.ndarray
    shift_test: MeanTest
    width: np.ndarray
    width_test: MeanTest
    joint_shift: float
    virial: float
    joint_width: float


def stein_identities(z: np.ndarray, g: np.ndarray, directions: np.ndarray | None) -> Identities:
    """Measure the errors of draws from their scores.

    Parameters
    ----------
    z, g
        (chains, draws, D) draws with mean zero and variances one, and the scores there.
    directions
        (D, D) unit vectors of the parameters in z, whose covariance is one; None if z are the
        parameters themselves in units of their standard deviations, and may be correlated.
    """
    mean = g.mean((0, 1))
    if directions is None:
        precision = -(g * z).mean((0, 1))
        inverse = 1 / np.maximum(precision, SMALLEST)
        shift_series, spread = -inverse * g, inverse
        width_series = -0.5 * inverse * g * z
    else:
        flat = np.prod(z.shape[:2])
        raw = -np.einsum("cdi,cdj->ij", g, z) / flat
        values, vectors = np.linalg.eigh((raw + raw.T) / 2)
        inverse = (vectors / np.maximum(values, SMALLEST)) @ vectors.T
        across = directions @ inverse
        spread = (across * directions).sum(1)
        shift_series = -g @ across.T
        width_series = 0.5 * (z @ across.T) * shift_series / spread
    shift_series = shift_series / np.sqrt(spread)
    width = -0.5 * np.log(spread)
    total = -(z * g).mean(-1)
    joint = mean_test(mean, g)
    squares = float(((mean / joint.error) ** 2).sum())
    virial = float(total.mean())
    return Identities(
        shift_series.mean((0, 1)),
        mean_test(shift_series.mean((0, 1)), shift_series),
        width,
        mean_test(width, width_series),
        float(stats.chi2.sf(squares, len(mean))),
        virial,
        float(mean_test(np.array([virial - 1]), total[..., None]).p_values[0]),
    )
