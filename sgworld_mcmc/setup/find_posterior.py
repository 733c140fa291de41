"""The posterior of rows in memory, in coordinates at its mode or by group."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.data.fixed_partition import FixedPartition
from sgworld_mcmc.data.in_memory import first_batches, generator_of, head, is_large
from sgworld_mcmc.device_layout import Layout, layout_of
from sgworld_mcmc.model.additivity import check_minibatching
from sgworld_mcmc.progress import stage
from sgworld_mcmc.protocols import Coordinates
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.batch_noise import compile_ahead
from sgworld_mcmc.setup.checked_model import MANY_NUMBERS, CheckedModel, check_gradient
from sgworld_mcmc.setup.compiled_functions import SetUpFunctions, functions_of
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_by_group import fit_by_group, is_wanted
from sgworld_mcmc.setup.coordinates_from_mode import (
    coordinates_at,
    fit_coordinates,
    set_up_feed,
)
from sgworld_mcmc.setup.groups import Structure, find_structure
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.precision import Precision, precision_at
from sgworld_mcmc.setup.run_batches import BY_GROUP
from sgworld_mcmc.setup.without_mode.plan import is_wanted as kinetic_is_wanted

__all__ = ["find_posterior"]

# Groups are looked for on this many rows first, if rows times parameters exceed MANY_NUMBERS.
FIRST_ROWS = 512


def find_posterior(
    generator: np.random.Generator,
    seed: np.ndarray,
    checked: CheckedModel,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, Precision] | None:
    """Return the posterior in the coordinates of its mode, and the precision of the run.

    None is returned if the mode is not to be searched.

    Parameters
    ----------
    seed
        Integers that begin random numbers of their own where groups are looked for.
    initial
        (S, D) points from which to search, or None.
    """
    view, user = checked.model, bool(jax.config.jax_enable_x64)
    large, precise = is_large(view.size), view.precise
    layout = layout_of(settings.devices, settings.data_shards)
    search = _Search(generator, seed, checked, settings, checked.constants(precise), layout, user)
    # Set-up and run each have a copy of few rows. Many rows are copied once, as the run will most
    # likely read them: the set-up only adds them up in double precision.
    rows_double = checked.rows(user if large else precise)
    found = search.on(rows_double, initial)
    if found.fit is None:
        return None
    stage("coordinates")
    precision = precision_at(found.fit, checked, search.constants)
    double = precision.double
    rows = rows_double if large and double == user else checked.rows(double)
    if large and double != user:
        rows_double = rows
        # What was found for rounded rows is only a guess for the rows as they are.
        found = search.on(rows, found.fit.coordinates.center[None])
    posterior = Posterior(
        functions_of(view, settings.init_strategy),
        rows,
        checked.constants(double),
        rows_double,
        search.constants,
        found.feed,
        found.fit,
        settings.temperature or 1.0,
        found.structure,
        strata=settings.data_shards,
        layout=layout,
    )
    return posterior, precision


class _Found(NamedTuple):
    """The rows in batches of the set-up, and coordinates; no coordinates if there is no mode."""

    feed: FixedPartition
    fit: CoordinateFit | None
    structure: Structure | None = None


class _Search(NamedTuple):
    """A search for a mode. Its ``constants`` are in the precision of the set-up.

    ``user`` says whether the user's own precision is double.
    """

    generator: np.random.Generator
    seed: np.ndarray
    checked: CheckedModel
    settings: Settings
    constants: tuple
    layout: Layout | None
    user: bool

    @property
    def functions(self) -> SetUpFunctions:
        """The compiled functions of the model."""
        return functions_of(self.checked.model, self.settings.init_strategy)

    @property
    def group_generator(self) -> np.random.Generator:
        """The random numbers with which groups are looked for, from their beginning."""
        return generator_of(np.append(self.seed, BY_GROUP))

    def on(self, rows: tuple, initial: np.ndarray | None) -> _Found:
        """Search on these rows, beginning at the (S, D) initial points if there are any."""
        view, settings = self.checked.model, self.settings
        with jax.enable_x64(view.precise):
            stage("searching the mode")
            feed = set_up_feed(rows, settings.data_shards, self.layout)
            if self._may_have_groups(feed):
                found = fit_by_group(
                    self.group_generator,
                    self.functions,
                    feed,
                    self.constants,
                    initial,
                    self._compile_ahead,
                )
                if found is not None:
                    return _Found(feed, *found)
            # A mode of a density with random parts would be one of their average.
            if view.random or kinetic_is_wanted(settings, view):
                return _Found(feed, None)
            return _Found(feed, self._at_mode(feed, rows, initial))

    def _may_have_groups(self, feed: FixedPartition) -> bool:
        view = self.checked.model
        if not is_wanted(self.settings) or view.reason is not None or view.random:
            return False
        # Each candidate costs a pass over all rows: of many numbers a part is looked at first.
        if view.size * view.dimension < MANY_NUMBERS or feed.num_batches == 1:
            return True
        part = head(first_batches(feed, 1), FIRST_ROWS)
        found = find_structure(self.group_generator, self.functions, part, self.constants)
        return found is not None

    def _compile_ahead(self, coordinates: Coordinates) -> None:
        """Begin to compile what measures batches by group, in the user's precision."""
        checked, user = self.checked, self.user
        with jax.enable_x64(user):
            compile_ahead(self.functions, coordinates, checked.part, checked.constants(user))

    def _at_mode(
        self, feed: FixedPartition, rows: tuple, initial: np.ndarray | None
    ) -> CoordinateFit | None:
        view, settings = self.checked.model, self.settings
        check_gradient(settings.gradient, view.dimension)
        find = coordinates_at if settings.start == "given" else fit_coordinates
        fit = find(self.generator, self.functions, feed, self.constants, initial, settings)
        if is_large(view.size) and fit is not None and not fit.converged:
            # Only a part of many rows was checked: elsewhere the density may be infinite.
            check_minibatching(view, view.evaluate, rows, self.constants)
        return fit
