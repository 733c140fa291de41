"""A sampler's step as matrices, which act on the k numbers that its state has per coordinate."""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.affine_mode import Mode, mode_of

__all__ = ["StepMatrices", "steps_of"]


class StepMatrices(NamedTuple):
    """A step for batches with Hessian H: the step at curvature 0, plus its slopes times H.

    Attributes
    ----------
    mode
        The step on one coordinate. In D coordinates each number of the state is a vector (D,).
    spread
        Variance of the position about the value that is read from the state.
    """

    mode: Mode
    spread: float


def steps_of(
    noise: str | Integrator, step_size: float, hessian: np.ndarray, temperature: float
) -> StepMatrices:
    """Return the step of overdamped dynamics with this noise, or of an integrator.

    Raises
    ------
    ValueError
        If an integrator does not treat all coordinates alike, or if it moves although the gradient
        vanishes, so that its mean is not that of the posterior.
    """
    h = step_size
    if isinstance(noise, Integrator):
        mode = mode_of(noise, h, 0.0, temperature)
        _check(noise, mode, h, hessian, temperature)
        return StepMatrices(mode, 0.0)
    one, zero = np.ones((1, 1)), np.zeros((1, 1))
    scale = np.sqrt(h * temperature / 2)
    if noise == "independent":
        return StepMatrices(Mode(one, -h * one, h * one[0], 2 * scale * one, zero, one[0]), 0.0)
    # One number is enough: x - sqrt(h/2) xi is a Markov chain, driven by sqrt(h/2) (2 - h H) xi.
    mode = Mode(one, -h * one, h * one[0], 2 * scale * one, -h * scale * one, one[0])
    return StepMatrices(mode, h * temperature / 2)


def _check(integrator, mode, step_size, hessian, temperature) -> None:
    eye = np.eye(len(hessian))
    whole = integrator.affine(step_size, hessian, temperature)
    made = (
        np.kron(mode.advance, eye) + np.kron(mode.advance_slope, hessian),
        np.kron(mode.push[:, None], eye),
        np.kron(mode.kick, eye) + np.kron(mode.kick_slope, hessian),
        np.kron(mode.read[None], eye),
    )
    for a, b in zip(whole, made, strict=True):
        if np.shape(a) != b.shape or not np.allclose(a, b, rtol=1e-9, atol=1e-12):
            raise ValueError(
                f"{type(integrator).__name__} does not treat all coordinates alike: its state "
                "must be some numbers for each of them, as vectors one after another."
            )
    # Without a gradient there must be states that stay where they are.
    if np.linalg.svd(mode.advance - np.eye(len(mode.advance)))[1][-1] > 1e-9:
        raise ValueError(
            f"{type(integrator).__name__} moves the position although there is no gradient (by "
            "weight decay, say): put what it does into the terms of the gradient."
        )
