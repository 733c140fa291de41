"""Linear recursions driven by marks of the batches, averaged over the orders of an epoch.

Every batch carries a mark e_b (its offset r_b, or the deviation delta_b of its Hessian), with
``sum_b e_b = 0`` and ``E e_b^2 = 1``. Let f respond linearly to the marks, and x to f times the
mark of the step,

    f <- carry f + inject e,        x <- advance x + couple (f e) + fresh e^2.

Without replacement two batches of an epoch have ``E e_b e_b' = -1/(M-1)``, and ``E f e`` obeys a
recursion of its own, so that the mean of x over all orders is the power of one small matrix
(docs/theory.md, B18). This is exact at any M, and takes log M products.
"""

from itertools import pairwise

import numpy as np

__all__ = ["LAWS", "averaged_over_orders"]

LAWS = ("replacement", "batches", "examples", "symmetric", "once", "all_phases")


def averaged_over_orders(
    advance: np.ndarray,
    couple: np.ndarray,
    carry: np.ndarray,
    inject: np.ndarray,
    fresh: np.ndarray,
    num_batches: int,
    law: str,
) -> np.ndarray:
    """Return the (n, c) stationary mean of x at the draws.

    Parameters
    ----------
    advance
        (n, n) matrix.
    couple
        (n, m) matrix.
    carry
        (m, m) matrix.
    inject, fresh
        (m, c) and (n, c) matrices: c problems are solved at once.
    num_batches
        Number of batches M.
    law
        One of :data:`LAWS`, as in :mod:`sgworld_mcmc.theory.variance_bias`.

    Examples
    --------
    The variance of ``y <- y / 2 + e``, the marks e being 1 and -1 in random order:

    >>> x = (np.array([[z]]) for z in (0.25, 1.0, 0.5, 1.0, 1.0))  # of y^2, y being f
    >>> print(f"{averaged_over_orders(*x, 2, 'batches')[0, 0]:.6f}")  # (1/2)^2 / (1 - (1/4)^2)
    0.266667
    """
    if law not in LAWS:
        raise ValueError(f"unknown law {law!r}: choose one of {', '.join(LAWS)}")
    if int(num_batches) != num_batches or num_batches < 1:
        raise ValueError(f"num_batches must be a positive whole number, got {num_batches}")
    m = int(num_batches)
    eye = np.eye(len(advance))
    if law == "replacement":
        return np.linalg.solve(eye - advance, fresh)
    if m == 1:  # the only mark is zero
        return np.zeros_like(fresh)
    if law == "once":
        return np.linalg.solve(eye - advance, couple @ _repeated(carry, inject, m) + fresh)
    first = np.linalg.matrix_power(_step(advance, couple, carry, inject, fresh, m), m)
    if law == "symmetric":
        return _symmetric(first, advance, couple, carry, inject, fresh, m)
    x, _, total, one = _parts(len(advance), len(carry), len(advance))
    end = np.linalg.solve(eye - first[x, x], first[x, one])
    if law == "all_phases":
        return (first[total, x] @ end + first[total, one]) / m
    return end


def _parts(*sizes: int) -> list[slice]:
    """Return slices of consecutive sizes, and a slice of all that follows."""
    ends = np.cumsum([0, *sizes])
    return [*(slice(*pair) for pair in pairwise(ends)), slice(ends[-1], None)]


def _step(advance, couple, carry, inject, fresh, m) -> np.ndarray:
    """Return the matrix of one step of (x, g, sum of x, 1).

    Here E f e = -g / (M - 1), where g is the response to a mark of 1 in each step.
    """
    size, width = len(advance), fresh.shape[1]
    step = np.zeros((2 * size + len(carry) + width,) * 2)
    x, g, total, one = _parts(size, len(carry), size)
    step[x, x], step[x, g], step[x, one] = advance, -couple / (m - 1), fresh
    step[g, g], step[g, one] = carry, inject
    step[total], step[total, total] = step[x], np.eye(size)
    step[one, one] = np.eye(width)
    return step


def _symmetric(first, advance, couple, carry, inject, fresh, m) -> np.ndarray:
    """Return the fixed point of a sweep and its reverse.

    The batch of step j of the second sweep was there 2 j + 1 steps before, so that E f e has the
    additional term carry^(2 j) inject M / (M - 1).
    """
    size, width = len(advance), fresh.shape[1]
    step = np.zeros((size + 2 * len(carry) + width,) * 2)
    x, g, again, one = _parts(size, len(carry), len(carry))
    step[x, x], step[x, g], step[x, one] = advance, -couple / (m - 1), fresh
    step[x, again] = couple * m / (m - 1)
    step[g, g], step[g, one] = carry, inject
    step[again, again], step[one, one] = carry @ carry, np.eye(width)
    second = np.linalg.matrix_power(step, m)
    _, _, _, constant = _parts(size, len(carry), size)
    source = (
        second[x, x] @ first[x, constant]
        + second[x, g] @ first[g, constant]
        + second[x, again] @ inject
        + second[x, one]
    )
    return np.linalg.solve(np.eye(size) - second[x, x] @ first[x, x], source)


def _repeated(carry, inject, m) -> np.ndarray:
    """Return E f e for one order in all epochs: each batch was there M, 2 M, ... steps before."""
    eye = np.eye(len(carry))
    others = np.linalg.solve(eye - carry, inject)
    power = np.linalg.matrix_power(carry, m - 1)
    same = np.linalg.solve(eye - carry @ power, power @ inject)
    return (m * same - others) / (m - 1)
