"""Pilot chains around the center: what the choice of the settings is made from."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.infer.center import Center, set_up_batches, spectrum, zero_anchor
from sgworld_mcmc.infer.compiled import SetUpFunctions
from sgworld_mcmc.infer.estimator import Anchor
from sgworld_mcmc.infer.finder import Finder
from sgworld_mcmc.infer.layout import cut, head
from sgworld_mcmc.minibatch import Batches, num_batches
from sgworld_mcmc.tuning.curvature import dense_scale
from sgworld_mcmc.tuning.discretisation import Discretisation, fit_discretisation, is_in_range
from sgworld_mcmc.tuning.noise import RowNoise, summarise_noise
from sgworld_mcmc.tuning.pilot import Pilot, start_pilot, summarise_pilot

__all__ = ["Bench", "Measurements", "measure"]

# Rows up to which the pilot uses all of them, and rows of its minibatches above.
WHOLE = 4096
PILOT_ROWS = 1024
# Rows on which noise is measured, each at one draw: in all, in all times D, and at each draw.
NOISE_ROWS, NOISE_NUMBERS, FEWEST_ROWS = 2**19, 2**23, 256
# Step sizes: the first at which no chain is lost is the reference for the larger ones.
REFERENCES = (1 / 8, 1 / 32, 1 / 128)
LARGER = (1 / 4, 1 / 2, 1.0)
# Further halvings of the reference where the error of twice its step is too large to learn from.
HALVINGS = 2
# A posterior this much wider, narrower or farther from the center than the Gaussian there, in
# standard deviations along some parameter, is given new coordinates.
WIDE, NARROW, FAR = 2.0, 0.4, 0.8
ROUNDS = 2
LIMIT = 1e3
# Shift, in posterior standard deviations, at which the curvature is looked at, on so many batches.
SHIFT, SHIFT_BATCHES = 0.3, 4
# At most so many steps, and so many random numbers at a time.
BURN_IN, STEPS, MOST_NORMALS = 100, 200, 2**22


class Bench(NamedTuple):
    """A model, its data in two precisions, and the sampler's coordinates.

    Attributes
    ----------
    functions
        Of the model.
    rows, constants
        Shuffled data leaves and constants in the sampler's precision.
    rows_double, constants_double
        The same in the precision of the set-up.
    batches_double
        ``rows_double`` cut into batches.
    center
        The coordinates.
    temperature
        tau > 0.
    """

    functions: SetUpFunctions
    rows: tuple
    constants: tuple
    rows_double: tuple
    constants_double: tuple
    batches_double: Batches
    center: Center
    temperature: float

    @property
    def size(self) -> int:
        """N."""
        return jax.tree.leaves(self.rows)[0].shape[0]

    def gradient(self) -> np.ndarray:
        """(D,) gradient of the log density at the center."""
        with jax.enable_x64(self.functions.model.precise):
            finder = Finder(self.functions, self.batches_double, self.constants_double)
            return finder.gradient(self.center.position)

    @property
    def directions(self) -> np.ndarray | None:
        """(D, D) unit vectors of the parameters in whitened coordinates; None for the axes."""
        scale = self.center.scale
        if scale.ndim == 1:
            return None
        return scale / np.linalg.norm(scale, axis=1, keepdims=True)


class Measurements(NamedTuple):
    """What the choice of the settings rests on.

    Attributes
    ----------
    bench
        With the coordinates to sample in: of the mode, or of the pilot chains. None once the
        data have been laid out.
    noise
        Of single rows.
    steps
        The step size's own error.
    starts
        (P, D) positions of pilot chains, in the sampler's coordinates.
    recentred
        Whether the coordinates are those of the pilot chains.
    lost
        Fraction of the pilot chains that were lost at the smallest step size.
    """

    bench: Bench | None
    noise: RowNoise
    steps: Discretisation
    starts: np.ndarray
    recentred: bool
    lost: float


def measure(generator: np.random.Generator, bench: Bench, adapt: bool) -> Measurements:
    """Run pilot chains around the center, and measure the rows' noise at their draws.

    ``adapt`` says whether the coordinates may be changed to those of the pilot chains.
    """
    positions = gaussian_draws(generator, bench)
    chains = len(positions)
    for number in range(ROUNDS + 1):
        pilot, ends, track = _reference(generator, bench, positions)
        alive = ends[np.all(np.abs(ends) < LIMIT, axis=1)]
        positions = alive if len(alive) >= 8 else positions
        if not adapt or number == ROUNDS or not _is_far(pilot):
            break
        bench, positions = _recentre(bench, positions)
    pilots, positions = _others(generator, bench, track, positions, pilot)
    # As many whether or not some were lost: the noise is compiled once.
    chosen = positions[np.linspace(0, len(positions) - 1, chains).astype(int)]
    return Measurements(
        bench,
        _noise(bench, chosen),
        fit_discretisation(pilots, _independent(bench.directions)),
        positions * np.sqrt(bench.temperature),
        number > 0,
        pilot.diverged,
    )


def gaussian_draws(generator: np.random.Generator, bench: Bench) -> np.ndarray:
    """(P, D) draws of the Gaussian approximation at the center, in its coordinates."""
    dimension = len(bench.center.position)
    chains = 128 if dimension <= 64 else 64 if dimension <= 300 else 32
    draws = generator.standard_normal((chains, dimension))
    values, vectors = spectrum(bench.center)
    return draws if values is None else draws / np.sqrt(values) @ vectors.T


def _dtype() -> np.dtype:
    return jnp.result_type(float)


def _cast(tree, dtype):
    """NumPy arrays of floating-point numbers in the sampler's precision."""
    return jax.tree.map(lambda x: x.astype(dtype) if x.dtype == np.float64 else x, tree)


class _Track(NamedTuple):
    """Where pilot chains run: minibatches (or all rows) and what their gradients need."""

    batches: Batches
    anchor: Anchor | tuple
    whole: bool


def _track(bench: Bench) -> _Track:
    if bench.size <= WHOLE:
        return _Track(cut(bench.rows, 1), (), True)
    batches = head(set_up_batches(bench.rows), PILOT_ROWS)
    anchor = zero_anchor(bench.center, bench.gradient(), bench.temperature, _dtype())
    return _Track(batches, anchor, False)


def _reference(generator, bench, positions) -> tuple[Pilot, np.ndarray, _Track]:
    """The pilot with the largest of the reference step sizes at which no chain is lost."""
    track = _track(bench)
    for h in REFERENCES:
        pilot, ends = _pilot(generator, bench, track, positions, h)
        if pilot.diverged == 0:
            break
    return pilot, ends, track


def _others(generator, bench, track, positions, pilot) -> tuple[list[Pilot], np.ndarray]:
    """Pilots at larger steps until the error is large; at smaller ones where it is from the start.

    And the chains' positions after the smallest step size.
    """
    pilots = [pilot]
    if pilot.diverged > 0:
        return pilots, positions
    for h in LARGER:
        if h > pilot.step_size:
            pilots.append(_pilot(generator, bench, track, positions, h)[0])
            if pilots[-1].diverged > 0 or not is_in_range(pilot, pilots[-1]):
                break
    if len(pilots) == 2 and pilots[1].diverged == 0 and not is_in_range(*pilots):
        for _ in range(HALVINGS):
            smaller, ends = _pilot(generator, bench, track, positions, pilots[0].step_size / 2)
            if smaller.diverged > 0:
                break
            pilots.insert(0, smaller)
            positions = ends
            if is_in_range(*pilots[:2]):
                break
    return pilots, positions


def _independent(directions: np.ndarray | None) -> float | None:
    """How many independent unit vectors (Q, D) are worth: Q over the mean square of their cosines.

    None for the axes, which all are.
    """
    if directions is None:
        return None
    return len(directions) ** 2 / float(((directions @ directions.T) ** 2).sum())


def _pilot(
    generator, bench: Bench, track: _Track, positions, step_size: float
) -> tuple[Pilot, np.ndarray]:
    """Chains of some three relaxation times of burn-in and six or more that count."""
    center, dtype = bench.center, _dtype()
    values, _ = spectrum(center)
    stiffest = 1.0 if values is None else float(values.max())
    directions = bench.directions
    h = step_size / stiffest
    burn_in = min(max(4, round(3 / step_size)), BURN_IN)
    counted = min(max(30, round(6 / step_size)), STEPS)
    width = positions.shape[1] if directions is None else len(directions)
    chains = _cast(start_pilot(generator, positions, h, width), dtype)
    length = int(np.clip(MOST_NORMALS // positions.size, 1, BURN_IN))
    for done in range(0, burn_in + counted, length):
        fresh = generator.standard_normal((length, *positions.shape), dtype.type)
        chains = bench.functions.pilot(
            chains,
            fresh,
            generator.integers(0, num_batches(track.batches), length).astype(np.int32),
            dtype.type(h),
            np.int32(burn_in - done),
            np.int32(min(length, burn_in + counted - done)),
            _cast(center.position, dtype),
            _cast(center.scale, dtype),
            track.anchor,
            track.batches,
            bench.constants,
            None if directions is None else _cast(directions, dtype),
            LIMIT,
            bench.temperature,
            whole=track.whole,
        )
    return summarise_pilot(chains, counted, step_size), np.asarray(chains.positions, float)


def _noise(bench: Bench, positions: np.ndarray) -> RowNoise:
    """Noise of single rows at these positions, in double precision."""
    center, directions = bench.center, bench.directions
    dimension = len(center.position)
    total = min(NOISE_ROWS, NOISE_NUMBERS / dimension)
    block = max(FEWEST_ROWS, round(total / len(positions)))
    with jax.enable_x64(bench.functions.model.precise):
        measured = bench.functions.noise(
            jnp.asarray(center.position),
            jnp.asarray(center.scale),
            jnp.asarray(positions),
            bench.rows_double,
            bench.constants_double,
            None if directions is None else jnp.asarray(directions),
            bench.temperature,
            block=min(bench.size, block),
        )
        along = positions if directions is None else positions @ directions.T
        noise = summarise_noise(measured, along)
        return noise._replace(widening=_widening(bench, noise.coupling))


def _widening(bench: Bench, coupling: np.ndarray) -> np.ndarray | float:
    """Relative change of each variance for a shift of the mean by ``coupling``, from Hessians.

    The variance along d where the curvature changes from I to I + E is 1 - d E d to first order
    (docs/theory.md, B14): third derivatives tie the shift of one mean to the variances of all.
    """
    center, directions = bench.center, bench.directions
    if directions is None or center.hessian is None or not np.isfinite(coupling).all():
        return 0.0
    shift = np.linalg.solve(directions, coupling)
    length = np.linalg.norm(shift)
    if length == 0:
        return 0.0
    step = SHIFT / length * np.sqrt(bench.temperature) * center.scale @ shift
    used = min(num_batches(bench.batches_double), SHIFT_BATCHES)
    ahead, behind = (
        np.asarray(
            bench.functions.hessian(
                jnp.asarray(center.position + sign * step),
                bench.batches_double,
                bench.constants_double,
                used,
            ),
            float,
        )
        for sign in (1, -1)
    )
    along = center.scale @ directions.T  # a unit step along each parameter's direction
    change = np.einsum("dq,de,eq->q", along, ahead - behind, along) / (2 * SHIFT / length)
    return -change if np.isfinite(change).all() else 0.0


def _is_far(pilot: Pilot) -> bool:
    """Whether the posterior is far from the Gaussian that the coordinates were made for."""
    if pilot.diverged > 0.5 or not np.isfinite(pilot.variance).all():
        return False
    sd = np.sqrt(np.maximum(pilot.variance, 1e-12))
    wide = pilot.variance.max() > WIDE or pilot.variance.min() < NARROW
    return bool(wide or np.abs(pilot.mean / sd).max() > FAR)


def _recentre(bench: Bench, positions: np.ndarray) -> tuple[Bench, np.ndarray]:
    """Coordinates of the pilot chains' mean and covariance, and the positions in them.

    The covariance is shrunk towards its diagonal as if by D further draws.
    """
    center = bench.center
    count, dimension = positions.shape
    mean, covariance = positions.mean(0), np.cov(positions.T).reshape(dimension, dimension)
    diagonal = np.diag(np.diagonal(covariance))
    covariance = (count * covariance + dimension * diagonal) / (count + dimension)
    root = np.linalg.cholesky(covariance)
    dense = center.scale.ndim == 2
    old = center.scale if dense else np.diag(center.scale)
    tempered = np.sqrt(bench.temperature)
    position = center.position + tempered * old @ mean
    with jax.enable_x64(bench.functions.model.precise):
        batches = bench.batches_double
        hessian = bench.functions.hessian(
            jnp.asarray(position), batches, bench.constants_double, num_batches(batches)
        )
    new = center._replace(
        position=position,
        scale=old @ root,
        hessian=np.asarray(hessian),
        indefinite=dense_scale(hessian).indefinite,
        fitted=True,
    )
    positions = np.linalg.solve(root, (positions - mean).T).T
    return bench._replace(center=new), positions
