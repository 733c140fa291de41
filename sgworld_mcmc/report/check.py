"""A measured counterpart of predicted errors."""

from typing import NamedTuple

import numpy as np

__all__ = ["Check"]


class Check(NamedTuple):
    """A measured counterpart of the predictions, per parameter.

    Attributes
    ----------
    name
        What was measured.
    variance_error, variance_error_se
        (D,) relative error of the posterior variance, and its Monte Carlo standard error.
    mean_shift, mean_shift_se
        (D,) in posterior standard deviations.
    draws
        Number of draws that it rests on.
    """

    name: str
    variance_error: np.ndarray
    variance_error_se: np.ndarray
    mean_shift: np.ndarray
    mean_shift_se: np.ndarray
    draws: int
