"""The effective loss, which SGD without replacement descends, and its minimum.

The formula is (N5) of docs/nonequilibrium.md, which docs/theory.md derives in section 2.1; see also
arXiv:2306.03521.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from sgworld_mcmc.checks import check_data, check_integer
from sgworld_mcmc.nonequilibrium.losses import (
    check_batches,
    check_position,
    chunk_rows,
    chunked_sum,
    hessian_columns,
    mean_loss,
    prepare,
)
from sgworld_mcmc.nonequilibrium.noise import check_learning_rate, partition_factor

__all__ = ["effective_loss", "effective_minimum"]


def effective_loss(
    example_loss: Callable, data, batch_size: int, learning_rate: float, replacement: bool
) -> Callable:
    """Return the effective loss, a function of the position.

    Without replacement it is ``L + (eta / 4) tr C(theta)`` (N5): the mean displacement of an epoch
    in random order is -eta M times its gradient, up to O(eta^3) and to a term that vanishes at the
    minimum. With replacement the mean displacement of a step is -eta grad L exactly, so that the
    effective loss is L.

    Parameters
    ----------
    example_loss, data, batch_size, learning_rate
        The same as in `diffusion_matrix`.
    replacement : bool
        Whether batches are drawn independently.

    Returns
    -------
    callable
        A function ``position (D,) -> scalar``. For numbers it computes in float64 and returns a
        NumPy float64. Inside `jax.grad`, `jax.jit` or `jax.vmap` it is traced in the precision set
        there, so that all transformations apply.

    Examples
    --------
    >>> import numpy as np
    >>> loss = lambda w, e: 0.5 * (e["y"] - w[0] * e["x"]) ** 2
    >>> data = {"x": np.array([1.0, 2.0, 1.0, 1.0]), "y": np.array([1.0, 1.0, 0.0, 1.0])}
    >>> plain = effective_loss(loss, data, 1, 0.1, replacement=True)
    >>> shifted = effective_loss(loss, data, 1, 0.1, replacement=False)
    >>> print(f"{plain(np.array([0.5])):.6f} {shifted(np.array([0.5])):.6f}")
    0.093750 0.098047
    """
    size = check_data(data)
    rows = jax.tree.map(np.asarray, data)
    factor = _noise_factor(size, batch_size, learning_rate, replacement)

    def evaluate(position):
        if isinstance(position, jax.core.Tracer):
            return _value(example_loss, position, rows, size, factor)
        checked, doubled, _ = prepare(example_loss, position, rows)
        with jax.enable_x64(True):
            return np.float64(_jitted_value(example_loss, checked, doubled, size, factor))

    return evaluate


def effective_minimum(
    example_loss: Callable,
    data,
    batch_size: int,
    learning_rate: float,
    replacement: bool,
    initial_position,
    *,
    max_iterations: int = 100,
    project: bool = False,
) -> Float64[np.ndarray, " D"]:
    """Find the minimum of the effective loss by Newton's method in float64.

    Parameters
    ----------
    example_loss, data, batch_size, learning_rate, replacement
        The same as in `effective_loss`; ``replacement=True`` gives the minimum of L itself.
    initial_position : array (D,)
        Position where the search starts. Newton steps with the absolute values of the Hessian's
        eigenvalues and a line search descend from anywhere to a minimum near by.
    max_iterations : int
        Largest number of Newton steps. Each takes a (D, D) Hessian: D Hessian-vector products of
        all data.
    project : bool
        Whether to stand still along flat directions instead of raising, for overparametrised
        networks. A direction is flat if its eigenvalue is within 1e-9 of zero relative to the
        largest. A saddle still raises.

    Returns
    -------
    numpy.ndarray
        (D,) float64 position, to about 1e-12 of its size if the Hessian is well conditioned.

    Raises
    ------
    ValueError
        If the Hessian at the point found is not positive definite (flat directions, a saddle), the
        learning rate is above 2 / (largest eigenvalue), or the steps do not converge.

    Examples
    --------
    >>> import numpy as np
    >>> loss = lambda w, e: 0.5 * (e["y"] - w[0] * e["x"]) ** 2
    >>> data = {"x": np.array([1.0, 2.0, 1.0, 1.0]), "y": np.array([1.0, 1.0, 0.0, 1.0])}
    >>> print(effective_minimum(loss, data, 1, 0.1, True, np.zeros(1)).round(4))
    [0.5714]
    >>> print(effective_minimum(loss, data, 1, 0.1, False, np.zeros(1)).round(4))
    [0.5656]
    """
    position, data, size = prepare(
        example_loss, check_position("initial_position", initial_position), data
    )
    max_iterations = check_integer("max_iterations", max_iterations, 1)
    factor = _noise_factor(size, batch_size, learning_rate, replacement)
    with jax.enable_x64(True):
        value = partial(_jitted_value, example_loss)
        converged = False
        for _ in range(max_iterations):
            current, gradient, hessian = (
                np.asarray(x) for x in _derivatives(example_loss, position, data, size, factor)
            )
            if not (np.isfinite(gradient).all() and np.isfinite(hessian).all()):
                raise ValueError(
                    f"the loss or its derivatives are not finite at {position[:5]}...: start from "
                    "another `initial_position`."
                )
            eigenvalues, vectors = np.linalg.eigh((hessian + hessian.T) / 2)
            if converged:
                break
            step = _newton_step(gradient, eigenvalues, vectors, 1e-9 if project else 0.0)
            step = _backtrack(
                lambda x: float(value(x, data, size, factor)), position, step, gradient, current
            )
            position = position + step
            # The checks below need one more evaluation, at the final position.
            converged = np.linalg.norm(step) <= 1e-11 * (1e-8 + np.linalg.norm(position))
        else:
            raise ValueError(
                f"no convergence in `max_iterations`={max_iterations} Newton steps; the gradient's "
                f"norm is {np.linalg.norm(gradient):.3g}. Start nearer to a minimum."
            )
    smallest = -1e-9 if project else 1e-14
    bad = int(np.sum(eigenvalues <= smallest * eigenvalues[-1]))
    if bad:
        heavy = np.flatnonzero(np.abs(vectors[:, 0]) > 0.3)[:8].tolist()
        raise ValueError(
            f"the Hessian is not positive definite at the stationary point found: {bad} of "
            f"{eigenvalues.size} eigenvalues are not positive (smallest {eigenvalues[0]:.3g}, its "
            f"direction mostly in coordinates {heavy}). Add weight decay to `example_loss`, remove "
            "the redundant parameters, start elsewhere, or pass `project=True` for flat directions."
        )
    check_learning_rate(learning_rate, eigenvalues[-1])
    return position


def _noise_factor(size, batch_size, learning_rate, replacement):
    """Return the factor of tr Cov_i(grad l_i) in the effective loss, or None with replacement."""
    _, count, eta = check_batches(size, batch_size, learning_rate)
    return None if replacement else eta / 4 * partition_factor(size, count)


def _newton_step(gradient, eigenvalues, vectors, flat):
    """Return Newton's step with the eigenvalues' absolute values, and 0 along flat directions."""
    size = np.abs(eigenvalues)
    # A floor keeps nearly flat directions from making the step infinite.
    along = (vectors.T @ gradient) / np.maximum(size, 1e-12 * size.max() + 1e-300)
    return -vectors @ np.where(size > flat * size.max(), along, 0.0)


def _backtrack(value, position, step, gradient, current):
    """Halve the step until the loss decreases; keep it if the decrease is below rounding."""
    slope = float(gradient @ step)
    if abs(slope) < 1e-11 * (abs(current) + 1e-300):
        return step
    for _ in range(60):
        if value(position + step) <= current + 1e-4 * slope:
            return step
        step, slope = step / 2, slope / 2
    return step


def _value(example_loss, position, data, size, factor):
    """Compute L + factor tr Cov_i(grad l_i), in chunks over the data."""
    data = jax.tree.map(jnp.asarray, data)
    if factor is None:
        return mean_loss(example_loss, position, data, size)

    def sums(chunk):
        losses, gradients = jax.vmap(jax.value_and_grad(example_loss), (None, 0))(position, chunk)
        return jnp.sum(losses), jnp.sum(gradients, axis=0), jnp.sum(gradients**2)

    loss, gradient, squares = chunked_sum(sums, data, chunk_rows(size, position.shape[0]))
    mean = gradient / size
    return loss / size + factor * (squares / size - jnp.sum(mean**2))


_jitted_value = jax.jit(_value, static_argnums=(0, 3))


@partial(jax.jit, static_argnums=(0, 3))
def _derivatives(example_loss, position, data, size, factor):
    def function(p):
        return _value(example_loss, p, data, size, factor)

    value, gradient = jax.value_and_grad(function)(position)
    return value, gradient, hessian_columns(function, position, size)
