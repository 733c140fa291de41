"""Average one epoch's affine map over orders, for an affine batch gradient.

One epoch in a given order maps the sampler's state ``x -> A x + c`` and adds Gaussian noise of
covariance ``Q``. The state has k numbers for each of D coordinates, n = k D. Here the averages over
orders of ``A``, ``A (x) A``, ``A (x) c`` and ``c c^T + Q`` are formed, in groups of orders, each
with its reverse. `sgworld_mcmc.theory.stationary_recursion` solves for the moments.
"""

from typing import NamedTuple

import numpy as np

NUM_GROUPS = 10  # groups of orders for the jackknife


class Problem(NamedTuple):
    """Units (batches or rows) with offsets centred at the mode, where they sum to zero.

    Slot k of an epoch takes ``sizes[k]`` units and has gradient ``matrix x - offset`` with
    ``matrix = prior_matrix + scale sum_u matrices_u`` and
    ``offset = prior_slope (1 - scale sizes[k] / R) + scale sum_u offsets_u``.
    """

    matrices: np.ndarray
    offsets: np.ndarray
    prior_matrix: np.ndarray
    prior_slope: np.ndarray
    sizes: np.ndarray
    scale: float
    hessian: np.ndarray
    mode: np.ndarray


class AffineMap(NamedTuple):
    """Averages of one epoch's affine map over orders, and for ``draws`` over phases too."""

    a: np.ndarray  # E[A]
    aa: np.ndarray  # E[A (x) A], (n^2, n^2)
    c: np.ndarray  # E[c]
    ac: np.ndarray  # E[A (x) c], (n, n, n)
    second: np.ndarray  # E[c c^T] + E[Q]


def center(matrices, offsets, num_batches, prior_matrix, prior_offset):
    """Check the terms of the gradient and refer them to the mode (see `stationary_moments`)."""
    matrices, offsets = np.asarray(matrices, float), np.asarray(offsets, float)
    if offsets.ndim != 2 or matrices.shape != (*offsets.shape, offsets.shape[1]):
        raise ValueError(
            "matrices must be (M, D, D) and offsets (M, D) with the same M and D, "
            f"got {matrices.shape} and {offsets.shape}"
        )
    units, dim = offsets.shape
    if num_batches is None:
        if prior_matrix is not None or prior_offset is not None:
            raise ValueError("prior_matrix and prior_offset need num_batches: batch terms hold it")
        sizes, scale = np.ones(units, int), 1.0
    else:
        if not 1 <= num_batches <= units:
            raise ValueError(f"num_batches must be from 1 to the {units} rows, got {num_batches}")
        sizes = np.array([len(part) for part in np.array_split(np.arange(units), num_batches)])
        scale = float(num_batches)
    prior_matrix = np.zeros((dim, dim)) if prior_matrix is None else np.asarray(prior_matrix)
    prior_offset = np.zeros(dim) if prior_offset is None else np.asarray(prior_offset)
    weight = scale / len(sizes)
    hessian = prior_matrix + weight * matrices.sum(0)
    mode = np.linalg.solve(hessian, prior_offset + weight * offsets.sum(0))
    # At the mode the rows' offsets sum to minus the prior's. It is shared out among the rows, so
    # that they sum to 0.
    slope = prior_offset - prior_matrix @ mode
    centered = offsets - matrices @ mode
    centered = centered - centered.mean(0)
    return Problem(matrices, centered, prior_matrix, slope, sizes, scale, hessian, mode)


def replacement_map(problem, steps):
    """Return the (step, draw) maps of one step with a random batch, as exact averages.

    The variances of the batch terms are those of samples of distinct units.
    """
    units, dim = problem.offsets.shape
    size = int(problem.sizes.max())
    # Times the covariance over units, kappa gives that of a gradient from `size` distinct units.
    kappa = (units * problem.scale / len(problem.sizes)) ** 2 / size
    kappa *= (units - size) / max(units - 1, 1)
    eye, mode = np.eye(dim), steps.mode
    spread = problem.matrices - problem.matrices.mean(0)
    a = np.kron(mode.advance, eye) + np.kron(mode.advance_slope, problem.hessian)
    turned = np.kron(mode.advance_slope, spread).reshape(units, -1)
    covariance = kappa * turned.T @ turned / units  # of A_ij and A_kl
    covariance = covariance.reshape((len(a),) * 4).transpose(0, 2, 1, 3)
    aa = np.einsum("ij,kl->ikjl", a, a) + covariance
    pushed = np.kron(mode.push[None], problem.offsets)
    ac = kappa * np.einsum("uj,uk->jk", turned, pushed) / units
    kick = np.kron(mode.kick, eye) + np.kron(mode.kick_slope, problem.hessian)
    kicked = np.kron(mode.kick_slope, spread)
    noise = kick @ kick.T + kappa * np.einsum("uij,ukj->ik", kicked, kicked) / units
    cc = kappa * pushed.T @ pushed / units
    flat = aa.reshape(len(a) ** 2, len(a) ** 2)
    step = AffineMap(a, flat, np.zeros(len(a)), ac.reshape((len(a),) * 3), cc + noise)
    return step, step


def epoch_maps(problem, steps, order, draws, num_orders, seed):
    """Return, for each of the steps, the (epoch, draw) maps of each group of orders."""
    if order != "examples":
        problem = _as_batches(problem)
    result = [[] for _ in steps]
    pairs = -(-num_orders // (2 * NUM_GROUPS))
    for group in range(1 if order == "once" else NUM_GROUPS):
        slots = np.arange(len(problem.sizes))
        if order == "once":
            matrices, offsets, _ = _slots(problem, np.arange(len(problem.offsets))[None])
            sequences = [matrices, offsets, np.zeros_like(offsets)]
        else:
            rng = np.random.default_rng([seed, group])
            units = np.tile(np.arange(len(problem.offsets)), (pairs, 1))
            sequences = _slots(problem, rng.permuted(units, axis=1))
            if len(set(problem.sizes)) > 1:
                # A smaller batch that always had the same place would bias the draws there.
                places = rng.permuted(np.tile(slots, (pairs, 1)), axis=1)
                sequences = [x[np.arange(pairs)[:, None], places] for x in sequences]
            sequences = [np.concatenate([x, x[:, ::-1]]) for x in sequences]
        if order == "symmetric":
            sequences = [np.concatenate([x, x[:, ::-1]], axis=1) for x in sequences]
            slots = np.concatenate([slots, slots[::-1]])
        for step, maps in zip(steps, result, strict=True):
            maps.append(_average(problem, sequences, slots, step.mode, draws, order != "once"))
    return result


def _as_batches(problem):
    """Return the problem whose units are the batches of consecutive units."""
    matrices, offsets, _ = _slots(problem, np.arange(len(problem.offsets))[None])
    ones, zero = np.ones(len(problem.sizes), int), np.zeros_like(problem.prior_slope)
    return problem._replace(
        matrices=matrices[0],
        offsets=offsets[0],
        prior_matrix=np.zeros_like(problem.prior_matrix),
        prior_slope=zero,
        sizes=ones,
        scale=1.0,
    )


def _slots(problem, permutations):
    """Return matrices, offsets and the offsets' random part of all slots, (orders, M, ...)."""
    starts = np.cumsum(problem.sizes) - problem.sizes
    sums = np.add.reduceat(problem.matrices[permutations], starts, axis=1)
    matrices = problem.prior_matrix + problem.scale * sums
    random = problem.scale * np.add.reduceat(problem.offsets[permutations], starts, axis=1)
    fraction = 1 - problem.scale * problem.sizes / len(problem.offsets)
    return matrices, random + fraction[:, None] * problem.prior_slope, random


def _average(problem, sequences, slots, mode, draws, random_order):
    """Return averages over the sequences, composed from an epoch's last step to its first.

    In this direction the noise of each step meets the finished product of the later ones. The
    product of the last k steps is distributed as that of the first k, so that it serves as phase k
    too.
    """
    matrices, offsets, linear = sequences
    orders, steps, dim = offsets.shape
    size = len(mode.advance) * dim
    # The rows of a product are split into the k vectors that they act on.
    eye = np.eye(size).reshape(1, size, -1, dim)
    mean_a, weights = eye, np.zeros((len(problem.sizes), size, dim))
    a = np.broadcast_to(eye, (orders, *eye.shape[1:]))
    c, c0, q = np.zeros((orders, size)), np.zeros((orders, size)), np.zeros((size, size))
    phases = []
    for k in reversed(range(steps)):
        pushed, mean_pushed = (_mixed(x, mode.push[:, None])[:, :, 0] for x in (a, mean_a))
        c = c + (pushed @ offsets[:, k, :, None])[..., 0]
        c0 = c0 + linear[:, k] @ mean_pushed[0].T
        weights[slots[k]] += mean_pushed[0]
        turned = (a.reshape(orders, -1, dim) @ matrices[:, k]).reshape(a.shape)
        kicked = _mixed(a, mode.kick)
        if mode.kick_slope.any():
            kicked = kicked + _mixed(turned, mode.kick_slope)
        q = q + _mean_square(kicked)
        a = _mixed(a, mode.advance) + _mixed(turned, mode.advance_slope)
        mean_turned = mean_a @ problem.hessian
        mean_a = _mixed(mean_a, mode.advance) + _mixed(mean_turned, mode.advance_slope)
        if k == 0 or draws == "all":
            cov0 = _linear_covariance(problem, weights) if random_order else 0.0
            whole, mean_whole = a.reshape(orders, size, size), mean_a.reshape(size, size)
            phases.append(_expectation(whole, c, c0, mean_whole, cov0 + q))
    drawn = AffineMap(*(np.mean(field, axis=0) for field in zip(*phases, strict=True)))
    return phases[-1], drawn


def _mixed(blocks, matrix):
    """Return rows of k vectors, (..., k, D), times a (k, l) matrix, as (..., l, D)."""
    if matrix.shape == (1, 1):
        return matrix[0, 0] * blocks
    return np.einsum("...kd,kl->...ld", blocks, matrix)


def _mean_square(a):
    """Return the mean of a a^T over the orders."""
    rows = a.swapaxes(0, 1).reshape(a.shape[1], -1)
    return rows @ rows.T / len(a)


def _linear_covariance(problem, weights):
    """Return the covariance of sum_k weights_k s_k over random dealings of the units.

    Here s_k is the sum of the units dealt to place k. The sizes are in random order too: ``square``
    and ``product`` are the means of n_k^2 and, for two places, of n_k n_l.
    """
    units, places = len(problem.offsets), len(problem.sizes)
    if units == 1:
        return np.zeros((weights.shape[1],) * 2)
    variance = problem.offsets.T @ problem.offsets / units * problem.scale**2
    square = np.mean(problem.sizes**2)
    product = (units**2 - places * square) / max(places * (places - 1), 1)
    total = weights.sum(0)
    squares = np.einsum("kij,jl,kml->im", weights, variance, weights)
    expected = product * total @ variance @ total.T + (square - product) * squares
    return units / (units - 1) * (units / places * squares - expected / units)


def _expectation(a, c, c0, mean_a, known):
    """Return averages over orders, with c0 as control variate.

    ``known`` is the sum of E[Q] and E[c0 c0^T].
    """
    orders, size = c.shape
    flat = a.reshape(orders, -1)
    aa = (flat.T @ flat / orders).reshape((size,) * 4).transpose(0, 2, 1, 3)
    ac = (flat.T @ c / orders).reshape((size,) * 3) - mean_a[:, :, None] * c0.mean(0)
    second = (c.T @ c - c0.T @ c0) / orders + known
    return AffineMap(a.mean(0), aa.reshape(size**2, size**2), (c - c0).mean(0), ac, second)
