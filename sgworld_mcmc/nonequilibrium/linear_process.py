"""Gaussian linear processes in phase space, with their propagator and accumulated noise."""

from dataclasses import dataclass
from math import ceil, log2

import numpy as np
from scipy.linalg import expm

__all__ = ["DiscreteProcess", "LangevinProcess"]


@dataclass(frozen=True)
class DiscreteProcess:
    """SGD with momentum itself: z_{k+1} = F z_k + noise of covariance Q for z = (x, u).

    Attributes
    ----------
    transition, noise
        (2D, 2D) matrices F and Q.
    """

    transition: np.ndarray
    noise: np.ndarray

    @classmethod
    def build(cls, curvature, noise, learning_rate, momentum):
        """Build u <- beta u - A x - e, x <- x + eta u with e of covariance ``noise`` (D, D)."""
        identity = np.eye(len(curvature))
        velocity_rows = np.hstack([-curvature, momentum * identity])
        position_rows = learning_rate * velocity_rows + np.hstack([identity, 0 * identity])
        kick = np.vstack([learning_rate * identity, identity])
        return cls(np.vstack([position_rows, velocity_rows]), kick @ noise @ kick.T)

    def propagator(self, k):
        """Return F^k."""
        return np.linalg.matrix_power(self.transition, _step_number(k))

    def accumulated_noise(self, k):
        """Return sum_{j<k} F^j Q (F^j)^T, by O(log k) doublings in which nothing cancels."""
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
    """The process dz = K z dt + noise of covariance Q dt for z = (x, x'), at times t = eta k.

    Attributes
    ----------
    drift, diffusion
        (2D, 2D) matrices K and Q.
    learning_rate
        Learning rate eta.
    """

    drift: np.ndarray
    diffusion: np.ndarray
    learning_rate: float

    @classmethod
    def build(cls, curvature, noise, learning_rate, momentum):
        """Build m x'' + gamma x' + A x = sqrt(eta) C^(1/2) white noise with C = ``noise``."""
        mass, friction = learning_rate * (1 + momentum) / 2, 1 - momentum
        identity = np.eye(len(curvature))
        drift = np.block(
            [[0 * identity, identity], [-curvature / mass, -friction / mass * identity]]
        )
        diffusion = np.zeros_like(drift)
        diffusion[len(identity) :, len(identity) :] = learning_rate / mass**2 * noise
        return cls(drift, diffusion, learning_rate)

    def propagator(self, k):
        """Return exp(K eta k)."""
        return self._advance(k)[0]

    def accumulated_noise(self, k):
        """Return the integral of exp(K s) Q exp(K s)^T over 0 < s < eta k."""
        return self._advance(k)[1]

    def _advance(self, k):
        """Return propagator and noise, by Van Loan's block exponential and doublings.

        The block exponential covers a short time only, because it holds exp(-K t) too and would
        overflow over a long time. Doublings extend it to eta k.
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
