"""Find the mode of streamed rows: on a part in memory first, then with few passes over all rows."""

from types import SimpleNamespace
from typing import NamedTuple

import numpy as np

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.progress import stage
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_from_mode import CONVERGED
from sgworld_mcmc.setup.curvature import dense_scale
from sgworld_mcmc.setup.few_products import FewProducts
from sgworld_mcmc.setup.groups import find_structure
from sgworld_mcmc.setup.growing_search import GrownMode, grow, part_sizes
from sgworld_mcmc.setup.influential_rows import Look, decided_by_rows, look_about
from sgworld_mcmc.setup.mode_search import ROUNDS, ModeSearch, finite_loss
from sgworld_mcmc.setup.one_pass import Expansion
from sgworld_mcmc.setup.other_modes import distances_of, find_modes, heaviest
from sgworld_mcmc.setup.search_ends import (
    are_scattered,
    distances_of_others,
    may_be_hierarchy,
)
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives, NotFinite, WholeData
from sgworld_mcmc.setup.wanted_coordinates import coordinates_of

__all__ = ["PROBES", "StreamedFit", "fit_streamed"]

# Hessians of the blocks are looked at along this many random vectors.
PROBES = 8
NO_MODE = (
    "No mode with a positive definite Hessian was found, which a run on streamed rows needs: Newton"
    " steps on a part of the rows lead nowhere, or those on all rows do not end. Reparametrise the "
    "model, or run it on as many rows as fit in memory (`stream=False`, with a random part of the "
    "rows)."
)


class _Value(NamedTuple):
    """What a search reports of a point: minus the log density over N, and its gradient."""

    loss: np.ndarray
    gradient: np.ndarray


class StreamedFit(NamedTuple):
    """What a search has found.

    Attributes
    ----------
    fit
        The coordinates of the mode; None where none was found.
    blocks
        Derivatives of the log density at the mode, from each block of the rows.
    look
        Where single rows seem to matter, or None.
    problem
        Why there is no fit, an exception.
    scattered
        Whether searches on the part have ended in several places, none of which is a mode, as those
        of networks do.
    """

    fit: CoordinateFit | None
    blocks: BlockDerivatives | None
    look: Look | None = None
    problem: ValueError | None = None
    scattered: bool = False


class StreamedSearch:
    """The steps of :mod:`sgworld_mcmc.setup.growing_search` where only a part is in memory.

    Numbers of batches up to those of the part are rows of the part; more stand for all rows.
    """

    def __init__(self, part: ModeSearch, whole: WholeData, generator: np.random.Generator) -> None:
        self.part, self.whole, self._generator = part, whole, generator
        self.functions, self.dimension = part.functions, part.dimension
        each = part.feed.size / part.feed.num_batches
        count = max(part.feed.num_batches + 1, round(whole.rows.size / each))
        self.feed = SimpleNamespace(num_batches=count)
        self.blocks, self.vectors, self.look = None, None, None
        self.problem = ValueError(NO_MODE)

    @property
    def shared(self) -> np.ndarray | None:
        """Places (s,) of the parameters that go by no grouping; None without groups."""
        return None if self.whole.few is None else self.whole.few.shared

    def expand(self, position, used: int, about: Coordinates | None = None) -> Expansion:
        """Return log density, gradient and Hessian of a part, or of all rows.

        Slopes of all rows ``about`` a point are looked at on the way.
        """
        if used <= self.part.feed.num_batches:
            made = self.part.expand(position, used)
            self.hessian = made.hessian
            return made
        stage("gradient and Hessian of all rows")
        # Draws of about the posterior, as far as the part knows it.
        signs = self._generator.standard_normal((PROBES, self.dimension))
        values, axes = np.linalg.eigh(self.hessian)
        self.vectors = signs / np.sqrt(np.maximum(values, values.max() * 1e-12)) @ axes.T
        look = None if about is None else look_about(about, self.shared)
        try:
            found, self.blocks = self.whole.expansion(position, self.vectors, look)
        except NotFinite as problem:
            if about is None:
                raise
            # What is impossible may be a group that the part has none of.
            self.look, self.problem = look._replace(tangents=None), problem
            nothing = np.full((self.dimension, self.dimension), np.nan)
            return Expansion(np.asarray(np.nan), nothing[0], nothing)
        decided = () if look is None else decided_by_rows(found.powers)
        # Single rows are looked for about a point that a part of the rows knows.
        self.look = look if decided else None
        if decided and self.whole.few is None:  # the rows did not keep to their groups
            self.look = look._replace(tangents=None)
        return found

    def evaluate(self, position, used: int) -> _Value:
        """Return the loss of all rows and its gradient."""
        stage("gradient of all rows")
        try:
            value, slope = self.whole.gradient(position)
        except NotFinite as problem:
            # Rows of which the part has none alike may be impossible at its mode.
            about = dense_scale(self.hessian).about(position)
            self.look, self.problem = look_about(about), problem
            value, slope = np.nan, np.full(self.dimension, np.nan)
        size = self.whole.rows.size
        precision = np.float64 if self.functions.model.precise else np.float32
        return _Value(np.asarray(-value / size, precision), -slope / size)

    def stand_in(self, position: np.ndarray, slope: np.ndarray) -> np.ndarray:
        """Return the mode of the part, tilted so that its gradient at a point is that of all rows.

        Rows that are in every batch are in the part as they are: what a quadratic does not know of
        them is exact (the surrogate likelihood of Jordan, Lee and Yang, 2019,
        doi.org/10.1080/01621459.2018.1429274).
        """
        count = self.part.feed.num_batches
        tilt = slope - self.part.expand(position, count).gradient
        end, *_ = self.part._replace(tilt=tilt).refine(position, count, ROUNDS)
        return np.asarray(end.position, float)


def fit_streamed(
    generator: np.random.Generator,
    functions: SetUpFunctions,
    feed: FixedPartition,
    constants: tuple,
    initial: np.ndarray | None,
    settings: Settings,
    whole: WholeData,
) -> StreamedFit:
    """Find the mode of all rows and the curvature there, from two passes over them if possible.

    Parameters
    ----------
    feed
        A random part of the rows, in batches of the set-up.
    initial
        (S, D) points from which to search, or None.
    whole
        All rows.

    Returns
    -------
    StreamedFit
        Without coordinates if there is no mode with a positive definite Hessian.
    """
    few = FewProducts.of(
        find_structure(generator, functions, feed, constants), functions.model.dimension
    )
    search, whole.few = ModeSearch(functions, feed, constants, generator, few=few), few
    both = StreamedSearch(search, whole, generator)
    if settings.start == "given":
        return _at_given(search, both, initial, settings)
    points = search.initial_points() if initial is None else initial
    found = search.modes(np.asarray(points, float))
    best = found[int(np.argmin([finite_loss(each) for each in found]))]
    modes = find_modes(search, np.asarray(points, float), found, further=initial is None)
    if modes:
        best = heaviest(modes).end
    count = feed.num_batches
    sizes = sorted({*part_sizes(count * 8)[:-1], count} if count > 1 else {1})
    sizes = [n for n in sizes if n <= count]
    grown = grow(both, np.asarray(best.position), sizes, both.stand_in)
    if grown is None:
        last, _, scaled = search.finish(best.position)
        grown = grow(both, np.asarray(last.position), [count], both.stand_in)
    if grown is None:
        several = are_scattered(search, found, best, scaled.coordinates, rising=True)
        several &= not may_be_hierarchy(search, np.asarray(points[0], float), settings)
        return StreamedFit(None, both.blocks, both.look, both.problem, scattered=several)
    fit = _fit_of(settings, grown)
    look = None
    if grown.decided:
        names = functions.model.scalar_names()
        fit = fit._replace(decided=tuple(names[number] for number in grown.decided))
        look = look_about(fit.coordinates, both.shared)
    copies = whole.rows.size / feed.size
    if modes:
        others = distances_of(search, modes, heaviest(modes), fit.coordinates, copies)
    else:
        others = distances_of_others(search, found, best, fit.coordinates, copies)
    fit = fit._replace(other_modes=others)
    return StreamedFit(fit, both.blocks, look)


def _at_given(search, both: StreamedSearch, points: np.ndarray, settings: Settings):
    """Return coordinates about the most probable of the given points."""
    count = search.feed.num_batches
    losses = [finite_loss(search.evaluate(x, count)) for x in np.asarray(points, float)]
    center = np.asarray(points[int(np.argmin(losses))], float)
    search_hessian = both.expand(center, count).hessian
    here = both.expand(center, both.feed.num_batches)
    scaled = dense_scale(here.hessian if np.isfinite(here.hessian).all() else search_hessian)
    grown = GrownMode(center, 0.0, here.gradient, here.hessian, scaled)
    fit = _fit_of(settings, grown)._replace(fitted=True, converged=True)
    return StreamedFit(fit, both.blocks)


def _fit_of(settings: Settings, grown: GrownMode) -> CoordinateFit:
    center, gain, gradient, hessian, scaled, _ = grown
    return CoordinateFit(
        coordinates_of(settings, center, scaled, hessian),
        np.asarray(hessian),
        bool(gain < CONVERGED),
        gain,
        scaled.indefinite,
        (),
        gradient=np.asarray(gradient),
    )
