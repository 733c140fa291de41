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
# Draws for it, in all and for each chain: what the tails do only draws there tell.
NOISE_DRAWS, MOST_ENDS = 256, 4
# Step sizes: the first at which no chain is lost is the reference for the larger ones.
REFERENCES = (1 / 8, 1 / 32, 1 / 128)
# It is doubled as long as the error is small, and at most to one.
# Further halvings of the reference where the error of twice its step is too large to learn from.
HALVINGS = 2
# A posterior this much wider, narrower or farther from the center than the Gaussian there, in
# standard deviations along some parameter, is given new coordinates.
WIDE, NARROW, FAR = 2.0, 0.4, 0.8
ROUNDS = 6
# Hessians at so many draws make a mean curvature: so many numbers in all, within limits.
CURVATURE_NUMBERS, CURVATURE_DRAWS = 3200, (4, 32)
LIMIT = 1e3
FEWEST_CHAINS = 8
# Shift, in posterior standard deviations, at which the curvature is looked at, on so many batches.
SHIFT, SHIFT_BATCHES = 0.3, 4
# At most so many steps, and so many random numbers at a time; more steps where the posterior is
# wide in these coordinates, by at most so many times.
BURN_IN, STEPS, MOST_NORMALS = 100, 200, 2**22
SLOWEST = 10.0


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
        pilots, ends, track = _reference(generator, bench, positions)
        positions = ends if len(ends) >= FEWEST_CHAINS else positions
        if not adapt or number == ROUNDS or not _is_far(pilots, bench.center):
            break
        lost = len(pilots) > 1 or bench.center.by_curvature
        bench, positions = _recentre(bench, positions, lost)
    pilots, ends = _others(generator, bench, track, positions, pilots)
    steps = fit_discretisation(pilots, _independent(bench.directions))
    if bench.center.by_curvature:
        bench = _with_width(bench, steps.spread)
        steps = steps._replace(largest=min(steps.largest, 1 / bench.center.stiffness))
    # As many whether or not some were lost: the noise is compiled once.
    draws, count = np.concatenate(ends), min(NOISE_DRAWS, MOST_ENDS * chains)
    chosen = draws[np.linspace(0, len(draws) - 1, count).astype(int)]
    return Measurements(
        bench,
        _noise(bench, chosen),
        steps,
        ends[0] * np.sqrt(bench.temperature),
        number > 0,
        min(pilot.diverged for pilot in pilots),
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


def _reference(generator, bench, positions) -> tuple[list[Pilot], np.ndarray, _Track]:
    """Pilots from the largest reference step size down to the first at which no chain is lost.

    And where the chains of the last ended.
    """
    track, pilots = _track(bench), []
    for h in REFERENCES:
        pilot, ends = _pilot(generator, bench, track, positions, h)
        pilots.insert(0, pilot)
        if pilot.diverged == 0:
            break
    return pilots, ends, track


def _others(generator, bench, track, positions, tried) -> tuple[list[Pilot], list[np.ndarray]]:
    """Pilots at larger steps until the error is large; at smaller ones where it is from the start.

    And where the chains ended of all whose error is small, the smallest step size first.
    """
    (pilot, *lost), pilots, ends = tried, tried, [positions]
    if pilot.diverged > 0:
        return pilots, ends
    h, most = pilot.step_size, min((p.step_size for p in lost), default=2.0)
    near = True
    while near and 2 * h < most:
        h *= 2
        larger, end = _pilot(generator, bench, track, positions, h)
        near = larger.diverged == 0 and is_in_range(pilot, larger)
        pilots, ends = [*pilots, larger], [*ends, end] if near else ends
    if near or larger.diverged > 0 or len(ends) > 1:
        return pilots, ends
    for _ in range(HALVINGS):
        smaller, end = _pilot(generator, bench, track, ends[0], pilot.step_size / 2)
        if smaller.diverged > 0:
            break
        pilots, ends, near = [smaller, *pilots], [end, *ends], is_in_range(smaller, pilot)
        pilot = smaller
        if near:
            break
    return pilots, ends


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
    """Chains of some three relaxation times of burn-in and six or more that count.

    And where those ended that were not lost.
    """
    center, dtype = bench.center, _dtype()
    values, _ = spectrum(center)
    stiffest = 1.0 if values is None else float(values.max())
    directions = bench.directions
    h = step_size / stiffest
    slow = min(center.width, SLOWEST)
    burn_in = round(slow * min(max(4, round(3 / step_size)), BURN_IN))
    counted = round(slow * min(max(30, round(6 / step_size)), STEPS))
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
    # A lost chain has stopped far out, at the limit or where the gradient explodes.
    ends = np.asarray(chains.positions, float)[np.asarray(chains.alive)]
    return summarise_pilot(chains, counted, step_size), ends


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


def _is_far(pilots: list[Pilot], center: Center) -> bool:
    """Whether the posterior is far from the Gaussian that the coordinates were made for.

    Or too stiff for them. In those of the mean curvature it may be wide, not narrow: draws are as
    far apart as the width asks for.
    """
    pilot = pilots[0]
    if pilot.diverged > 0.5 or not np.isfinite(pilot.variance).all():
        return False
    sd = np.sqrt(np.maximum(pilot.variance, 1e-12))
    wide = pilot.variance.max() > WIDE or (center.fitted and len(pilots) > 1)
    narrow = pilot.variance.min() < NARROW
    far = np.abs(pilot.mean / sd).max() > FAR
    return bool(far or narrow or (wide and not center.by_curvature))


def _recentre(bench: Bench, positions: np.ndarray, by_curvature: bool) -> tuple[Bench, np.ndarray]:
    """Coordinates of the pilot chains' mean and covariance, and the positions in them.

    ``by_curvature``: of the mean curvature instead, whose inverse is the best preconditioner of
    Langevin steps (Titsias, NeurIPS 2023). A banana is stiff across and its covariance is that of
    its whole length: steps that do not lose chains are tiny in coordinates made of that.
    """
    center = bench.center
    old = center.scale if center.scale.ndim == 2 else np.diag(center.scale)
    tempered = np.sqrt(bench.temperature)
    mean = positions.mean(0)
    position = center.position + tempered * old @ mean
    hessian = _hessian(bench, position)
    scale, stiffness = old @ _root(positions), 1.0
    if by_curvature:
        # At draws from one batch of rows: all would cost as much as many searches for the mode.
        count = int(np.clip(CURVATURE_NUMBERS // len(mean), *CURVATURE_DRAWS))
        chosen = positions[np.linspace(0, len(positions) - 1, count).astype(int)]
        rest = hessian - _hessian(bench, position, 1)
        local = [rest + _hessian(bench, center.position + tempered * old @ z, 1) for z in chosen]
        scaled = dense_scale(np.mean(local, 0))
        by_curvature = scaled.indefinite == 0
        if by_curvature:
            scale = scaled.scale
            stiffness = max(np.linalg.eigvalsh(scale.T @ each @ scale)[-1] for each in local)
    new = center._replace(
        position=position,
        scale=scale,
        hessian=hessian,
        indefinite=dense_scale(hessian).indefinite,
        fitted=True,
        by_curvature=by_curvature,
        stiffness=max(1.0, float(stiffness)),
    )
    positions = np.linalg.solve(scale, old @ (positions - mean).T).T
    bench = bench._replace(center=new)
    return _with_width(bench, (positions @ bench.directions.T).var(0)), positions


def _with_width(bench: Bench, variance: np.ndarray) -> Bench:
    center = bench.center
    width = float(np.nanmax([1.0, *variance])) if center.by_curvature else 1.0
    return bench._replace(center=center._replace(width=width))


def _root(positions: np.ndarray) -> np.ndarray:
    """Of their covariance, shrunk towards its diagonal as if by D further draws."""
    count, dimension = positions.shape
    covariance = np.cov(positions.T).reshape(dimension, dimension)
    diagonal = np.diag(np.diagonal(covariance))
    return np.linalg.cholesky((count * covariance + dimension * diagonal) / (count + dimension))


def _hessian(bench: Bench, position: np.ndarray, used: int | None = None) -> np.ndarray:
    """(D, D) of the potential of all rows, from the first ``used`` of the set-up's batches."""
    batches = bench.batches_double
    with jax.enable_x64(bench.functions.model.precise):
        hessian = bench.functions.hessian(
            jnp.asarray(position),
            batches,
            bench.constants_double,
            num_batches(batches) if used is None else used,
        )
    return np.asarray(hessian, float)
