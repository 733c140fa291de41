"""The record of a check: measured counterparts of predicted errors."""

from typing import NamedTuple

import numpy as np

__all__ = ["Check"]


class Check(NamedTuple):
    """Measured counterparts of the predicted errors of each parameter.

    Attributes
    ----------
    name
        Name of the check, as it appears in a report.
    variance_error, variance_error_se
        (D,) relative error of the posterior variance, and its Monte Carlo standard error.
    mean_shift, mean_shift_se
        (D,) shift of the mean in posterior standard deviations, and its standard error.
    draws
        Number of draws that the check rests on.
    """

    name: str
    variance_error: np.ndarray
    variance_error_se: np.ndarray
    mean_shift: np.ndarray
    mean_shift_se: np.ndarray
    draws: int
