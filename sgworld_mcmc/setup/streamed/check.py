"""Check a user's model whose rows are streamed, and read a random part of them."""

import copy
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.data.contents import examine
from sgworld_mcmc.members import ORDERS
from sgworld_mcmc.model.additivity import check_minibatching
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.index_range import check_indices
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.observed_values import check_observed
from sgworld_mcmc.model.python_values import WithAnswers
from sgworld_mcmc.model.random_parts import depends_on_first
from sgworld_mcmc.model.user_functions import check_functions
from sgworld_mcmc.settings import Settings
from sgworld_mcmc.setup.checked_model import CheckedModel, arrays_of, check_settings
from sgworld_mcmc.setup.curvature import DENSE_DIMENSION
from sgworld_mcmc.setup.seen_models import see_model, view_of
from sgworld_mcmc.setup.streamed.part import Part, read_part
from sgworld_mcmc.setup.without_mode.plan import is_wanted
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import StreamedArray

__all__ = ["check_streamed", "keeps_pieces", "streamed_settings", "too_many_parameters"]


def streamed_settings(settings: Settings) -> Settings:
    """Return the settings with the order of streamed rows; raise if they cannot be streamed.

    Raises
    ------
    ValueError
        If a setting needs all rows in memory; the message names it.
    """
    if settings.any_order:  # until it is known whether neighbouring rows are alike
        settings = replace(settings, order=ORDERS["examples"]())
    name = settings.order.name
    problem = None
    if settings.order.period == 0:
        problem = (
            "SGLD draws batches with replacement, each from all rows, which takes as many reads "
            "from random places of the disk; batches of a chunk in memory would not be "
            "independent. Use SGWORLD"
        )
    elif name not in ("batches", "examples"):
        problem = f"`order` {name!r} goes back over the same rows: use 'examples' or 'batches'"
    elif settings.record_moments:
        problem = "`record_moments` needs epochs in memory: leave it out"
    if problem:
        raise ValueError(f"The rows are streamed, since they do not fit in memory. {problem}.")
    return settings


def too_many_parameters(dimension: int) -> ValueError:
    """Return the error of a model with so many parameters that nothing is known to do about."""
    return ValueError(
        f"The model has {dimension} parameters and its rows are streamed, since they do not fit in "
        f"memory: more than {DENSE_DIMENSION} that do not go by one grouping are sampled by "
        "kinetic dynamics with plain gradients, on one host only. Leave out the settings that ask "
        "for others (`dynamics`, `gradient`, `step_size`, `preconditioner`), or run it on as many "
        "rows as fit, with `stream=False`."
    )


def keeps_pieces(settings: Settings) -> bool:
    """Return whether it has to be known how much neighbouring rows are alike."""
    return settings.any_order or not settings.order.redeals


def check_streamed(
    generator: np.random.Generator,
    model: Callable,
    settings: Settings,
    args: tuple,
    kwargs: dict,
    cache: dict,
    opened: Callable = Rows,
) -> tuple[CheckedModel, Rows, Part]:
    """Check a model and its arguments without reading more than a part of the rows.

    ``opened(leaves, double)`` makes the rows; by default they are streamed.

    Raises
    ------
    ValueError, TypeError
        If the model cannot be cut into minibatches or cannot be sampled; the message says why.
    """
    shapes = jax.tree.map(_abstract, (args, kwargs))
    try:
        base = see_model(model, *shapes, cache, cut=True, reason=None)
    except NotMinibatchable as error:
        raise _not_cut(error) from error
    if isinstance(base.model, WithAnswers):
        raise _not_cut(
            "the model takes values from its array arguments in Python. Compute them before the "
            "run and pass them as Python arguments (for instance num_groups=10)"
        )
    data, constants = base.layout.split(args, kwargs)
    constants = tuple(_whole(x) for x in constants)
    rows = _rows_of(data, bool(jax.config.jax_enable_x64), opened)
    check_settings(base, settings)
    large = base.dimension > DENSE_DIMENSION
    if large and opened is not Rows:
        raise too_many_parameters(base.dimension)
    if base.random:
        raise ValueError(
            "The model draws random numbers, and its rows are streamed, since they do not fit in "
            "memory: dropout and augmentation need `stream=False`."
        )
    base = _without_rowwise(base, data, constants)
    contents = examine(arrays_of(model, args, kwargs))
    check_functions(base, data, constants, keep=settings.keep)
    if opened is Rows:
        keep = keeps_pieces(settings) or large or is_wanted(settings, base)
        part = read_part(generator, rows, keep_pieces=keep)
    else:
        part = rows.part()
    observed = {name: site.values for name, site in base.sites.items() if site.values}
    some = _with_part(base, args, kwargs, part.rows)
    arrays = arrays_of(model, *some)
    check_observed(observed, arrays)
    check_indices(base.indices, arrays)
    with jax.enable_x64(base.precise):
        whole = jax.tree.map(np.asarray, constants)
        try:
            additive = check_minibatching(base, base.evaluate, part.rows, whole)
        except NotMinibatchable as error:
            raise _not_cut(error) from error
    view = view_of(base, additive)
    order = np.zeros(0, np.int64)  # the rows have no order in memory
    return CheckedModel(view, part.rows, data, constants, order, contents), rows, part


def _abstract(leaf: Any) -> Any:
    """Return an array of the same shape and type that takes no memory, for a streamed array."""
    if not isinstance(leaf, StreamedArray):
        return leaf
    return np.broadcast_to(np.zeros((), leaf.dtype), leaf.shape)


def _whole(leaf: Any) -> Any:
    return leaf.source.whole()[leaf.column] if isinstance(leaf, StreamedArray) else leaf


def _rows_of(data: tuple, double: bool, opened: Callable) -> Rows:
    here = [x for x in data if not isinstance(x, StreamedArray)]
    if here:
        raise ValueError(
            f"The observations have {len(here[0])} rows, and the streamed arguments others: pass "
            "the observations and all that belongs to them as arrays of one length."
        )
    return opened(data, double)


def _not_cut(problem: object) -> ValueError:
    return ValueError(
        "The rows are streamed, since they do not fit in memory, and a model that is streamed "
        f"must be cut into minibatches, which this one cannot be: {problem}"
    )


def _with_part(base: MinibatchModel, args: tuple, kwargs: dict, rows: tuple) -> tuple:
    """Return the arguments with the rows of the part in place of the data."""
    leaves, treedef = jax.tree.flatten((args, kwargs))
    given = iter(rows)
    made = [
        np.asarray(next(given)) if kind == "data" else _whole(leaf)
        for leaf, kind in zip(leaves, base.layout.kinds, strict=True)
    ]
    return jax.tree.unflatten(treedef, made)


def _without_rowwise(base: MinibatchModel, data: tuple, constants: tuple) -> MinibatchModel:
    """Return the model without deterministic sites that depend on the rows, and warn of them."""
    if not base.deterministics:
        return base
    if "rowwise" not in base.kept:
        base.kept["rowwise"] = _rowwise(base, data, constants)
    names, other = base.kept["rowwise"]
    if names:
        warnings.warn(
            f"The deterministic sites {names} depend on the rows, which are streamed, and are left "
            "out of the draws. Compute them afterwards with numpyro.infer.Predictive, for the rows "
            "that matter.",
            stacklevel=2,
        )
    return other


def _rowwise(base: MinibatchModel, data: tuple, constants: tuple) -> tuple[list, MinibatchModel]:
    """Return the names of the deterministic sites that depend on the rows, and what is left."""
    kind = jax.dtypes.canonicalize_dtype
    abstract = lambda x, shape: jax.ShapeDtypeStruct(shape, kind(x.dtype))  # noqa: E731
    rows = tuple(abstract(x, (2, *x.shape[1:])) for x in data)
    constants = jax.tree.map(lambda x: abstract(x, np.shape(x)), constants)
    real = jax.numpy.result_type(float)
    params = {name: jax.ShapeDtypeStruct(base.shapes[name], real) for name in base.latents}

    def depends(name: str, place: int) -> bool:
        def value(one, others, params, constants):
            every = (*others[:place], one, *others[place:])
            return base.constrain(params, every, constants)[name]

        others = rows[:place] + rows[place + 1 :]
        return depends_on_first(value, rows[place], others, params, constants)

    kept = [name for name in base.deterministics if name not in base.left_out()]
    names = [name for name in kept if any(depends(name, i) for i in range(len(rows)))]
    if not names:
        return names, base
    other = copy.copy(base)
    other.sites = {name: site for name, site in base.sites.items() if name not in names}
    other._remember()
    return names, other
