"""The matrices of an integrator's step on one mode of a Gaussian, and how they vary with H.

With one gradient in a step, of curvature ``H + delta`` and offset r, a step of the state s is

    s <- (advance + delta advance_slope) s + push r + (kick + delta kick_slope) xi

(docs/theory.md, B17). The slopes are differences of :meth:`Integrator.affine`, which is exact
because it is affine in H. An integrator for which that is not true is refused.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Integrator

__all__ = ["Mode", "mode_of"]

# Rounding may make a second difference this large, in units of the largest element.
ROUNDING = 1e-9


class Mode(NamedTuple):
    """A step of an integrator whose state has k numbers, on a mode with a scalar curvature.

    Attributes
    ----------
    advance, advance_slope
        (k, k) matrix at the mean curvature, and its derivative with respect to the curvature.
    push
        (k,) vector by which the batch's offset acts on the state.
    kick, kick_slope
        (k, n) matrix of the injected noise, and its derivative.
    read
        (k,) vector that reads the position off the state: it is ``read @ s``.
    """

    advance: np.ndarray
    advance_slope: np.ndarray
    push: np.ndarray
    kick: np.ndarray
    kick_slope: np.ndarray
    read: np.ndarray


def mode_of(
    integrator: Integrator, step_size: float, curvature: float = 1.0, temperature: float = 1.0
) -> Mode:
    """Return an integrator's step on a mode.

    Raises
    ------
    ValueError
        If the step is not affine in the batch's Hessian, because it is implicit or takes more than
        one gradient of a batch.

    Examples
    --------
    >>> from sgworld_mcmc.integrators.euler import Euler
    >>> mode = mode_of(Euler(), 0.25)
    >>> mode.advance, mode.advance_slope
    (array([[0.75]]), array([[-0.25]]))
    """
    # The curvatures are so far apart that the gradient's part of a step is no smaller than the
    # rest: no digit is lost.
    width = 1.0 / step_size
    here, middle, there = (
        integrator.affine(step_size, np.array([[curvature + t * width]]), temperature)
        for t in (0.0, 0.5, 1.0)
    )
    for name in ("advance", "kick"):
        a, b, c = (np.asarray(getattr(step, name), float) for step in (here, middle, there))
        _check(integrator, a - 2 * b + c, max(1.0, np.abs(c).max(initial=0.0)))
    for name in ("push", "read"):
        a, c = (np.asarray(getattr(step, name), float) for step in (here, there))
        _check(integrator, c - a, max(1.0, np.abs(c).max(initial=0.0)))
    return Mode(
        np.asarray(here.advance, float),
        (there.advance - here.advance) / width,
        np.asarray(here.push, float)[:, 0],
        np.asarray(here.kick, float),
        (there.kick - here.kick) / width,
        np.asarray(here.read, float)[0],
    )


def _check(integrator: Integrator, difference: np.ndarray, size: float) -> None:
    if np.abs(difference).max(initial=0.0) > ROUNDING * size:
        raise ValueError(
            f"The step of {type(integrator).__name__} is not affine in the Hessian of the batch: "
            "its stationary law is known for explicit steps with one gradient only."
        )
