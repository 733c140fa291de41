"""Predict the errors of one setting for each parameter.

The theory (:mod:`sgworld_mcmc.setup.batch_terms`) is given the noise that was measured, and the
discretisation error that pilot chains have shown.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_choice
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.protocols import Order
from sgworld_mcmc.setup.batch_noise import BatchNoise
from sgworld_mcmc.setup.batch_terms import batch_terms
from sgworld_mcmc.setup.request import Request
from sgworld_mcmc.setup.row_noise import RowNoise, batch_factor
from sgworld_mcmc.setup.step_error import Discretisation

__all__ = ["MEAN_PER_VARIANCE", "Prediction", "predict", "scheme_of"]

# A shift of a mean by this many posterior standard deviations counts as a relative error of the
# variance of one. (Errors in the ratio sqrt(2) : 1 give a Gaussian the same divergence; a mean is
# given a little more.)
MEAN_PER_VARIANCE = 2.0
# Noise that grows towards the tails widens them more than the variance. Where parameters are
# transformed, exp(z) say, the tails decide. Their error may be this many times that of the
# variance.
TAIL_PER_VARIANCE = 2.0


class Prediction(NamedTuple):
    """Predicted errors along Q directions, and their parts.

    Attributes
    ----------
    variance_error
        (Q,) relative error of the posterior variance.
    mean_shift
        (Q,) shift of the posterior mean, in posterior standard deviations.
    parts
        Maps the name of a cause to its (Q,) part of ``variance_error``.
    tail_error
        (Q,) the value that ``variance_error`` would have if the curvature noise had everywhere
        the size that it has in the tails.
    """

    variance_error: np.ndarray
    mean_shift: np.ndarray
    parts: dict[str, np.ndarray]
    tail_error: np.ndarray | float = 0.0

    def worst(self) -> float:
        """Return the largest error, in units of variance: it is compared with the tolerance."""
        return float(
            max(
                np.abs(self.variance_error).max(),
                np.abs(self.mean_shift).max() / MEAN_PER_VARIANCE,
                np.abs(self.tail_error).max() / TAIL_PER_VARIANCE,
            )
        )


def predict(
    request: Request,
    noise: RowNoise | BatchNoise,
    steps: Discretisation,
    kind: str,
    *,
    batch_size: int,
    step_size: float,
    scheme: str,
) -> Prediction | None:
    """Predict the errors of one setting (docs/theory.md, B1, B5, B10, B13 to B15).

    None if the setting is not stable. For an integrator without closed forms the errors on a
    Gaussian posterior follow from its matrices (B19, B20).

    Parameters
    ----------
    kind
        A name in :data:`sgworld_mcmc.members.GRADIENTS`.
    step_size
        Step size in the sampler's coordinates.
    scheme
        A name as in :func:`sgworld_mcmc.theory.variance_bias.relative_variance_error`.
    """
    check_choice("gradient", kind, tuple(GRADIENTS))
    noise = noise.at(batch_size)
    if noise is None:
        return None
    # Batches are of one size, or nearly: where `batch_size` does not divide N, of a smaller one.
    count = -(-request.size // batch_size)
    per_row = batch_factor(request.size / count, request.size)
    factor = per_row / request.stiffest
    batch = noise.center[kind] * factor
    hessian = np.maximum(noise.mean[kind] * factor - batch, 0)
    terms = batch_terms(
        request.integrator,
        step_size,
        count,
        batch,
        hessian,
        scheme=scheme,
        curvature=request.stiffest,
    )
    if terms is None:
        return None
    parts = terms.parts
    # A wider distribution feels more of the posterior's skewness: its mean moves farther away
    # from the mode.
    shift = steps.displacement * (parts["batch noise"] + parts["curvature noise"])
    # Pilot chains have measured what a posterior that is no Gaussian adds.
    nonlinear, moved = steps.errors(step_size * request.stiffest)
    parts["step size"] = nonlinear + np.zeros_like(batch)
    shift = shift + moved
    if kind in noise.coupling and request.order.period and count > 1:
        moved = terms.moved * per_row
        shift = shift + moved * noise.coupling[kind]
        if GRADIENTS[kind].needs == 0:
            parts["shifted mean"] = moved * noise.widening + np.zeros_like(batch)
    shift = shift + terms.wandering
    error = sum(parts.values())
    # The noise in the tails beyond its mean; less noise there than on average earns nothing.
    excess = np.maximum(noise.tail[kind] * factor - batch - hessian, 0)
    return Prediction(error, shift, parts, error + terms.gain * excess)


def scheme_of(order: Order, count: int, inside: bool) -> str:
    """Return the name of the closed form that holds for draws inside epochs or at their ends."""
    return "all_phases" if inside and count > 1 and order.period else order.law
