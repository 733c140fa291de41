"""Gaussian linear processes in phase space: propagator and accumulated noise after any time."""

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from scipy.linalg import expm

__all__ = ["DiscreteProcess", "LangevinProcess"]


@dataclass(frozen=True)
class DiscreteProcess:
    """z_{k+1} = F z_k + noise of covariance Q for z = (x, u): SGD with momentum itself.

    Attributes
    ----------
    transition, noise
        F and Q, both (2D, 2D).
    """

    transition: np.ndarray
    noise: np.ndarray

    @classmethod
    def build(cls, curvature, noise, learning_rate, momentum):
        """u <- beta u - A x - e, x <- x + eta u, with e of covariance ``noise`` (D, D)."""
        identity = np.eye(len(curvature))
        velocity_rows = np.hstack([-curvature, momentum * identity])
        position_rows = learning_rate * velocity_rows + np.hstack([identity, 0 * identity])
        kick = np.vstack([learning_rate * identity, identity])
        return cls(np.vstack([position_rows, velocity_rows]), kick @ noise @ kick.T)

    def propagator(self, k):
        """F^k."""
        return np.linalg.matrix_power(self.transition, _step_number(k))

    def accumulated_noise(self, k):
        """sum_{j<k} F^j Q (F^j)^T, by doubling: O(log k) products, nothing cancels."""
        k = _step_number(k)
        total = np.zeros_like(self.noise)
        step, power = self.noise, self.transition
        while k:
            if k % 2:
                total = step + power @ total @ power.T if total.any() else step
            k //= 2
            if k:
                step, power = step + power @ step @ power.T, power @ power
        return total


@dataclass(frozen=True)
class LangevinProcess:
    """dz = K z dt + noise of covariance Q dt for z = (x, x'), observed at the times t = eta k.

    Attributes
    ----------
    drift, diffusion
        K and Q, both (2D, 2D).
    learning_rate
        eta.
    """

    drift: np.ndarray
    diffusion: np.ndarray
    learning_rate: float

    @classmethod
    def build(cls, curvature, noise, learning_rate, momentum):
        """m x'' + gamma x' + A x = sqrt(eta) C^(1/2) white noise, C = ``noise`` (D, D)."""
        mass, friction = learning_rate * (1 + momentum) / 2, 1 - momentum
        identity = np.eye(len(curvature))
        drift = np.block(
            [[0 * identity, identity], [-curvature / mass, -friction / mass * identity]]
        )
        diffusion = np.zeros_like(drift)
        diffusion[len(identity) :, len(identity) :] = learning_rate / mass**2 * noise
        return cls(drift, diffusion, learning_rate)

    def propagator(self, k):
        """exp(K eta k)."""
        return self._advance(k)[0]

    def accumulated_noise(self, k):
        """Integral of exp(K s) Q exp(K s)^T over 0 < s < eta k."""
        return self._advance(k)[1]

    def _advance(self, k):
        """Van Loan's block exponential over a short time, doubled up to eta k.

        Over a long time the block exponential itself would overflow: it holds exp(-K t) too.
        """
        time = self.learning_rate * _time(k)
        size = len(self.drift)
        doublings = max(0, ceil(log2(max(time * np.linalg.norm(self.drift, 2), 1e-300))))
        blocks = np.zeros((2 * size, 2 * size))
        blocks[:size, :size], blocks[:size, size:] = -self.drift, self.diffusion
        blocks[size:, size:] = self.drift.T
        exponential = expm(blocks * (time / 2**doublings))
        propagator = exponential[size:, size:].T
        noise = propagator @ exponential[:size, size:]
        for _ in range(doublings):
            noise = noise + propagator @ noise @ propagator.T
            propagator = propagator @ propagator
        return propagator, (noise + noise.T) / 2


def _step_number(k):
    if k < 0 or k != int(k):
        raise ValueError(
            f"Step numbers and lags must be integers >= 0, not {k}; times in between are "
            "defined with `continuous=True` only."
        )
    return int(k)


def _time(k):
    if not 0 <= k < np.inf:
        raise ValueError(f"Step numbers and lags must be finite and >= 0, not {k}.")
    return float(k)
