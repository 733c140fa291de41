"""Exact stationary mean and covariance of SGLD and SGWORLD on a quadratic potential.

If every batch gradient is affine, ``g_b(x) = H_b x - r_b``, one epoch in a given order is an
affine map ``x -> A x + c`` plus Gaussian noise of covariance ``Q``. Since the order is a fresh one
in every epoch, the first two stationary moments solve linear equations in the averages over orders
of ``A``, ``A (x) A``, ``A (x) c``, ``c c^T`` and ``Q``: no chain is simulated. With replacement,
and for one order in all epochs, these averages are exact. For fresh orders they are averages over
sampled orders, made precise by using each order with its reverse, and by a control variate: ``c``
with all batch Hessians replaced by their mean, whose moments over orders are known. The Monte Carlo
error that remains is measured by a jackknife. The equations are derived in docs/theory.md, section
2.2; for other integrators x is their whole state, which moves by the matrices of B17.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.protocols import Integrator
from sgworld_mcmc.theory.epoch_maps import AffineMap, center, epoch_maps, replacement_map
from sgworld_mcmc.theory.step_matrices import steps_of

ORDERS = ("replacement", "batches", "examples", "symmetric", "once")


class StationaryMoments(NamedTuple):
    """Stationary moments of the draws and their jackknife replicates.

    Attributes
    ----------
    mean : (D,) array
    covariance : (D, D) array
    mean_replicates : (G, D) array
        Values with one group of orders left out; G = 0 if the moments are exact.
    covariance_replicates : (G, D, D) array
    """

    mean: np.ndarray
    covariance: np.ndarray
    mean_replicates: np.ndarray
    covariance_replicates: np.ndarray

    def estimate(self, function):
        """Evaluate ``function(mean, covariance)``; return the value and its standard error.

        The error is that of averaging over sampled orders (jackknife); 0 if nothing is sampled.
        """
        value = function(self.mean, self.covariance)
        values = [
            function(m, s)
            for m, s in zip(self.mean_replicates, self.covariance_replicates, strict=True)
        ]
        groups = len(values)
        error = np.std(values, axis=0) * np.sqrt(groups - 1) if groups else 0.0 * value
        return value, error


def stationary_moments(matrices, offsets, step_size, **settings):
    """Return the stationary mean and covariance at one step size.

    Parameters
    ----------
    matrices : (M, D, D) array
        Hessians H_b of the batch gradients ``g_b(x) = H_b x - r_b``, scaled so that their *mean*
        is the Hessian of the potential (API convention: factor M, prior in every batch). Any
        values are allowed, so a partition into batches of different sizes needs nothing special.
    offsets : (M, D) array
        The r_b, scaled in the same way.
    step_size : float
        h in ``x <- x - h g_b(x) + sqrt(2 h temperature) xi``.
    order : str
        ``"batches"`` (default: a fresh random order of the batches in every epoch), ``"symmetric"``
        (a fresh order, then its reverse; draws after both), ``"once"`` (the order as given, in all
        epochs), ``"examples"`` (a fresh permutation of the rows in every epoch; needs
        ``num_batches``), ``"replacement"`` (SGLD: each step picks a batch at random).
    noise : str
        ``"independent"`` (default) or ``"averaged"``: sqrt(2h) (xi_k + xi_{k+1}) / 2 in place of
        sqrt(2h) xi_k (Leimkuhler & Matthews 2013).
    integrator : Integrator, optional
        An integrator to use in place of ``noise``, whose step is affine in the batch's Hessian. Its
        state of k numbers for each coordinate takes the place of the position.
    temperature : float
        Temperature, 1 by default; 0 is plain SGD.
    draws : str
        ``"epoch"`` (default, draws at ends of epochs) or ``"all"`` (after every step; not for
        ``"symmetric"`` and ``"once"``).
    num_batches : int, optional
        If given, ``matrices`` (N, D, D) and ``offsets`` (N, D) are those of the single rows, whose
        *sum* (plus the prior) is the full gradient. Batch sizes are those of `numpy.array_split`,
        in random order for ``"examples"``; ``"replacement"`` draws ceil(N / num_batches) distinct
        rows afresh in every step.
    prior_matrix, prior_offset : (D, D) and (D,) arrays, optional
        Terms of the gradient of the negative log prior, with ``num_batches`` only; default 0
        (flat).
    num_orders : int
        Number of sampled orders, default 2000, which is rounded up to ten groups of pairs.
    seed : int
        Seed of the orders, the same for all step sizes; default 0.

    Returns
    -------
    StationaryMoments

    Raises
    ------
    ValueError
        If a name is unknown, shapes do not match, or the variance diverges at the step size.

    Examples
    --------
    Two batches of a one-dimensional quadratic, picked at random (theory B1, C0 = 4, K = 0):

    >>> import numpy as np
    >>> batches = np.ones((2, 1, 1)), np.array([[2.0], [-2.0]])
    >>> sgld = stationary_moments(*batches, 0.1, order="replacement")
    >>> print(f"{sgld.covariance[0, 0]:.4f} = {(2 + 0.1 * 4) / (2 - 0.1):.4f}")
    1.2632 = 1.2632
    """
    return stationary_path(matrices, offsets, [step_size], **settings)[0]


def stationary_path(
    matrices,
    offsets,
    step_sizes,
    *,
    order="batches",
    noise="independent",
    integrator: Integrator | None = None,
    temperature=1.0,
    draws="epoch",
    num_batches=None,
    prior_matrix=None,
    prior_offset=None,
    num_orders=2000,
    seed=0,
):
    """Return a list of `stationary_moments` at several step sizes, with common orders."""
    for name, value, known in (
        ("order", order, ORDERS),
        ("noise", noise, ("independent", "averaged")),
        ("draws", draws, ("epoch", "all")),
    ):
        if value not in known:
            raise ValueError(f"unknown {name} {value!r}: choose one of {', '.join(known)}")
    if order == "examples" and num_batches is None:
        raise ValueError("order='examples' reshuffles rows: give num_batches and the rows' terms")
    if draws == "all" and order in ("symmetric", "once"):
        raise ValueError(f"draws='all' is not available for order={order!r}: use draws='epoch'")
    problem = center(matrices, offsets, num_batches, prior_matrix, prior_offset)
    kind = noise if integrator is None else integrator
    steps = [steps_of(kind, h, problem.hessian, temperature) for h in step_sizes]
    if order == "replacement":
        maps = [[replacement_map(problem, step)] for step in steps]
    else:
        maps = epoch_maps(problem, steps, order, draws, num_orders, seed)
    return [
        _solve(groups, problem.mode, step, h)
        for h, step, groups in zip(step_sizes, steps, maps, strict=True)
    ]


def gaussian_kl(mean, covariance, target_mean, target_covariance):
    """Return KL(N(mean, covariance) || N(target)), accurate to 1e-25 where the two nearly agree.

    It is ``sum_i [e_i - log(1 + e_i)] / 2 + |shift|^2 / 2`` with ``e`` the eigenvalues of the
    whitened difference of the covariances. For small e the bracket is computed by its series.
    """
    factor = np.linalg.cholesky(target_covariance)
    shift = np.linalg.solve(factor, np.asarray(mean) - target_mean)
    difference = np.linalg.solve(factor, np.asarray(covariance) - target_covariance)
    e = np.linalg.eigvalsh(np.linalg.solve(factor, difference.T))
    small = np.where(np.abs(e) < 0.02, e, 0.0)
    series = sum((-1) ** n * small**n / n for n in range(2, 12))
    bracket = np.where(np.abs(e) < 0.02, series, e - np.log1p(e))
    return 0.5 * (bracket.sum() + shift @ shift)


def _solve(groups, mode, steps, h):
    """Return the stationary moments from all groups' maps, and those without each group in turn."""
    dim = mode.size
    read = np.kron(steps.mode.read[None], np.eye(dim))
    shift = steps.spread * np.eye(dim)

    def moments(maps):
        epoch, drawn = (
            AffineMap(*(np.mean(field, axis=0) for field in zip(*part, strict=True)))
            for part in zip(*maps, strict=True)
        )
        size = len(epoch.c)
        if np.max(np.abs(np.linalg.eigvals(epoch.aa))) >= 1:
            raise ValueError(
                f"step_size {h:.4g}: the stationary variance is infinite; take a smaller step "
                "(in whitened coordinates below 2 / (1 + K))"
            )
        mean = np.linalg.solve(np.eye(size) - epoch.a, epoch.c)

        def push(step, moment):
            cross = np.einsum("ijk,j->ik", step.ac, mean)
            return step.aa @ moment + (cross + cross.T + step.second).ravel()

        source = push(epoch, np.zeros(size**2))
        moment = np.linalg.solve(np.eye(size**2) - epoch.aa, source)
        mean_drawn = drawn.a @ mean + drawn.c
        covariance = push(drawn, moment).reshape(size, size) - np.outer(mean_drawn, mean_drawn)
        covariance = read @ (covariance + covariance.T) @ read.T / 2
        return mode + read @ mean_drawn, covariance + shift

    mean, covariance = moments(groups)
    kept = [groups[:g] + groups[g + 1 :] for g in range(len(groups))] if len(groups) > 1 else []
    replicates = [moments(maps) for maps in kept]
    return StationaryMoments(
        mean,
        covariance,
        np.array([m for m, _ in replicates]).reshape(-1, dim),
        np.array([s for _, s in replicates]).reshape(-1, dim, dim),
    )
