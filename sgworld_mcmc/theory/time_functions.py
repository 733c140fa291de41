"""The functions of the time per epoch in the closed forms of the bias, free of cancellation.

``T >= 0``, a float or an array, is the time that an epoch spans, in units of the relaxation time at
the mode. The equation numbers are those of docs/theory.md, section 2.2, which derives them.

>>> print(f"{bridge_factor(1e-6) / 1e-12:.6f}")  # T^2 / 12, not rounding noise
0.083333
"""

import numpy as np


def bridge_factor(time):
    """Return f(T) = 1 - (2/T) tanh(T/2), for batch noise that is a bridge over the epoch (B2).

    T^2/12 for small T, 1 for large; free of cancellation at any T >= 0.
    """
    y, _, _ = coth_excess(np.asarray(time, dtype=float) / 2)
    return (y / (1 + y))[()]


def langevin_factor(time):
    """Return Langevin's function L(T) = coth T - 1/T (B3): T/3 for small T, 1 for large."""
    time = np.asarray(time, dtype=float)
    y, z, _ = coth_excess(time)
    return np.where(time < 1, time / (3 + z), y / np.where(time > 0, time, 1.0))[()]


def all_phases_factor(time):
    """Return 1 - 2/T + 2 (1 - e^-T)/T^2 (B4), which replaces f for draws at all phases.

    T/3 for small T. The K term of that scheme is ``h K [all_phases_factor(2T) - 1/2]``.
    """
    time = np.asarray(time, dtype=float)
    small = np.minimum(time, 1.0)
    series, term = np.zeros_like(time), 1 / 6 * np.ones_like(time)
    for n in range(4, 24):  # 2T sum_n (-T)^n / (n+3)!
        series, term = series + term, -term * small / n
    large = np.maximum(time, 1.0)
    direct = 1 - 2 / large - 2 * np.expm1(-large) / large**2
    return np.where(time < 1, 2 * small * series, direct)[()]


def symmetric_factor(time):
    """Return 1 + 2T/sinh 2T - (2/T) tanh T (B7), the f of a sweep and its reverse.

    It is 2 T^4/45 for small T.
    """
    time = np.asarray(time, dtype=float)
    y, z, w = coth_excess(np.minimum(time, 1.0))
    small = np.minimum(time, 1.0)
    # With y = T coth T - 1 = T^2/(3 + z), z = T^2/(5 + w): f = y (y - z) / (1 + y).
    series = y * small**2 * (2 + w - z) / ((3 + z) * (5 + w) * (1 + y))
    large = np.maximum(time, 1.0)
    direct = 1 + x_over_sinh(2 * large) - 2 / large * np.tanh(large)
    return np.where(time < 1, series, direct)[()]


def coth_excess(x):
    """Return y = x coth x - 1 and the tails z, w of its continued fraction.

    They are y = x^2/(3 + z) and z = x^2/(5 + w). The tails are meant for x <= 1 only, where the
    twelve levels are exact to rounding.
    """
    if not np.all(x >= 0):
        raise ValueError(f"a time per epoch cannot be negative or NaN, got {x}")
    square = np.minimum(x, 1.0) ** 2
    z = w = np.zeros_like(square)
    tail = np.zeros_like(square)
    for odd in range(27, 3, -2):
        w, z = z, square / (odd + tail)
        tail = z
    large = np.maximum(x, 1.0)
    return np.where(x < 1, square / (3 + z), large / np.tanh(large) - 1), z, w


def x_over_sinh(x):
    """Return x / sinh x without overflow; 1 at x = 0."""
    safe = np.where(x > 1e-8, x, 1.0)
    return np.where(x > 1e-8, 2 * safe * np.exp(-safe) / -np.expm1(-2 * safe), 1.0)
