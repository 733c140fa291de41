"""Means of what was computed at some of the draws, by the help of what is known at all of them."""

import numpy as np

__all__ = ["controlled_mean", "mean_and_error"]

# The scatter of so many blocks of a chain, of at least SHORTEST draws each, tells the error of a
# mean of correlated draws.
BLOCKS, SHORTEST = 8, 25
# One more draw might lie so many standard deviations off the regression.
TAIL = 3.0


def controlled_mean(
    values: np.ndarray, control: np.ndarray, known: np.ndarray, least: float, tail: float = TAIL
) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean of ``values`` over all draws, and its standard error.

    The values follow a control, whose mean over all draws is known better than that over those of
    the values. With the slope b of their regression on it, the mean is that of
    ``values - b * control``, plus b times the control's mean over all draws. For a Gaussian
    posterior the regression is exact, and the error is that of all draws (control variates of
    Monte Carlo, as in A. B. Owen, "Monte Carlo theory, methods and examples", section 8.9).

    Parameters
    ----------
    values, control
        (chains, n, D) values at some draws, and the control there.
    known
        (chains, draws, D) the control at all draws.
    least
        The standard deviation that the control has at least.
    tail
        Few draws say little of tails: the error is at least what one more draw would change that
        lies so many of these standard deviations off the regression.
    """
    chains, number = values.shape[:2]
    deviation = control - control.mean((0, 1))
    squares = np.maximum((deviation**2).sum((0, 1)), np.finfo(float).tiny)
    slope = (deviation * values).sum((0, 1)) / squares
    unseen = tail * least / np.sqrt(chains * number)
    rest, rest_error = mean_and_error(values - slope * control, unseen)
    mean, error = mean_and_error(known, least)
    # A slope of few values has an error of its own.
    fitted = rest_error**2 * (control.mean((0, 1)) - mean) ** 2 * chains * number / squares
    return rest + slope * mean, np.sqrt(rest_error**2 + fitted + (slope * error) ** 2)


def mean_and_error(values: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the mean (D,) over chains and draws, and its standard error.

    The error is the largest one of those from the scatter of the draws, of the chains, and of
    blocks of the chains. The standard deviation of the draws counts as at least ``least``.
    """
    chains, draws = values.shape[:2]
    error = np.maximum(values.std((0, 1), ddof=1), least) / np.sqrt(chains * draws)
    if chains > 1:
        error = np.maximum(error, values.mean(1).std(0, ddof=1) / np.sqrt(chains))
    blocks = min(draws // SHORTEST, BLOCKS)
    if blocks * chains > 4:
        length = draws // blocks
        cut = values[:, : blocks * length].reshape(chains * blocks, length, -1).mean(1)
        error = np.maximum(error, cut.std(0, ddof=1) / np.sqrt(chains * blocks))
    return values.mean((0, 1)), error
