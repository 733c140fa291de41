"""The noise of minibatch gradients, measured row by row at draws of the posterior's shape.

The chooser needs, for each kind of gradient, the covariance of a batch gradient over batches: at
the center (C0, the noise that cancels over an epoch) and on average over the posterior (C0 + K:
docs/theory.md, section 2.2). Both follow from the gradients of single rows, since a batch of B
distinct rows has the covariance (1/B - 1/N) times that of one row. Nothing is assumed of the model.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

__all__ = ["KINDS", "RowNoise", "batch_factor", "measure_noise", "summarise_noise"]

KINDS = ("plain", "control_variate", "taylor")


class RowNoise(NamedTuple):
    """Variance over rows of the N-fold row gradient, along each direction of interest.

    Attributes
    ----------
    center
        Kind to (Q,): at the center. Zero but for plain gradients.
    mean
        Kind to (Q,): mean over the draws, plus its standard error (the noise of rare rows grows
        fast in the tails, where few draws are).
    coupling
        (Q,) E_i[(H_i - H) r_i] over rows, which shifts the mean of plain gradients (B10).
    widening
        (Q,) relative change of the posterior variance where the mean moves by ``coupling``: the
        curvature is another one there. 0 where it was not measured.
    """

    center: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    coupling: np.ndarray
    widening: np.ndarray | float = 0.0


def batch_factor(batch_size: int, size: int) -> float:
    """Covariance of a batch gradient over that of a single row: 1/B - 1/N."""
    return 1.0 / batch_size - 1.0 / size


def measure_noise(
    log_density: Callable, draws: jax.Array, rows: tuple, directions: jax.Array | None
) -> dict[str, jax.Array]:
    """Variances along ``directions`` of the gradients of single rows.

    Parameters
    ----------
    log_density
        ``log_density(z, rows)`` in whitened coordinates, an estimate from any number of rows.
    draws
        (S, D) whitened positions.
    rows
        Pytree of arrays (n, 1, ...): n single rows, a random sample of the data.
    directions
        (Q, D) unit vectors, or None for the coordinate axes.

    Returns
    -------
    dict
        ``"center"`` (Q,), ``"coupling"`` (Q,) and one entry (S, Q) for each of :data:`KINDS`.
    """
    along = (lambda g: g) if directions is None else (lambda g: g @ directions.T)
    gradient = jax.grad(log_density)
    origin = jnp.zeros_like(draws[0])

    def one_row(z, tangent, row):
        turned = jax.jvp(lambda x: gradient(x, row), (origin,), (tangent,))[1]
        return gradient(z, row), turned

    def step(base, inputs):
        # The model is compiled once: first the gradients at the center, then what the Hessians
        # make of their residuals, then the draws.
        number, z = inputs
        residual = base - base.mean(0)
        tangents = jnp.where(number == 1, residual, jnp.broadcast_to(z, residual.shape))
        value, turned = jax.vmap(one_row, in_axes=(None, 0, 0))(z, tangents, rows)
        base = jnp.where(number == 0, value, base)
        kinds = (value, value - base, value - base - turned)
        variances = tuple(jnp.var(along(x), axis=0, ddof=1) for x in kinds)
        return base, (variances, along(turned.mean(0)))

    count = jax.tree.leaves(rows)[0].shape[0]
    base = jnp.zeros((count, origin.shape[0]), origin.dtype)
    positions = jnp.concatenate([origin[None], origin[None], draws])
    _, (variances, turned) = jax.lax.scan(step, base, (jnp.arange(len(positions)), positions))
    # The potential's row Hessian is minus the Jacobian, r_i is the residual of the log density.
    return {
        "center": variances[0][0],
        "coupling": -turned[1],
        **{kind: value[2:] for kind, value in zip(KINDS, variances, strict=True)},
    }


def summarise_noise(measured: dict[str, jax.Array]) -> RowNoise:
    """Means over the draws of what :func:`measure_noise` returned, as NumPy arrays."""
    values = {name: np.asarray(value, float) for name, value in measured.items()}
    zero = np.zeros_like(values["center"])
    error = {kind: values[kind].std(0, ddof=1) / len(values[kind]) ** 0.5 for kind in KINDS}
    return RowNoise(
        {"plain": values["center"], "control_variate": zero, "taylor": zero},
        {kind: values[kind].mean(0) + error[kind] for kind in KINDS},
        values["coupling"],
    )
