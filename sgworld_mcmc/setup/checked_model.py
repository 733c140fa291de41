"""Check a user's model and its arguments, and put the rows of the data in random order."""

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.checks import check_integer
from sgworld_mcmc.coordinates.dense import Dense
from sgworld_mcmc.data.contents import examine, fingerprint
from sgworld_mcmc.data.in_memory import PART_ROWS, is_large, random_order, take_rows
from sgworld_mcmc.members import GRADIENTS
from sgworld_mcmc.model.additivity import check_minibatching
from sgworld_mcmc.model.arguments import flatten_arguments, is_array
from sgworld_mcmc.model.errors import NotMinibatchable, WholeDataWarning, whole_data_note
from sgworld_mcmc.model.index_range import check_indices
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.observed_values import check_observed
from sgworld_mcmc.model.user_functions import check_functions
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.seen_models import see_model, see_whole, view_of

__all__ = [
    "MANY_NUMBERS",
    "CheckedModel",
    "Contents",
    "arrays_of",
    "check_gradient",
    "check_model",
    "check_settings",
    "contents_of",
    "warn_of",
]

# A model is evaluated on this many rows only, if rows times parameters exceed MANY_NUMBERS.
FIRST_ROWS, MANY_NUMBERS = 4096, 2**30
# Whether a model copes with gaps in its data is looked at from so many points.
GAP_POINTS = 3
# One fingerprint for each array among the arguments; None for a JAX array, which cannot change.
Contents = tuple[int | None, ...]


class CheckedModel(NamedTuple):
    """A model seen through minibatches, and its data.

    Attributes
    ----------
    model
        The model, which knows the sites that are sums over rows.
    part
        The rows that were checked, in random order and in the precision of the set-up: all of them,
        or if they are many a part.
    data, others
        The user's arrays: those with N rows, and the constants.
    order
        (N,) the random order of the rows.
    contents
        Fingerprints of the arguments, from :func:`sgworld_mcmc.data.contents.examine`.
    """

    model: MinibatchModel
    part: tuple
    data: tuple
    others: tuple
    order: np.ndarray
    contents: Contents

    def rows(self, double: bool) -> tuple:
        """Return the data leaves in random order, in double precision or in single."""
        if double == self.model.precise and not is_large(self.model.size):
            return self.part
        count_rows(self.model.size)
        with jax.enable_x64(double):
            return take_rows(self.data, self.order)

    def constants(self, double: bool) -> tuple:
        """Return the constants in double precision or in single."""
        with jax.enable_x64(double):
            return jax.tree.map(from_numpy, self.others)


def check_model(
    generator: np.random.Generator,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    cache: dict,
    additive: frozenset[str] | None = None,
    reason: str | None = None,
) -> CheckedModel:
    """Check a model and its arguments, and deal the rows at random.

    Parameters
    ----------
    cache
        Models seen before, by the signature of their arguments.
    additive
        The sites that are sums over rows, if a plan says which they are; None to find them out.
    reason
        Why the model is seen as a whole, if a plan says so.

    Raises
    ------
    ValueError, TypeError
        If a site or an argument cannot be sampled, or a function of the draws fails; the message
        names it and the cure.
    """
    cut, state = settings.batch_size is not None, generator.bit_generator.state
    base = see_model(model, args, kwargs, cache, cut=cut, reason=reason)
    check_settings(base, settings)
    data, constants = base.layout.split(args, kwargs)
    functions = {"quantities": settings.quantities, "keep": settings.keep}
    check_functions(base, data, constants, **functions)
    with ThreadPoolExecutor(1) as helper:
        # To look at millions of rows takes about as long as to put their numbers in random order.
        order = helper.submit(random_order, generator, base.size, settings.data_shards)
        contents = _examined(base, model, args, kwargs)
        observed = {name: site.values for name, site in base.sites.items() if site.values}
        arrays = arrays_of(model, args, kwargs)
        check_observed(observed, arrays)
        check_indices(base.indices, arrays)
        order = order.result()
    with jax.enable_x64(base.precise):
        some = order[:PART_ROWS] if is_large(base.size) else order
        part, whole = take_rows(data, some), jax.tree.map(from_numpy, constants)
        count_rows(len(some))
        if additive is None:
            try:
                some = _first_of_many(base, part)
                given = data if len(jax.tree.leaves(some)[0]) == base.size else None
                additive = check_minibatching(base, base.evaluate, some, whole, given=given)
            except NotMinibatchable as error:
                problem = str(error)
                if cut:
                    raise
    if additive is None:
        see_whole(model, args, kwargs, cache, problem)
        # The same key gives the same draws, whether or not the model has been seen before.
        generator.bit_generator.state = state
        return check_model(generator, model, settings, args, kwargs, cache)
    return CheckedModel(view_of(base, additive), part, data, constants, order, contents)


def warn_of(view: MinibatchModel, stacklevel: int) -> None:
    """Warn of what a user may not expect: no minibatches, or sites not sampled or not kept."""
    if view.reason is not None:
        warnings.warn(
            whole_data_note(view.num_rows, view.reason),
            WholeDataWarning,
            stacklevel=stacklevel + 1,
        )
    fixed = [name for name, site in view.sites.items() if site.kind == "fixed"]
    if fixed:
        warnings.warn(
            f"The parameters {fixed} have no prior: they are not sampled, and keep the values that "
            "the model gives them (initial ones, or those of a handler). To sample them give them "
            "one, with random_flax_module, random_nnx_module or random_eqx_module in place of "
            "flax_module, nnx_module or eqx_module.",
            stacklevel=stacklevel + 1,
        )
    circular = [name for name, site in view.sites.items() if site.circular]
    if circular:
        warnings.warn(
            f"The angles {circular} are cut open at -pi and pi, and no chain passes from one end "
            "to the other: a posterior across the cut is sampled on one side only. Use "
            f"numpyro.handlers.reparam(config={{{circular[0]!r}: CircularReparam()}}), where "
            "CircularReparam is that of numpyro.infer.reparam, or measure angles from elsewhere.",
            stacklevel=stacklevel + 1,
        )
    if view.left_out():
        warnings.warn(
            f"The deterministic sites {view.left_out()} have a value for each of "
            f"{view.num_rows} rows and are left out of the draws. Compute them afterwards with "
            "numpyro.infer.Predictive.",
            stacklevel=stacklevel + 1,
        )


def _first_of_many(base: MinibatchModel, part: tuple) -> tuple:
    """Return the rows on which the model is evaluated: a part, which are random ones, tells it."""
    if base.size * base.dimension < MANY_NUMBERS:
        return part
    return jax.tree.map(lambda x: x[:FIRST_ROWS], part)


def _examined(base: MinibatchModel, model: Callable, args: tuple, kwargs: dict) -> Contents:
    """Return the fingerprints of all arrays; raise if numbers that the model needs are not finite.

    A model may look for the gaps itself: it masks such rows, or has latent values in their place.
    """
    arrays = arrays_of(model, args, kwargs)
    count_rows(_most_rows(arrays))
    try:
        return examine(arrays)
    except ValueError:
        if not _copes_with_gaps(base, *base.layout.split(args, kwargs)):
            raise
    return fingerprint(arrays)


def _copes_with_gaps(base: MinibatchModel, data: tuple, constants: tuple) -> bool:
    """Return whether log density and gradient are finite although numbers in the data are not."""
    if is_large(base.size):
        bad = np.zeros(base.size, bool)
        for x in jax.tree.leaves(data):
            if np.issubdtype(x.dtype, np.inexact):
                bad |= ~np.isfinite(np.asarray(x)).reshape(len(x), -1).all(axis=1)
        data = take_rows(data, np.flatnonzero(bad)[:PART_ROWS])
    points = np.random.default_rng(0).standard_normal((GAP_POINTS, base.dimension)) / 10
    with jax.enable_x64(base.precise):
        rows, whole = jax.tree.map(from_numpy, (data, constants))
        found = jax.jit(jax.value_and_grad(base.log_density))
        values = [found(from_numpy(point), rows, whole) for point in points]
    return any(np.isfinite(value) and np.isfinite(slope).all() for value, slope in values)


def contents_of(model: Callable, args: tuple, kwargs: dict) -> Contents:
    """Return the fingerprints: those of :func:`check_model` if the arguments have not changed."""
    arrays = arrays_of(model, args, kwargs)
    count_rows(_most_rows({n: x for n, x in arrays.items() if isinstance(x, np.ndarray)}))
    return fingerprint(arrays)


def check_gradient(name: str | None, dimension: int) -> None:
    """Raise if a kind of gradient needs a Hessian that has too many numbers.

    That of a model whose latents go by group has few: this is called where there are no groups.
    """
    kind = GRADIENTS.get(name)
    if kind is not None and kind.needs > 1 and dimension > DENSE_DIMENSION:
        raise ValueError(
            f"`gradient` {name!r} needs the whole Hessian, which is made for up to "
            f"{DENSE_DIMENSION} dimensions, and above if most parameters go by group; the model "
            f"has {dimension}, and no groups were found. Use 'control_variate' or 'auto'."
        )


def arrays_of(model: Callable, args: tuple, kwargs: dict) -> dict[str, Any]:
    """Return the arrays among a model's arguments, by readable name."""
    leaves = flatten_arguments(model, args, kwargs)
    return {name: leaf for name, leaf in leaves.items() if is_array(leaf)}


def _most_rows(arrays: dict[str, Any]) -> int:
    return max((len(x) for x in arrays.values() if np.ndim(x)), default=0)


def check_settings(model: MinibatchModel, settings: Settings) -> None:
    """Raise if settings do not fit the model: a batch size, or a preconditioner's kind or shape."""
    if settings.batch_size is not None:
        check_integer("batch_size", settings.batch_size, 1, model.size)
    array, dimension = settings.covariance, model.dimension
    if array is None and settings.coordinates is Dense and dimension > DENSE_DIMENSION:
        raise ValueError(
            f"`preconditioner` 'dense' needs the whole Hessian, which is made for up to "
            f"{DENSE_DIMENSION} dimensions; the model has {dimension}. Use 'diagonal' or 'auto', "
            "or give an estimate of the posterior covariance."
        )
    if array is None:
        return
    if np.shape(array) not in ((dimension,), (dimension, dimension)):
        raise ValueError(
            f"`preconditioner` has shape {np.shape(array)}; the unconstrained position has "
            f"{dimension} coordinates {model.scalar_names()[:8]}..., so ({dimension},) or "
            f"({dimension}, {dimension}) is needed."
        )
    array = np.asarray(array, float)
    values = array if array.ndim == 1 else np.linalg.eigvalsh((array + array.T) / 2)
    if not np.all(np.isfinite(array)) or values.min() <= 0:
        raise ValueError("`preconditioner` must be a positive definite covariance estimate.")
