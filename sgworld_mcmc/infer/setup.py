"""What happens once before a run: mode, curvature, noise, pilot, and the choice of all settings.

Everything here is decided in Python from concrete numbers, before the compiled loop is made. Mode
and curvature are found in double precision whatever the user's precision is: the log density
of a million rows is too coarse in single precision to be compared at two points.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.infer import init_to_uniform

from sgworld_mcmc.infer.compiled import SetUpFunctions
from sgworld_mcmc.infer.estimator import Anchor
from sgworld_mcmc.infer.layout import cut, head
from sgworld_mcmc.minibatch import Batches, num_batches
from sgworld_mcmc.tuning.curvature import Scale, dense_scale, diagonal_probes, diagonal_scale

__all__ = [
    "DENSE_DIMENSION",
    "Center",
    "find_center",
    "set_up_batches",
    "spectrum",
    "whitened_hessian",
    "zero_anchor",
]

# The D x D Hessian costs D gradients and D^2 numbers, its factors D^3: a second at a thousand.
DENSE_DIMENSION = 1000
BATCH_ROWS = 5000
ADAM_ROWS = 512
STARTS = 4
TRIES = 10
# Of the uniform distribution that searches start from, the first being NumPyro's.
RADII = (2.0, 0.5, 0.1, 0.01, 0.001, 0.0001)
# Nats that a further step promises at a mode, and gradients spent on finding it.
CONVERGED = 1e-3
BUDGET = 300
# A full covariance is fitted to the posterior without a mode up to this dimension.
GAUSSIAN_DIMENSION = 300
GAUSSIAN_STEPS = 3000
# Hessians of a part of the rows, and of all.
ROUNDS = 8
# All starts are followed to their modes up to this dimension.
SEVERAL_DIMENSION = 200


class Center(NamedTuple):
    """Where the sampler's coordinates begin, and how they are scaled.

    Attributes
    ----------
    position
        (D,) float64.
    scale
        K, (D, D) or (D,) float64.
    hessian
        (D, D) of the potential there, or None above :data:`DENSE_DIMENSION`.
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
    """

    position: np.ndarray
    scale: np.ndarray
    hessian: np.ndarray | None
    converged: bool
    gain: float
    indefinite: int
    other_modes: tuple[float, ...]
    fitted: bool = False


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
    steps on all rows with the Hessian of a part of them. L-BFGS where the Hessian is too large,
    or where Newton steps lead nowhere. In double precision under
    ``jax.enable_x64(True)``.

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
    if initial is None:
        initial = _initial_points(generator, functions, batches, constants)
    initial = jnp.asarray(initial, float)
    dimension, count = initial.shape[1], num_batches(batches)
    dense = dimension <= DENSE_DIMENSION
    orders = generator.integers(0, count, (len(initial), 250 if count == 1 else 500))
    starts = np.asarray(
        functions.adam(initial, orders.astype(np.int32), head(batches, ADAM_ROWS), constants)
    )
    blank = jnp.ones(dimension)

    def descend(start, scale, used, limit, newton):
        return functions.descend(start, scale, batches, constants, used, limit, newton=newton)

    def curvature(position, used):
        if dense:
            hessian = functions.hessian(position, batches, constants, used)
            return hessian, dense_scale(hessian)
        probes = jnp.asarray(diagonal_probes(generator, dimension))
        return None, diagonal_scale(functions.diagonal(probes, position, batches, constants))

    def refine(position, used, rounds):
        """Newton steps with the Hessian, or |Hessian|, renewed until it no longer matters."""
        for _ in range(rounds):
            hessian, scaled = curvature(position, used)
            search = descend(position, scaled.scale, used, 15, True)
            moved = _distance(np.asarray(search.position) - np.asarray(position), scaled.scale)
            position = search.position
            if moved < 0.1 or not np.isfinite(moved):
                break
        return search, hessian, scaled

    if dense:
        some = starts if dimension <= SEVERAL_DIMENSION else starts[:1]
        found = [refine(start, 1, ROUNDS)[0] for start in some]
        if not min(float(search.gain) for search in found) < 1.0:
            found = [descend(start, blank, 1, BUDGET, False) for start in starts]
    else:
        found = [descend(start, blank, 1, BUDGET, False) for start in starts]
    losses = np.array([float(search.loss) for search in found])
    losses = np.where(np.isfinite(losses), losses, np.inf)
    best = found[int(np.argmin(losses))]
    position = best.position
    if not dense:
        position = descend(position, blank, count, BUDGET, False).position
    elif count > 1:
        _, scaled = curvature(position, min(count, 4))
        position = descend(position, scaled.scale, count, 40, True).position
    search, hessian, scaled = refine(position, count, ROUNDS if dense else 1)
    position, gain = np.asarray(search.position), float(search.gain)
    sound = gain < CONVERGED and np.isfinite(gain) and scaled.indefinite == 0
    automatic = isinstance(preconditioner, str) and preconditioner in ("auto", "dense")
    if not sound and automatic and dimension <= GAUSSIAN_DIMENSION:
        return _fitted_center(generator, functions, batches, constants, initial)
    others = _other_modes(found, losses, best, position, scaled.scale, dimension, count)
    scale = _preconditioner(preconditioner, scaled, hessian, dimension)
    return Center(
        np.asarray(position),
        scale,
        None if hessian is None else np.asarray(hessian),
        gain < CONVERGED and np.isfinite(gain),
        gain,
        scaled.indefinite,
        others,
    )


def _fitted_center(generator, functions, batches, constants, initial) -> Center:
    """Coordinates from a Gaussian fitted to the posterior, where no usable mode was found."""
    count = num_batches(batches)
    order = generator.integers(0, count, GAUSSIAN_STEPS).astype(np.int32)
    seed = np.uint32(generator.integers(2**32))
    some = head(batches, ADAM_ROWS)
    # A random point may be far out in a tail: half way to the origin.
    mean, factor = functions.gaussian(seed, initial[0] / 2, order, some, constants)
    hessian = np.asarray(functions.hessian(mean, batches, constants, count), float)
    return Center(
        np.asarray(mean, float),
        np.asarray(factor, float),
        hessian,
        False,
        np.inf,
        dense_scale(hessian).indefinite,
        (),
        fitted=True,
    )


def _initial_points(generator, functions, batches, constants) -> np.ndarray:
    """(S, D) points of the initialisation strategy; NumPyro's default needs no model."""
    if functions.strategy is init_to_uniform:
        dimension = functions.model.dimension
        blank = jnp.eye(dimension) if dimension <= DENSE_DIMENSION else jnp.ones(dimension)

        def finite(point):
            newton = blank.ndim == 2
            found = functions.descend(point, blank, batches, constants, 1, 1, newton=newton)
            return np.isfinite(float(found.loss))

        points = []
        for direction in generator.uniform(-1, 1, (STARTS, dimension)):
            # Nearer to the origin where the density is not finite: exp(beta * 2000), say.
            tries = (jnp.asarray(radius * direction) for radius in RADII)
            points.append(np.asarray(next(filter(finite, tries), 0 * direction)))
        return np.array(points)
    rows = jax.tree.map(lambda x: x[0, :ADAM_ROWS], batches.main)
    seeds = generator.integers(2**32, size=(STARTS, TRIES), dtype=np.uint32)
    return functions.initial(seeds, rows, constants)


def _preconditioner(kind: Any, scaled: Scale, hessian, dimension: int) -> np.ndarray:
    if not isinstance(kind, str):
        covariance = np.asarray(kind, float)
        return np.linalg.cholesky(covariance) if covariance.ndim == 2 else np.sqrt(covariance)
    if kind == "none":
        return np.ones(dimension)
    if kind == "diagonal" and hessian is not None:
        return diagonal_scale(np.diagonal(hessian)).scale
    return scaled.scale


def _distance(step, scale) -> float:
    """Length of a step in posterior standard deviations."""
    step, scale = np.asarray(step), np.asarray(scale)
    whitened = np.linalg.solve(scale, step) if scale.ndim == 2 else step / scale
    return float(np.linalg.norm(whitened))


def _other_modes(found, losses, best, position, scale, dimension, count) -> tuple[float, ...]:
    """Distances of the modes found from other starts that hold a share of the posterior.

    The searches saw one batch of rows, whose mode lies some sqrt(count D) standard deviations
    from that of all rows; two searches count as two modes if they are much farther apart.
    """
    apart = 10 + 5 * np.sqrt(count * dimension)
    distances = []
    for search, loss in zip(found, losses, strict=True):
        far = _distance(search.position - best.position, scale)
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
