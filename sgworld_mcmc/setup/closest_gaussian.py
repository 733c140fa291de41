"""Find the Gaussian that is closest to a posterior, from mean gradients and mean Hessians.

Of all Gaussians, the closest one in Kullback-Leibler divergence KL(q | posterior) has a mean at
which the posterior's gradient is zero on average over q, and a precision that is the mean Hessian
of the potential (Opper and Archambeau 2009, "The variational Gaussian approximation revisited").
Newton steps with mean gradients and mean Hessians lead there in a few turns where a stochastic fit
of the covariance takes thousands of steps. They work where the density has no mode: in that of a
hierarchy which grows without bound as a scale goes to zero, Hessians of draws hold the mean off.

Where a whole step goes too far, a part of it is taken, in the precision as in the mean (natural
gradients; Khan and Lin 2017, "Conjugate-computation variational inference"). A few draws say
little of the curvature along a weak direction, and a Gaussian that is a hundred times too wide
there has draws from which nothing can be learnt.
"""

from typing import NamedTuple

import jax
import numpy as np
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh

from sgworld_mcmc.coordinates.diagonal import Diagonal
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.curvature import Scale, dense_scale
from sgworld_mcmc.setup.mode_search import ModeSearch

__all__ = ["closest_gaussian"]

# Each turn looks at so many pairs of opposite draws of the Gaussian.
PAIRS = 8
# Largest number of turns, and of those that go back.
TURNS, BACK = 30, 8
# The search ends too if so many turns have not raised the bound by more than the slack.
IDLE = 4
# The mean has arrived if a turn moves it by fewer standard deviations along each direction.
ARRIVED = 0.5
# A turn that lowers the bound on the evidence by more nats is taken back.
SLACK = 2.0
# A mean moves by so many standard deviations at most in one turn.
FARTHEST = 10.0
# If the curvature at a draw is so many times the mean one, the posterior is bent, and the closest
# Gaussian is a short piece of it: among hierarchies it is at most eight times.
BENT = 20.0
# Draws at which curvatures are looked at, and dimensions up to which all of them are computed.
JUDGES, FEW = 32, 20


class _Turn(NamedTuple):
    """A Gaussian, and what its draws say of the posterior.

    Attributes
    ----------
    center, precision
        Mean (D,) of the Gaussian, and its precision (D, D).
    bound
        Estimate of the evidence lower bound, up to a constant.
    gradient, hessian
        Mean gradient (D,) of the log density, and the mean Hessian (D, D) of the potential.
    """

    center: np.ndarray
    precision: np.ndarray
    bound: float
    gradient: np.ndarray
    hessian: np.ndarray

    def towards(self, part: float) -> Scale:
        """Return the preconditioner after a part of a step."""
        return dense_scale((1 - part) * self.precision + part * self.hessian)


def closest_gaussian(
    search: ModeSearch, center: np.ndarray, deviations: np.ndarray
) -> CoordinateFit | None:
    """Return coordinates about the Gaussian closest to the posterior; None if it is not found.

    Parameters
    ----------
    center, deviations
        (D,) mean and standard deviations of a rough fit, from which to begin.
    """
    half = search.generator.standard_normal((PAIRS, len(center)))
    draws = np.concatenate([half, -half])
    last = _look(search, draws, center, Diagonal(np.zeros(len(center)), deviations))
    length, back, best, since = 1.0, 0, -np.inf, 0
    for _ in range(TURNS):
        if last is None:
            return None
        scale = last.towards(length)
        along = np.abs(scale.coordinates.pull_back(last.gradient)).max()
        shorter = length * min(1.0, FARTHEST / max(along, 1e-300))
        there = last.center + shorter * np.asarray(scale.newton_step(last.gradient))
        new = _look(search, draws, there, scale.coordinates)
        if new is None or not new.bound >= last.bound - SLACK:
            length, back = 0.3 * length, back + 1
            if back > BACK:
                return None
            continue
        arrived = along < ARRIVED and shorter == 1.0
        # Where the posterior is skew, the few draws make the last turns go to and fro.
        since = 0 if new.bound > best + SLACK else since + 1
        last, best = new, max(best, new.bound)
        if arrived or since == IDLE:
            return _fit(search, last, length)
        length = min(1.0, 2 * length)
    return None


def _fit(search: ModeSearch, last: _Turn, length: float) -> CoordinateFit | None:
    """Return the coordinates of the last turn; None if they say too little of the posterior.

    That is where its precision is not positive definite, or where the posterior is bent, as the
    curvatures at the draws tell.
    """
    scale = last.towards(length)
    if scale.indefinite:
        return None
    count = search.feed.num_batches
    found, stiffness = scale.about(last.center), 1.0
    # The Gaussian was fitted to its own draws: others tell what it is worth.
    for z in search.generator.standard_normal((JUDGES, len(last.center))):
        made = search.expand(found.to_model(z), count)
        if np.isfinite(made.hessian).all():
            stiffness = max(stiffness, _largest(found, made.hessian))
            if stiffness > BENT:
                return None
    hessian, scaled = search.curvature(last.center, count)
    return CoordinateFit(
        found,
        np.asarray(hessian, float),
        True,
        0.0,
        scaled.indefinite,
        (),
        fitted=True,
        by_curvature=True,
        stiffness=float(stiffness),
    )


def _largest(coordinates: Coordinates, hessian: np.ndarray) -> float:
    """Return the largest curvature in these coordinates, to a few per cent."""
    size = len(hessian)
    if size <= FEW:
        return float(np.linalg.eigvalsh(coordinates.whiten(hessian))[-1])
    product = lambda v: coordinates.pull_back(hessian @ coordinates.apply(v.ravel()))  # noqa: E731
    operator = LinearOperator((size, size), matvec=product, dtype=float)
    try:
        return float(eigsh(operator, 1, which="LA", v0=np.ones(size), tol=0.02)[0][0])
    except ArpackNoConvergence:
        return float(np.linalg.eigvalsh(coordinates.whiten(hessian))[-1])


def _look(
    search: ModeSearch, draws: np.ndarray, center: np.ndarray, coordinates: Coordinates
) -> _Turn | None:
    """Average values, gradients and Hessians over draws; None if they say nothing.

    All turns have the same standard normal draws (2 P, D), so that their bounds can be compared.
    """
    count, total, finite = search.feed.num_batches, None, 0
    for z in draws:
        made = search.expand(center + np.asarray(coordinates.apply(z)), count)
        if np.isfinite(made.hessian).all() and np.isfinite(made.value):
            total = made if total is None else jax.tree.map(np.add, total, made)
            finite += 1
    if finite < len(draws) / 2:
        return None
    value, gradient, hessian = (part / finite for part in total[:3])
    if not np.any(hessian):  # a flat density
        return None
    matrix = np.asarray(coordinates.scale, float)
    matrix = np.diag(matrix) if matrix.ndim == 1 else matrix
    inverse = np.linalg.inv(matrix)
    bound = float(value) + np.linalg.slogdet(matrix)[1]
    return _Turn(center, inverse.T @ inverse, bound, gradient, np.asarray(hessian, float))
