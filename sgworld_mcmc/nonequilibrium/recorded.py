"""Estimate circulation, entropy production and reversibility from moments recorded during a run.

`sgworld_mcmc.sampling.lagged_moments` records them at every step, however rarely the run keeps a
draw. The formulas are (N8)-(N11), (N14) and (N17) of docs/nonequilibrium.md.
"""

from typing import Any, NamedTuple

import numpy as np

from sgworld_mcmc.nonequilibrium.linear import gaussian_rate
from sgworld_mcmc.nonequilibrium.matrices import check_matrix, inverse
from sgworld_mcmc.nonequilibrium.moments import Moments
from sgworld_mcmc.nonequilibrium.production import PlugInProduction
from sgworld_mcmc.nonequilibrium.recorded_balance import violation_of
from sgworld_mcmc.nonequilibrium.results import block_standard_error, table
from sgworld_mcmc.nonequilibrium.reversibility import DetailedBalanceViolation
from sgworld_mcmc.nonequilibrium.trajectory import check_center

__all__ = ["MeanProduction", "RecordedMoments", "recorded_moments"]

# Number of blocks for error bars.
_ERROR_BLOCKS = 50


class MeanProduction(NamedTuple):
    """The mean entropy production (N9) per recorded step, in nats, and its standard error."""

    rate: float
    standard_error: float

    def __str__(self):
        return f"entropy production per step: {self.rate:.4g} ± {self.standard_error:.2g} nats"


class RecordedMoments(NamedTuple):
    """Float64 sums over the successive pairs of positions in blocks; x is measured from `center`.

    Positions have the coordinates in which the run recorded them: the NumPyro interface records
    preconditioned coordinates. A step leads from one recorded position to the next: it is a
    minibatch step with replacement, and an epoch (two for the symmetric order) without.

    Attributes
    ----------
    pairs : numpy.ndarray
        (blocks,) number of pairs in a block of each chain.
    edges : numpy.ndarray
        (chains, blocks + 1, D) positions x at the beginning of each block and at the end of the
        last.
    sums : numpy.ndarray
        (chains, blocks, D) sums of x_k.
    squares, moved : numpy.ndarray
        (chains, blocks, D, D) sums of x_k x_k^T, and of x_k (x_{k+1} - x_k)^T.
    center : numpy.ndarray
        (D,) position from which x is measured.
    """

    pairs: np.ndarray
    edges: np.ndarray
    sums: np.ndarray
    squares: np.ndarray
    moved: np.ndarray
    center: np.ndarray

    @property
    def num_pairs(self) -> int:
        """Number of pairs of successive positions, in all chains."""
        return int(self.pairs.sum()) * len(self.edges)

    def about(self, center) -> "RecordedMoments":
        """Return the same sums with x measured from ``center`` (D,)."""
        center = check_center(center, len(self.center))
        o = self.center - center
        outer = self.sums[..., :, None] * o
        pairs = self.pairs[:, None, None]
        displacement = np.diff(self.edges, axis=1)
        return RecordedMoments(
            self.pairs,
            self.edges + o,
            self.sums + self.pairs[:, None] * o,
            self.squares + outer + outer.swapaxes(2, 3) + pairs * np.outer(o, o),
            self.moved + o[:, None] * displacement[..., None, :],
            center,
        )

    def mean(self) -> np.ndarray:
        """Return the (D,) mean of all positions."""
        total = self.sums.sum((0, 1)) + self.edges[:, -1].sum(0)
        return self.center + total / (self.num_pairs + len(self.edges))

    def moments(self, center=None) -> Moments:
        """Return what `trajectory_moments` gives for the whole trajectory at lag 1.

        The default center is the mean.
        """
        own = self.about(self.mean() if center is None else center)
        last = own.edges[:, -1]
        count = self.num_pairs + len(last)
        covariance = (own.squares.sum((0, 1)) + last.T @ last) / count
        lagged = (own.squares + own.moved).sum((0, 1)) / self.num_pairs
        return Moments(self.mean(), covariance, {1: lagged}, own.center, count)

    def areal_velocity(self, center=None) -> np.ndarray:
        """Estimate the circulation matrix (D, D) by the mean area swept per step (N8)."""
        moved = self.about(self.mean() if center is None else center).moved.sum((0, 1))
        return (moved - moved.T) / (2 * self.num_pairs)

    def entropy_production(
        self, circulation, covariance, diffusion, center=None, *, project: bool = False
    ) -> MeanProduction:
        """Average the production (N9) of all steps; arguments are those of `entropy_production`."""
        dim = len(self.center)
        q = check_matrix("circulation", circulation, dim, symmetric=False, antisymmetric=True)
        precision = inverse("covariance", check_matrix("covariance", covariance, dim), project)
        cost = inverse("diffusion", check_matrix("diffusion", diffusion, dim), project)
        weights = -(q @ precision).T @ cost
        own = self._for_errors(self.mean() if center is None else center)
        sums = np.sum(weights * own.moved, axis=(2, 3)).reshape(-1, 1)
        sizes = np.tile(own.pairs, len(self.edges))
        error = block_standard_error(sizes, sums)
        return MeanProduction(float(sums.sum() / sizes.sum()), float(error[0]))

    def plug_in_entropy_production(self) -> PlugInProduction:
        """Estimate the rate of the linear-Gaussian chain, like the function of the same name."""
        own = self._for_errors(self.mean())
        dim = len(self.center)
        flat = lambda x: x.reshape(-1, dim, dim)  # noqa: E731
        sizes = np.tile(own.pairs, len(self.edges))
        squares, lagged = flat(own.squares), flat(own.squares + own.moved)

        def rate(squares, lagged, count):
            return gaussian_rate(squares / count, (lagged / count).T)

        total = squares.sum(0), lagged.sum(0), self.num_pairs
        plug_in = rate(*total)
        left_out = [
            rate(*(t - p for t, p in zip(total, part, strict=True)))
            for part in zip(squares, lagged, sizes, strict=True)
        ]
        spread = np.sum((left_out - np.mean(left_out)) ** 2)
        error = float(np.sqrt((len(left_out) - 1) / len(left_out) * spread))
        null = dim * (dim - 1) / self.num_pairs
        return PlugInProduction(plug_in - null, error, plug_in, null, 1, self.num_pairs, dim)

    def project(self, components) -> "RecordedMoments":
        """Return the sums for the coordinates components^T x; ``components`` is (D, k)."""
        w = np.asarray(components, float)
        squares, moved = (w.T @ x @ w for x in (self.squares, self.moved))
        vectors = (self.edges @ w, self.sums @ w)
        return RecordedMoments(self.pairs, *vectors, squares, moved, self.center @ w)

    def detailed_balance_violation(
        self, num_blocks: int | None = None, *, num_components: int | None = None
    ) -> DetailedBalanceViolation:
        """Test detailed balance (N17) with every step, like the function of the same name.

        Parameters
        ----------
        num_blocks
            Number of blocks of all chains; recorded blocks are joined. By default about 100, or
            four for each contrast, but fewer if blocks would be shorter than ten correlation times,
            which are estimated from lag 1.
        num_components
            Number of leading principal components of the covariance to test. By default all
            coordinates if there are twice as many blocks as contrasts, else as many components as
            that allows.

        Raises
        ------
        ValueError
            If there is a single coordinate, coordinates are constant or duplicate, or there are
            fewer than six blocks.
        """
        return violation_of(self, num_blocks, num_components)

    def joined(self, each: int) -> "RecordedMoments":
        """Join neighbours into at most ``each`` blocks per chain, of nearly equal length."""
        steps, most = int(self.pairs.sum()), len(self.pairs)
        each = min(each, most)
        # Blocks are cut by their middles, because the last block recorded is often short.
        middles = np.cumsum(self.pairs) - self.pairs / 2
        first = np.searchsorted(middles, np.arange(each) * steps / each)
        first = np.unique(first[first < most])
        add = lambda x, axis: np.add.reduceat(x, first, axis=axis)  # noqa: E731
        return RecordedMoments(
            add(self.pairs, 0),
            np.concatenate([self.edges[:, first], self.edges[:, -1:]], axis=1),
            add(self.sums, 1),
            add(self.squares, 1),
            add(self.moved, 1),
            self.center,
        )

    def _for_errors(self, center) -> "RecordedMoments":
        """Return the sums about a center in about fifty blocks, long enough for error bars."""
        each = max(-(-_ERROR_BLOCKS // len(self.edges)), 2 if len(self.edges) == 1 else 1)
        return self.joined(each).about(center)

    def __str__(self):
        moments = self.moments()
        sd = np.sqrt(np.diag(moments.covariance))
        rows = {
            f"coordinate {k}": f"mean {m:+.4g}, sd {s:.4g}"
            for k, (m, s) in enumerate(zip(moments.mean[:20], sd[:20], strict=True))
        }
        chains, blocks, _ = self.sums.shape
        title = f"moments of {self.num_pairs} steps in {chains} chains x {blocks} blocks"
        return table(title, rows)

    __repr__ = __str__


def recorded_moments(source: Any) -> RecordedMoments:
    """Read the moments that a run recorded at every step.

    Parameters
    ----------
    source
        An :class:`sgworld_mcmc.SGWORLD` or :class:`sgworld_mcmc.SGLD` run with
        ``record_moments=True``, or the record of `sgworld_mcmc.sampling.lagged_moments` (with or
        without a leading axis of chains). Diverged chains of a run are left out.

    Raises
    ------
    ValueError
        If nothing was recorded, or every chain has diverged.

    Examples
    --------
    >>> import jax
    >>> from sgworld_mcmc import SGLD, exact
    >>> target = exact.LinearRegression(num_data=200)
    >>> settings = dict(batch_size=20, steps_per_draw=10, num_samples=100, thinning=10)
    >>> mcmc = SGLD(target.model, **settings, record_moments=True)
    >>> mcmc.run(jax.random.key(0), *target.data)
    >>> moments = recorded_moments(mcmc)
    >>> moments.areal_velocity().shape, moments.num_pairs  # 4 chains of 100 x 10 steps, all seen
    ((3, 3), 3996)
    """
    kept = None
    if hasattr(source, "last_state"):
        state = source.last_state
        source = getattr(state, "moments", ())
        if isinstance(source, tuple) and not source:
            raise ValueError(
                "The run recorded no moments: construct SGLD or SGWORLD with `record_moments=True`."
            )
        kept = np.atleast_1d(np.asarray(state.diverged_at)) < 0
    count, center, previous, blocks = source
    single = np.ndim(count) == 0
    batched = lambda x: np.asarray(x)[None] if single else np.asarray(x)  # noqa: E731
    center, previous = (batched(x).astype(float) for x in (center, previous))
    pairs, *fields = (batched(x) for x in blocks)
    used = pairs[0] > 0
    kept = np.ones(len(pairs), bool) if kept is None else kept
    if not (kept.any() and used.any()):
        why = "every chain has diverged" if used.any() else "fewer than two positions were recorded"
        raise ValueError(f"There are no moments to read: {why}.")
    starts, sums, squares, moved = (x[kept][:, used].astype(float) for x in fields)
    if not all(np.isfinite(x).all() for x in (starts, sums, squares, moved)):
        raise ValueError("The recorded moments have NaN or infinity: a chain has diverged.")
    edges = np.concatenate([starts, previous[kept][:, None]], axis=1)
    center = center[kept]
    # All chains take the center of the first one.
    parts = [
        RecordedMoments(pairs[0][used], *(x[k : k + 1] for x in (edges, sums, squares, moved)), own)
        for k, own in enumerate(center)
    ]
    parts = [part.about(center[0]) for part in parts]
    joined = [np.concatenate(field) for field in list(zip(*parts, strict=True))[1:5]]
    return RecordedMoments(parts[0].pairs, *joined, center[0])
