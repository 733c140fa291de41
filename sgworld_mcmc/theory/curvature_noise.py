"""The effect of the batches' Hessian noise without replacement, at any step size: K's coefficient.

Batch Hessians ``1 + delta_b`` with ``sum_b delta_b = 0`` and ``E delta_b^2 = K``. Over n steps with
different batches the squared decay is, to first order in K and with ``a = 1 - h``,

    E prod (a - h delta)^2 = a^(2n) + K h^2 a^(2n-2) [n - 2 n (n-1)/(M-1)],

and the injected noise of every step is integrated against it (docs/theory.md, B13).
"""

import numpy as np

from sgworld_mcmc.theory.time_functions import all_phases_factor, langevin_factor

__all__ = ["hessian_term"]

# Below this step size the leading order in h is right to one per cent, and the sums would have
# many terms.
SMALL = 0.01
# The sums end after this many relaxation times: e^(-2 * 20) is below rounding.
RELAXATION_TIMES = 20.0


def hessian_term(step_size, num_batches: int, *, scheme: str, noise: str):
    """Return the coefficient of K in the relative variance error, linear in K.

    For small h it is ``(h/2) (2 L(T) - 1)`` at the ends of epochs and ``h (f_all(2T) - 1/2)`` for
    draws at all phases (B5); for h >= 0.01 it is given by the sums of B13. ``"symmetric"`` and
    ``"once"`` have exactly the coefficient of the ends of epochs, since the decay over an epoch
    does not depend on its order.

    >>> print(f"{hessian_term(1.0, 5, scheme='batches', noise='averaged'):.2f}")
    1.00
    """
    h = np.asarray(step_size, dtype=float)
    time = h * num_batches
    if scheme == "all_phases":
        leading = h * (all_phases_factor(2 * time) - 0.5)
    else:
        leading = (h / 2) * (2 * langevin_factor(time) - 1)
    if num_batches == 1:
        return np.zeros_like(h)
    out = np.array(leading, dtype=float)
    for index in np.argwhere(h >= SMALL):
        at = tuple(index)
        out[at] = _sum(float(h[at]), int(num_batches), scheme == "all_phases", noise == "averaged")
    return out[()]


def _sum(h: float, m: int, all_phases: bool, averaged: bool) -> float:
    a, n = 1 - h, np.arange(min(m, int(RELAXATION_TIMES / h) + 2) + 1)
    # The squared decay over n steps, and its part linear in K.
    decay = a ** (2 * n)
    less = np.where(n > 0, np.abs(a) ** np.maximum(2 * n - 2, 0), 0.0)
    linear = h**2 * less * (n - 2 * n * (n - 1) / (m - 1))
    if averaged:
        # w = z - sqrt(h/2) xi is driven by sqrt(h/2) (2 - h H_b) xi, where b is one of the m
        # batches too.
        odd = np.where(n > 0, np.sign(a) * np.abs(a) ** np.maximum(2 * n - 1, 0), 0.0)
        fresh = h**2 * decay - 4 * (1 + a) * h**2 * odd * n / (m - 1)
        driven = h / 2 * ((1 + a) ** 2 * linear + fresh)
    else:
        driven = 2 * h * linear
    steps = slice(0, min(m, len(n)))
    start = 1 - h / 2 if averaged else 2 / (2 - h)
    whole, whole_linear = (decay[m], linear[m]) if m < len(n) else (0.0, 0.0)
    end = (driven[steps].sum() + start * whole_linear) / (1 - whole)
    if not all_phases:
        return float(end)
    # The term after j steps is end * decay(j) + start * linear(j) + sum_{n<j} driven(n); this is
    # its mean over j = 1..m.
    weight = (m - n[steps]) / m
    within = (end * decay[1 : m + 1] + start * linear[1 : m + 1]).sum() / m
    return float(within + (driven[steps] * weight).sum())
