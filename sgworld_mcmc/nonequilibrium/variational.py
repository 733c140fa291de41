"""The variational estimate of entropy production, a lower bound that needs no model.

The formula is (N16) of docs/nonequilibrium.md, after Kim, Bae, Lee & Jeong, Phys. Rev. Lett. 125,
140604 (2020), who call it NEEP.
"""

from typing import NamedTuple

import numpy as np

from sgworld_mcmc.checks import check_choice, check_integer
from sgworld_mcmc.nonequilibrium.lagged_pairs import whiten
from sgworld_mcmc.nonequilibrium.moments import trajectory_moments
from sgworld_mcmc.nonequilibrium.results import block_standard_error, block_sums, new_axes, table
from sgworld_mcmc.nonequilibrium.trajectory import as_trajectory

__all__ = ["VariationalProduction", "variational_entropy_production"]


class VariationalProduction(NamedTuple):
    """A variational lower bound on the entropy production per `lag` steps.

    Attributes
    ----------
    rate : float
        E[d - exp(-d)] + 1 on held-out pairs, in nats per `lag` steps. On average it is never above
        the production, and equal to it for the best d.
    standard_error : float
        Standard error of the rate, from blocks of the held-out pairs.
    train_rate : float
        The same average on the pairs that d was fitted to, which overfitting makes larger.
    production : numpy.ndarray
        (chains, pairs) fitted production d of each held-out pair.
    features : str
        "quadratic" or "network".
    lag, num_pairs : int
        Number of steps between the positions of a pair, and number of pairs.
    """

    rate: float
    standard_error: float
    train_rate: float
    production: np.ndarray
    features: str
    lag: int
    num_pairs: int

    def per_stretch(self, length: int) -> float:
        """Return the mean production of ``length`` steps of `lag`, by the Markov property."""
        return self.rate * check_integer("length", length, 1)

    def __str__(self):
        per = "step" if self.lag == 1 else f"{self.lag} steps"
        return table(
            f"entropy production per {per}, variational lower bound ({self.features})",
            {
                "held out": f"{self.rate:.4g} ± {self.standard_error:.2g} nats",
                "fitted": f"{self.train_rate:.4g} nats",
                "pairs": f"{self.num_pairs}",
            },
        )

    __repr__ = __str__

    def plot(self, ax=None):
        """Draw the histogram of the fitted production of single steps, and return the axes."""
        ax = new_axes(ax)
        ax.hist(self.production.reshape(-1), bins=80, density=True, color="0.7")
        ax.axvline(self.rate, color="C0", label=f"mean {self.rate:.3g} ± {self.standard_error:.1g}")
        ax.set(xlabel="production of a step [nats]", ylabel="density")
        ax.legend()
        return ax


def variational_entropy_production(
    trajectory,
    lag: int = 1,
    *,
    features: str = "quadratic",
    num_components: int | None = None,
    max_pairs: int = 1_000_000,
    project: bool = False,
    rng_key=None,
    hidden: int = 32,
    num_steps: int = 3000,
) -> VariationalProduction:
    """Estimate the entropy production rate by maximising E[d - exp(-d)] + 1 (N16).

    The function d(x, x') changes sign when x and x' are exchanged. The maximum over all such
    functions is the production, at d = log p(x, x') / p(x', x); every other d gives less. d is
    fitted to one half of the data and evaluated in the other half, and the other way round, so that
    the result is on average never above the truth.

    Parameters
    ----------
    trajectory : array (steps, D) or (chains, steps, D), memmap, MCMC run or ArviZ object
        A stationary trajectory.
    lag : int
        Number of steps between x and x'.
    features : {"quadratic", "network"}
        Form of d. "quadratic" is linear in x_i - x'_i, x_i x_j - x'_i x'_j and x_i x'_j - x_j x'_i,
        which includes the exact d of a linear-Gaussian chain; it is fitted by Newton's method.
        "network" adds net(x, x') - net(x', x) for anything nonlinear, where net has two tanh layers
        and is trained by Adam.
    num_components : int, optional
        Number of leading principal components to use; default at most 8, since there are D^2 + D
        quadratic features.
    max_pairs : int
        Largest number of pairs, which are taken evenly from the trajectory.
    project : bool
        Whether to drop constant and duplicate directions, instead of raising.
    rng_key : JAX key, optional
        Key of the network's initial weights and batches; default ``jax.random.key(0)``.
    hidden, num_steps : int
        Number of units in a layer of the network, and of training steps of 512 pairs. The network
        with the best value on a quarter of the training half is kept.

    Returns
    -------
    VariationalProduction
        The rate, its standard error and more; it prints and plots.

    Raises
    ------
    ValueError
        If there is NaN (the message says where), there are fewer steps than 2 x lag or too few for
        the features, or coordinates are constant or duplicate (it says which).

    Notes
    -----
    Overfitting lowers the held-out value by about (number of features) / (2 n). Far from
    equilibrium, beyond a few nats per step, rare pairs dominate E[exp(-d)], and the standard error
    is too small.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> x = np.zeros((20_000, 2))
    >>> for k in range(1, len(x)):
    ...     x[k] = np.array([[0.9, 0.1], [-0.1, 0.9]]) @ x[k - 1] + rng.normal(size=2)
    >>> result = variational_entropy_production(x)
    >>> bool(abs(result.rate - 0.2222) < 3 * result.standard_error)
    True
    """
    lag = check_integer("lag", lag, 1)
    check_choice("features", features, ("quadratic", "network"))
    trajectory = as_trajectory(trajectory, max(4, 2 * lag), f"(twice the lag, {lag})")
    first, second = _pairs(trajectory, lag, num_components, max_pairs, project)
    dim = first.shape[2]
    needed = 20 * (dim * dim + dim)
    if first.shape[0] * first.shape[1] < needed:
        raise ValueError(
            f"`trajectory` has {first.shape[0] * first.shape[1]} pairs, too few to fit "
            f"{dim * dim + dim} features and test them; at least {needed} are needed. Run longer "
            "or use fewer `num_components`."
        )
    halves = _halves(first, second)
    production, train_rates = [], []
    for train, test in ((0, 1), (1, 0)):
        fitted = _fit_quadratic(*halves[train][:2])
        d_train, d_test = (_apply(fitted, *halves[h][:2]) for h in (train, test))
        if features == "network":
            from sgworld_mcmc.nonequilibrium.variational_network import fit_network

            network = fit_network(*halves[train], d_train, rng_key, hidden, num_steps, train)
            d_train = d_train + network(*halves[train])
            d_test = d_test + network(*halves[test])
        train_rates.append(float(np.mean(_objective(d_train))))
        production.append(d_test.reshape(halves[test][2]))
    # The first half was tested second: put the halves back in the order of time.
    axis = 0 if first.shape[0] > 1 else 1
    joined = np.concatenate(production[::-1], axis=axis)
    sizes, sums = block_sums(joined, lambda part: np.array([_objective(part).sum()]))
    return VariationalProduction(
        rate=float(sums.sum() / sizes.sum()),
        standard_error=float(block_standard_error(sizes, sums)[0]),
        train_rate=float(np.mean(train_rates)),
        production=joined,
        features=features,
        lag=lag,
        num_pairs=joined.size,
    )


def _objective(d):
    """Return d - exp(-d) + 1, whose mean is the variational bound, without overflow."""
    return d - np.exp(np.minimum(-d, 500.0)) + 1


def _pairs(trajectory, lag, num_components, max_pairs, project):
    """Return whitened (x, x'), each (chains, pairs, k) float64, thinned if there are too many."""
    from sgworld_mcmc.nonequilibrium.matrices import inverse

    values, names = trajectory
    chains, steps, dim = values.shape
    # This reads the whole trajectory, and so finds NaN between the pairs as well.
    moments = trajectory_moments(trajectory, ())
    if not project:
        inverse("covariance of the trajectory", moments.covariance, names=names)
    wanted = min(dim, 8) if num_components is None else num_components
    basis = whiten(moments, check_integer("num_components", wanted, 1, dim))
    max_pairs = check_integer("max_pairs", max_pairs, 1)
    stride = max(1, -(-chains * (steps - lag) // max_pairs))
    count = len(range(0, steps - lag, stride))
    pair = np.empty((2, chains, count, basis.weights.shape[1]))
    for which, offset in enumerate((0, lag)):
        for chain in range(chains):
            rows = values[chain, offset : steps - lag + offset : stride]
            pair[which, chain] = (np.asarray(rows, np.float64) - basis.mean) @ basis.weights
    return pair


def _halves(first, second):
    """Split into two (x, x', shape) of flat rows: halves of the chains, or of one chain in time."""
    chains, count, dim = first.shape
    if chains > 1:
        cuts = [np.s_[: chains // 2], np.s_[chains // 2 :]]
    else:
        cuts = [np.s_[:, : count // 2], np.s_[:, count // 2 :]]
    return [
        (first[c].reshape(-1, dim), second[c].reshape(-1, dim), first[c].shape[:2]) for c in cuts
    ]


def _features(x, y):
    """Return (n, k^2 + k) antisymmetric linear and quadratic features."""
    i, j = np.triu_indices(x.shape[1])
    a, b = np.triu_indices(x.shape[1], 1)
    # Means and differences keep the digits of x_i x_j - y_i y_j if y is near x.
    mean, step = (x + y) / 2, y - x
    even = mean[:, i] * step[:, j] + step[:, i] * mean[:, j]
    odd = mean[:, a] * step[:, b] - mean[:, b] * step[:, a]
    return np.concatenate([step, even, odd], axis=1)


def _slices(count):
    """Cut into slices whose features fit into the cache."""
    return (slice(start, start + 2**13) for start in range(0, count, 2**13))


def _apply(weights, x, y):
    d = np.empty(len(x))
    for part in _slices(len(x)):
        d[part] = _features(x[part], y[part]) @ weights
    return d


def _derivatives(x, y, scale, d):
    """Return the gradient and minus the Hessian of the mean objective, in units of ``scale``."""
    width = len(scale)
    gradient, curvature = np.zeros(width), np.zeros((width, width))
    for part in _slices(len(x)):
        features = _features(x[part], y[part]) / scale
        tilt = np.exp(np.minimum(-d[part], 500.0))
        gradient += features.T @ (1 + tilt)
        curvature += features.T @ (features * tilt[:, None])
    return gradient / len(x), curvature / len(x)


def _fit_quadratic(x, y, max_iterations=50):
    """Maximise the mean of d - exp(-d) by Newton's method with a line search; return weights."""
    d = np.zeros(len(x))
    width = x.shape[1] ** 2 + x.shape[1]
    scale = np.sqrt(np.diag(_derivatives(x, y, np.ones(width), d)[1]))
    weights, value = np.zeros(width), 0.0
    for _ in range(max_iterations):
        gradient, curvature = _derivatives(x, y, scale, d)
        step = np.linalg.solve(curvature + 1e-10 * np.trace(curvature) * np.eye(width), gradient)
        gain = float(gradient @ step)
        if gain < 1e-10 * max(abs(value), 1e-6):
            break
        change = _apply(step / scale, x, y)
        length = 1.0
        while length > 1e-8:
            new = float(np.mean(_objective(d + length * change)))
            if new >= value + 0.1 * length * gain:
                break
            length /= 2
        else:
            break
        weights, d, value = weights + length * step, d + length * change, new
    return weights / scale
