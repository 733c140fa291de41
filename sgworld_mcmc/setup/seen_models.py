"""See a user's model through minibatches, or as a whole, and keep it from run to run.

Compiled functions belong to a model object (:attr:`MinibatchModel.kept`), so that the same one must
be found again for arguments of the same shapes. A model that took values from its arrays in Python
(:mod:`sgworld_mcmc.model.python_values`) serves only arrays that give the same values.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.data.contents import fingerprint
from sgworld_mcmc.model.additivity import make_evaluation
from sgworld_mcmc.model.arguments import flatten_arguments, is_array, signature_of
from sgworld_mcmc.model.convolutions import has_convolutions
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.inspection import minibatch_model, whole_data_model
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.precision import closes_over_numpy
from sgworld_mcmc.model.python_values import WithAnswers
from sgworld_mcmc.model.reverse_only import is_reverse_only

__all__ = ["see_model", "see_whole", "view_of"]


class _Seen(NamedTuple):
    """A model, and the arrays whose values are part of it (None if there are none)."""

    model: MinibatchModel
    values: tuple | None
    # JAX arrays are told apart by their identity, which holds as long as they live.
    arrays: tuple


def see_model(
    model: Callable, args: tuple, kwargs: dict, cache: dict, *, cut: bool, reason: str | None
) -> MinibatchModel:
    """Return the model of these arguments, the same object as before if it serves them.

    Parameters
    ----------
    cache
        Models seen before, by the signature of their arguments.
    cut
        Whether an error is raised if the model cannot be cut into minibatches; else it is seen as
        a whole.
    reason
        Why the model is seen as a whole, if that is known.
    """
    seen = cache.get(("model", _signature(args, kwargs)))
    if seen is not None and _serves(seen, model, args, kwargs, cut=cut, reason=reason):
        return seen.model
    if reason is None:
        try:
            made = minibatch_model(model, args, kwargs)
        except NotMinibatchable as error:
            if cut:
                raise
            made = whole_data_model(model, args, kwargs, str(error))
    else:
        made = whole_data_model(model, args, kwargs, reason)
    return _keep(made, seen, model, args, kwargs, cache)


def see_whole(
    model: Callable, args: tuple, kwargs: dict, cache: dict, reason: str
) -> MinibatchModel:
    """Return the model as a whole, after it has turned out that it cannot be cut."""
    cache.pop(("model", _signature(args, kwargs)), None)
    return see_model(model, args, kwargs, cache, cut=False, reason=reason)


def view_of(base: MinibatchModel, additive: frozenset[str]) -> MinibatchModel:
    """Return the model with the sites that are sums over rows, the same object each time."""
    place = "additive", additive
    if place not in base.kept:
        base.kept[place] = base.with_additive(additive)
    return base.kept[place]


def _keep(made, seen, model, args, kwargs, cache) -> MinibatchModel:
    """Keep a new model, or the one before if it was made from the same values."""
    answers = made.model.key if isinstance(made.model, WithAnswers) else None
    held = any(map(is_array, made.layout.statics))
    values, arrays = None, ()
    if held or answers is not None:
        arrays = _arrays(model, args, kwargs)
        values = _values(arrays)
        same = seen is not None and isinstance(seen.model.model, WithAnswers) and not held
        if same and seen.model.model.key == answers and seen.model.layout == made.layout:
            made = seen.model
    if not hasattr(made, "evaluate"):
        # Weights that stay fixed are numbers in the precision in which a module has made them.
        fixed = any(site.kind == "fixed" for site in made.sites.values())
        made.precise = not held and not fixed and _may_be_precise(made, args, kwargs)
        with jax.enable_x64(made.precise):  # that of the set-up: the trace is used again
            trace = jax.make_jaxpr(made.log_density)(*_abstract(made, args, kwargs))
        made.use_modes(reverse_only=is_reverse_only(trace))
        made.convolves = has_convolutions(trace)
        made.evaluate = make_evaluation(made)
    jax_arrays = tuple(x for x in arrays if isinstance(x, jax.Array))
    cache["model", _signature(args, kwargs)] = _Seen(made, values, jax_arrays)
    return made


def _serves(
    seen: _Seen, model: Callable, args: tuple, kwargs: dict, *, cut: bool, reason: str | None
) -> bool:
    """Return whether a model seen before is of the wanted kind, and made from the same values."""
    whole = seen.model.reason is not None
    if reason is not None and not whole:
        return False
    if reason is None and cut and whole:
        # It is looked at anew: the error says why it cannot be cut, if these data do not allow it.
        return False
    return seen.values is None or seen.values == _values(_arrays(model, args, kwargs))


def _arrays(model: Callable, args: tuple, kwargs: dict) -> tuple:
    return tuple(x for x in flatten_arguments(model, args, kwargs).values() if is_array(x))


def _values(arrays: tuple) -> tuple:
    """Return what tells the arrays' contents apart."""
    prints = fingerprint(dict(enumerate(arrays)))
    return tuple(id(x) if value is None else value for x, value in zip(arrays, prints, strict=True))


def _signature(args: tuple, kwargs: dict) -> tuple[Any, bool]:
    return signature_of(args, kwargs), bool(jax.config.jax_enable_x64)


def _may_be_precise(view: MinibatchModel, args: tuple, kwargs: dict) -> bool:
    """Return whether the set-up may use double precision: always if the user does."""
    if jax.config.jax_enable_x64:
        return True
    if closes_over_numpy(view.model, view.untraced, *_abstract(view, args, kwargs)):
        return False
    with jax.enable_x64(True):
        try:
            jax.eval_shape(view.log_density, *_abstract(view, args, kwargs))
        except TypeError:
            # Functions such as convolutions do not take parameters in double precision together
            # with data in single.
            return False
    return True


def _abstract(view: MinibatchModel, args: tuple, kwargs: dict) -> tuple:
    """Return the shapes and types of a position and of the model's data and constants."""
    abstract = lambda x: jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))  # noqa: E731
    data, constants = jax.tree.map(abstract, view.layout.split(args, kwargs))
    return jax.ShapeDtypeStruct((view.dimension,), jnp.result_type(float)), data, constants
