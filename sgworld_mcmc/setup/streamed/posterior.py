"""The posterior of rows of which a random part is in memory: streamed ones, or several hosts'."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.progress import stage
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel
from sgworld_mcmc.setup.compiled_functions import functions_of
from sgworld_mcmc.setup.coordinate_fit import CoordinateFit
from sgworld_mcmc.setup.coordinates_by_group import is_wanted as groups_are_wanted
from sgworld_mcmc.setup.coordinates_from_mode import set_up_feed
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.influential_rows import Look
from sgworld_mcmc.setup.posterior import Posterior
from sgworld_mcmc.setup.precision import Precision, precision_at
from sgworld_mcmc.setup.streamed.by_group import fit_streamed_by_group
from sgworld_mcmc.setup.streamed.part import Part
from sgworld_mcmc.setup.streamed.search import StreamedFit, fit_streamed
from sgworld_mcmc.setup.streamed.whole import BlockDerivatives, WholeData
from sgworld_mcmc.streaming.rows import Rows

__all__ = ["FoundPosterior", "find_by_group", "find_posterior_of_part", "posterior_of_part"]


class FoundPosterior(NamedTuple):
    """A posterior in the coordinates of its mode.

    Attributes
    ----------
    posterior
        The posterior; without coordinates where no mode was found.
    blocks
        Derivatives of the log density at the mode, from each block of the rows.
    rows, part
        All rows and those in memory, in the precision of the run.
    precision
        The precision of the run.
    look, problem, scattered
        Where single rows seem to matter, or None; why there is no mode; whether searches have ended
        in several places instead, as those of networks do.
    """

    posterior: Posterior
    blocks: BlockDerivatives
    rows: Rows
    part: Part
    precision: Precision
    look: Look | None = None
    problem: ValueError | None = None
    scattered: bool = False

    def with_mode(self) -> "FoundPosterior":
        """Return the same; raise a ValueError that says why if there is no mode."""
        if self.problem is not None:
            raise self.problem
        return self


def find_posterior_of_part(
    generator: np.random.Generator,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    initial: np.ndarray | None,
    read_again: Callable[[Rows, bool], tuple[Rows, Part]],
) -> FoundPosterior:
    """Search the mode of all rows, beginning with the part in memory.

    Parameters
    ----------
    rows, part
        All rows and a random part of them, in the user's precision.
    initial
        (S, D) points from which to search, or None.
    read_again
        Function of the rows and of a precision that returns rows and part in that precision.
    """
    user = bool(jax.config.jax_enable_x64)
    posterior, found = _searched(generator, checked, rows, part, settings, initial)
    if found.fit is None:
        precision, why = Precision(user), (found.look, found.problem, found.scattered)
        return FoundPosterior(posterior, found.blocks, rows, part, precision, *why)
    stage("coordinates")
    precision = precision_at(posterior.fit, checked, posterior.constants_double)
    if precision.double != user:
        # What was found for rounded rows is only a guess for the rows as they are.
        passes, guess = posterior.whole.passes, posterior.coordinates.center[None]
        rows, part = read_again(rows, precision.double)
        posterior, found = _searched(generator, checked, rows, part, settings, guess)
        posterior.whole.passes += passes
    why = found.look, found.problem, found.scattered
    return FoundPosterior(posterior, found.blocks, rows, part, precision, *why)


def find_by_group(
    seed: np.ndarray,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    initial: np.ndarray | None,
    read_again: Callable[[Rows, bool], tuple[Rows, Part]],
) -> FoundPosterior | None:
    """Return the posterior in coordinates by group; None if it has none, or they are not wanted.

    Up to DENSE_DIMENSION parameters a whole matrix knows more.

    Parameters
    ----------
    seed
        Integers that decide everything random here.
    rows, part, read_again
        As for :func:`find_posterior_of_part`.
    """
    view, user = checked.model, bool(jax.config.jax_enable_x64)
    if view.dimension <= DENSE_DIMENSION or not groups_are_wanted(settings):
        return None
    made = _searched_by_group(seed, checked, rows, part, settings, initial)
    if made is None:
        return None
    stage("coordinates")
    precision = precision_at(made[0].fit, checked, made[0].constants_double)
    if precision.double != user:
        passes, guess = made[0].whole.passes, made[0].coordinates.center[None]
        rows, part = read_again(rows, precision.double)
        made = _searched_by_group(seed, checked, rows, part, settings, guess)
        if made is None:
            return None
        made[0].whole.passes += passes
    return FoundPosterior(*made, rows, part, precision)


def _searched_by_group(
    seed: np.ndarray,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, BlockDerivatives | None] | None:
    posterior = posterior_of_part(checked, rows, part, settings, None)
    with jax.enable_x64(checked.model.precise):
        found = fit_streamed_by_group(
            seed,
            posterior.functions,
            posterior.feed_double,
            posterior.constants_double,
            initial,
            posterior.whole,
        )
    if found is None:
        return None
    return posterior._replace(fit=found.fit, structure=found.structure), found.blocks


def posterior_of_part(
    checked: CheckedModel, rows: Rows, part: Part, settings: Settings, fit: CoordinateFit | None
) -> Posterior:
    """Return the posterior of all rows, a part of which is in memory; ``fit`` may come later."""
    view = checked.model
    functions = functions_of(view, settings.init_strategy)
    constants = checked.constants(view.precise)
    with jax.enable_x64(view.precise):
        feed = set_up_feed(part.rows)
    return Posterior(
        functions,
        part.rows,
        checked.constants(rows.double),
        part.rows,
        constants,
        feed,
        fit,
        settings.temperature or 1.0,
        whole=WholeData(functions, rows, constants),
    )


def _searched(
    generator: np.random.Generator,
    checked: CheckedModel,
    rows: Rows,
    part: Part,
    settings: Settings,
    initial: np.ndarray | None,
) -> tuple[Posterior, StreamedFit]:
    posterior = posterior_of_part(checked, rows, part, settings, None)
    with jax.enable_x64(checked.model.precise):
        stage("searching the mode")
        found = fit_streamed(
            generator,
            posterior.functions,
            posterior.feed_double,
            posterior.constants_double,
            initial,
            settings,
            posterior.whole,
        )
    return posterior._replace(fit=found.fit), found
