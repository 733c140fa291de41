"""The center of the sampler's coordinates: the posterior mode and the curvature there.

It is decided in Python from concrete numbers, before the compiled loop is made, and in double
precision whatever the user's precision is: the log density of a million rows is too coarse in
single precision to be compared at two points.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.data.batches import Batches, num_batches, num_examples
from sgworld_mcmc.data.in_memory import cut, is_large
from sgworld_mcmc.gradients.estimators import Anchor
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.curvature import Scale, diagonal_scale
from sgworld_mcmc.setup.growing_search import GrownMode, grow
from sgworld_mcmc.setup.mode_search import Finder, distance, finite_loss

__all__ = [
    "Center",
    "find_center",
    "set_up_batches",
    "spectrum",
    "whitened_hessian",
    "zero_anchor",
]

BATCH_ROWS = 5000
# Nats that a further step promises at a mode.
CONVERGED = 1e-3
# A full covariance is fitted to the posterior without a mode up to this dimension.
GAUSSIAN_DIMENSION = 300


class Center(NamedTuple):
    """Where the sampler's coordinates begin, and how they are scaled.

    Attributes
    ----------
    position
        (D,) float64.
    scale
        K, (D, D) or (D,) float64.
    hessian
        (D, D) of the potential there, or None where only its diagonal is used.
    converged
        Whether it is a mode.
    gain
        Nats that a further step promised.
    indefinite
        Number of directions in which the potential is not convex.
    other_modes
        Distances, in posterior standard deviations, of other modes that matter.
    fitted
        Whether position and scale are those of pilot chains instead.
    by_curvature
        Whether the scale is that of the mean curvature at the pilot chains' draws.
    width, stiffness
        Then: variance of the posterior along its softest direction,
        and largest curvature at a draw, in these coordinates.
    gradient
        (D,) of the log density of all rows there, None where it has not been computed.
    """

    position: np.ndarray
    scale: np.ndarray
    hessian: np.ndarray | None
    converged: bool
    gain: float
    indefinite: int
    other_modes: tuple[float, ...]
    fitted: bool = False
    by_curvature: bool = False
    width: float = 1.0
    stiffness: float = 1.0
    gradient: np.ndarray | None = None


def set_up_batches(data: tuple) -> Batches:
    """Shuffled rows cut into batches of some 5000 rows for the set-up, of one size if possible."""
    size = jax.tree.leaves(data)[0].shape[0]
    count = -(-size // BATCH_ROWS)
    divisor = next((m for m in range(count, 2 * count + 1) if size % m == 0), count)
    return cut(data, divisor)


def find_center(
    generator: np.random.Generator,
    functions: SetUpFunctions,
    batches: Batches,
    constants: tuple,
    initial: np.ndarray | None,
    preconditioner: str | np.ndarray,
) -> Center:
    """The posterior mode and the curvature there, from any initial point.

    Adam on minibatches, then Newton steps on a few thousand rows, from several points; then Newton
    steps on all rows with the Hessian of a part of them, or where the rows are many on growing
    parts of them (:mod:`sgworld_mcmc.setup.growing_search`). L-BFGS where the Hessian is too large,
    or where Newton steps lead nowhere. In double precision under ``jax.enable_x64(True)``.

    Parameters
    ----------
    functions
        Of the model.
    batches
        From :func:`set_up_batches`.
    initial
        (S, D) unconstrained initial points, or None for the initialisation strategy.
    preconditioner
        ``"dense"``, ``"diagonal"``, ``"none"``, or an estimate of the posterior covariance.
    """
    finder = Finder(functions, batches, constants, generator)
    if initial is None:
        initial = finder.initial_points()
    found = finder.modes(np.asarray(initial, float))
    losses = np.array([finite_loss(search) for search in found])
    best = found[int(np.argmin(losses))]
    grown = _grown(finder, np.asarray(best.position))
    if grown is not None:
        position, gain, gradient, hessian, scaled = grown
    else:
        search, hessian, scaled = finder.finish(best.position)
        position, gain = np.asarray(search.position), float(search.gain)
        gradient = -num_examples(batches) * np.asarray(search.gradient, float)
    converged = bool(gain < CONVERGED and np.isfinite(gain))
    automatic = isinstance(preconditioner, str) and preconditioner in ("auto", "dense")
    if automatic and not (converged and scaled.indefinite == 0):
        fitted = _fitted_center(finder, initial)
        if fitted is not None:
            return fitted
    return Center(
        position,
        _preconditioner(preconditioner, scaled, hessian, finder.dimension),
        None if hessian is None else np.asarray(hessian),
        converged,
        gain,
        scaled.indefinite,
        _other_modes(found, losses, best, scaled.scale, finder),
        gradient=gradient,
    )


def _grown(finder: Finder, position: np.ndarray) -> GrownMode | None:
    """The mode of many rows from growing parts of them, if that works."""
    if not (finder.dense and is_large(num_examples(finder.batches))):
        return None
    return grow(finder, position)


def _fitted_center(finder: Finder, initial: np.ndarray) -> Center | None:
    """Coordinates from a Gaussian fitted to the posterior, where no usable mode was found."""
    if finder.dimension > GAUSSIAN_DIMENSION:
        return None
    # A random point may be far out in a tail: half way to the origin.
    mean, factor = finder.gaussian(initial[0] / 2)
    hessian, scaled = finder.curvature(mean, num_batches(finder.batches))
    return Center(
        np.asarray(mean, float),
        np.asarray(factor, float),
        np.asarray(hessian, float),
        False,
        np.inf,
        scaled.indefinite,
        (),
        fitted=True,
    )


def _preconditioner(kind: Any, scaled: Scale, hessian, dimension: int) -> np.ndarray:
    if not isinstance(kind, str):
        covariance = np.asarray(kind, float)
        return np.linalg.cholesky(covariance) if covariance.ndim == 2 else np.sqrt(covariance)
    if kind == "none":
        return np.ones(dimension)
    if kind == "diagonal" and hessian is not None:
        return diagonal_scale(np.diagonal(hessian)).scale
    return scaled.scale


def _other_modes(found, losses, best, scale, finder: Finder) -> tuple[float, ...]:
    """Distances of the modes found from other starts that hold a share of the posterior.

    The searches saw one batch of rows, whose mode lies some sqrt(count D) standard deviations
    from that of all rows; two searches count as two modes if they are much farther apart.
    """
    dimension = finder.dimension
    apart = 10 + 5 * np.sqrt(num_batches(finder.batches) * dimension)
    distances = []
    for search, loss in zip(found, losses, strict=True):
        far = distance(np.asarray(search.position) - np.asarray(best.position), scale)
        comparable = loss - np.min(losses) < 5 + 2 * dimension**0.5 + 0.5 * dimension
        if np.isfinite(far) and comparable and far > apart and float(search.gain) < 1.0:
            distances.append(far)
    return tuple(distances)


def zero_anchor(center: Center, gradient: np.ndarray, temperature: float, dtype) -> Anchor:
    """Anchor of the pilot's minibatch gradients: full gradient and Hessian at the center."""
    scale = center.scale
    whitened = (scale.T @ gradient if scale.ndim == 2 else scale * gradient) / temperature**0.5
    if center.hessian is None:
        return Anchor(jnp.asarray(whitened, dtype), ())
    return Anchor(jnp.asarray(whitened, dtype), jnp.asarray(-whitened_hessian(center), dtype))


def whitened_hessian(center: Center) -> np.ndarray:
    """K^T H K of the potential, (D, D); the Jacobian of the log density's gradient is minus it."""
    if center.scale.ndim == 2:
        return center.scale.T @ center.hessian @ center.scale
    return center.hessian * center.scale[:, None] * center.scale[None, :]


def spectrum(center: Center) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Curvatures (D,) and axes (D, D) of the potential in the sampler's coordinates.

    None where the Hessian is not known, or not positive definite (the coordinates then are made
    for something else).
    """
    if center.hessian is None or center.indefinite or center.fitted:
        return None, None
    values, vectors = np.linalg.eigh(whitened_hessian(center))
    if values.min() <= 0 or np.abs(values - 1).max() < 1e-3:
        return None, None
    return values, vectors
