"""Measure the noise of minibatch gradients, row by row, at draws of the pilot chains.

The choice of the settings needs, for each kind of gradient, the covariance of a batch gradient over
batches: at the center (C0, the noise that cancels over an epoch) and on average over the posterior
(C0 + K: docs/theory.md, section 2.2). Both follow from the gradients of single rows, since a batch
of B distinct rows has the covariance (1/B - 1/N) times that of one row. The measurement assumes
nothing about the model.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.theory.shrinkage import pool_parts

__all__ = ["RowNoise", "batch_factor", "measure_noise", "summarise_noise", "weighted"]


class RowNoise(NamedTuple):
    """Variance over rows of the N-fold row gradient, along each direction of interest.

    Attributes
    ----------
    center
        Maps the kind of gradient to its (Q,) variance at the center, which is zero for gradients
        with control variates.
    mean
        Maps the kind of gradient to its (Q,) variance, a mean over the draws plus the mean's
        standard error (the noise of rare rows grows fast in the tails, where few draws are).
    tail
        Maps the kind of gradient to its (Q,) variance, a mean over the draws weighted with y^2,
        where y is the draw's coordinate along the direction. This is the noise that widens the
        tails (docs/theory.md, B15). The mean's standard error is added here too.
    coupling
        Maps kinds of gradients to their (Q,) E_i[(H_i - H) r_i] over rows, which shifts the mean
        (B10). Rows are looked at for plain gradients only, batches by group for control variates
        as well.
    widening
        (Q,) relative change of the posterior variance if the mean moves by the ``coupling`` of
        plain gradients, because the curvature is another one there; 0 if it was not measured.
    """

    center: dict[str, np.ndarray]
    mean: dict[str, np.ndarray]
    tail: dict[str, np.ndarray]
    coupling: dict[str, np.ndarray]
    widening: np.ndarray | float = 0.0

    def at(self, batch_size: int) -> "RowNoise":
        """Return the noise of the rows for batches of this size: the same for random batches."""
        return self


def batch_factor(batch_size: float, size: int) -> float:
    """Return the covariance of a batch gradient over that of a single row, 1/B - 1/N."""
    return 1.0 / batch_size - 1.0 / size


def measure_noise(
    log_density: Callable,
    coordinates: Coordinates,
    draws: jax.Array,
    rows: tuple,
    block: int,
    length: int = 1,
) -> dict[str, Any]:
    """Measure the variances of the gradients of single rows along the parameters' directions.

    Every draw has its own block of rows, so that many rows are read at the price of a few.

    Parameters
    ----------
    log_density
        ``log_density(theta, rows)``, an estimate from any number of rows.
    coordinates
        The coordinates of the positions z; variances are taken along their ``directions``.
    draws
        (S, D) positions z.
    rows
        Pytree of arrays (N, ...) with the rows in random order.
    block
        Number of rows for each draw, static.
    length
        Number of neighbouring rows whose mean gradient is looked at in place of that of single
        rows, static; it divides ``block``.

    Returns
    -------
    dict
        ``"center"`` and ``"draw"`` map every kind of gradient to its variance at the center and at
        the draws; ``"coupling"`` is that of :class:`RowNoise`. All arrays are (S, Q).
    """
    along, center = coordinates.projector(), coordinates.center
    gradients = jax.vmap(jax.grad(log_density))
    size, number = jax.tree.leaves(rows)[0].shape[0], block // length

    def at_draw(inputs):
        start, z = inputs
        some = jax.tree.map(
            lambda x: jax.lax.dynamic_slice_in_dim(x, start, block).reshape(
                number, length, *x.shape[1:]
            ),
            rows,
        )
        here = lambda theta: gradients(jnp.broadcast_to(theta, (number, theta.size)), some)  # noqa: E731
        change = coordinates.apply(z)
        value = along(here(center + change))
        middle = jnp.broadcast_to(center, (number, center.size))
        base, push = jax.linearize(lambda x: gradients(x, some), middle)
        # The potential's row Hessian is minus the Jacobian, r_i the residual of the log density.
        moved = coordinates.apply(coordinates.pull_back(base - base.mean(0)))
        coupling = -along(push(moved).mean(0))
        base, turned = along(base), along(push(jnp.broadcast_to(change, middle.shape)))

        def variances(value, turned):
            parts = {name: kind.residual(value, base, turned) for name, kind in GRADIENTS.items()}
            return {k: jnp.var(x, axis=0, ddof=min(1, number - 1)) for k, x in parts.items()}

        there = variances(value, turned)
        return {"center": variances(base, 0 * turned), "draw": there, "coupling": coupling}

    starts = jnp.linspace(0, size - block, len(draws)).astype(jnp.int32) // length * length
    return jax.lax.map(at_draw, (starts, draws))


def summarise_noise(
    measured: dict[str, Any],
    coordinates: np.ndarray,
    parts: tuple | None = None,
    alike: Sequence[np.ndarray] = (),
) -> RowNoise:
    """Return the means over the draws of what :func:`measure_noise` returned, as NumPy arrays.

    ``coordinates`` (S, Q) are the draws' coordinates along the directions. With ``parts``, as those
    of :func:`~sgworld_mcmc.theory.shrinkage.pool_parts`, the estimates of each are pooled: the
    largest of thousands is mostly noise (docs/theory.md, B16). Those at places that are ``alike``,
    the parameters by group, are at least their mean: of some groups hardly a row was looked at.
    """
    measured = jax.tree.map(lambda x: np.asarray(x, float), measured)
    values = measured["draw"]
    error = {kind: x.std(0, ddof=1) / len(x) ** 0.5 for kind, x in values.items()}
    weights = coordinates**2 / np.maximum((coordinates**2).sum(0), np.finfo(float).tiny)

    def upper(value, error):
        if parts is not None:
            value, error = pool_parts(value, error, parts)
        return _filled(np.maximum(value, 0) + error, alike)

    return RowNoise(
        {kind: _filled(x.mean(0), alike) for kind, x in measured["center"].items()},
        {kind: upper(x.mean(0), error[kind]) for kind, x in values.items()},
        {kind: upper(*weighted(x, weights)) for kind, x in values.items()},
        {"plain": measured["coupling"].mean(0)},
    )


def _filled(values: np.ndarray, alike: Sequence[np.ndarray]) -> np.ndarray:
    """Return values that are at least the mean of those at places that are alike."""
    made = np.array(values)
    for places in alike:
        made[places] = np.maximum(made[places], made[places].mean())
    return made


def weighted(values: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weighted mean of (S, Q) values over the draws, and its standard error."""
    mean = (weights * values).sum(0)
    return mean, np.sqrt((weights**2 * (values - mean) ** 2).sum(0))
