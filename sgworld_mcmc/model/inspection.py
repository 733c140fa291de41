"""Find the data among a model's arguments and the plates over its rows; check its sites.

A model that cannot be cut into minibatches is seen as one whose single batch is all rows.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform

from sgworld_mcmc.model.arguments import (
    ArgumentLayout,
    WholeLayout,
    flatten_arguments,
    is_array,
)
from sgworld_mcmc.model.enumeration import check_enumerable
from sgworld_mcmc.model.errors import NotMinibatchable
from sgworld_mcmc.model.idle_keys import without_idle_keys
from sgworld_mcmc.model.index_range import index_reads
from sgworld_mcmc.model.module_state import module_sites
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.observed_values import observed_values
from sgworld_mcmc.model.plates import FullData, RowPlates
from sgworld_mcmc.model.python_values import QUESTIONS, find_answers
from sgworld_mcmc.model.random_parts import RANDOM, AskedForKey
from sgworld_mcmc.model.slips import check_forgotten, explained
from sgworld_mcmc.model.traces import Site, is_circular, trace_of, unconstrained

__all__ = ["minibatch_model", "whole_data_model"]

# A message names no more sites than this.
MOST_NAMED = 3


def minibatch_model(model: Callable, args: tuple, kwargs: dict) -> MinibatchModel:
    """Find the data among a model's arguments and make a :class:`MinibatchModel`.

    Raises
    ------
    NotMinibatchable
        If the model works on all rows only: if there is a latent site inside the data plate, no
        array argument with the observations' leading axis, or several different ones.
    ValueError
        If there is no observed site, or a discrete latent site.
    """
    layout, arrays = _layout(model, args, kwargs)
    lengths = {name: leaf.shape[0] for name, leaf in arrays.items() if leaf.ndim > 0}
    given = model
    try:
        model, sites, prototype, trace = _traced(model, layout, tuple(arrays.values()))
    except Exception as error:
        try:
            _describe(FullData(model), *_with_values(layout, arrays))
        except Exception:
            told = explained(error, model, args, kwargs, arrays)
            if told is not error:
                raise told from error
            raise _failed(error, layout, arrays) from None
        raise NotMinibatchable(
            "The model needs the values of its array arguments in Python, in a way that "
            "minibatches cannot repeat. Compute it before the run and pass it as a Python argument "
            f"(for instance num_groups=10). The cause: {_first_line(error)}"
        ) from error
    check_forgotten(given, args, kwargs, sites)
    _check_sites(sites)
    size = _number_of_rows(sites, lengths)
    kinds = tuple(
        "data" if kind == "constant" and lengths.get(name) == size else kind
        for name, kind in zip(layout.names, layout.kinds, strict=True)
    )
    layout = layout._replace(kinds=kinds, size=size)
    plates = frozenset(
        name for site in sites.values() for name, length in site.plates if length == size
    )
    for name, site in sites.items():
        inside = plates & {plate for plate, _ in site.plates}
        if site.kind == "latent" and inside and not site.discrete:
            raise _latent_inside(name, f"the plate {sorted(inside)[0]!r}")
    if size > 1:
        _check_shapes(model, layout, plates, sites, args, kwargs)
    made = MinibatchModel(model, layout, plates, sites, prototype)
    made.indices = index_reads(trace, first=1)
    return without_idle_keys(made, args, kwargs)


def whole_data_model(model: Callable, args: tuple, kwargs: dict, reason: str) -> MinibatchModel:
    """Make a model whose only batch stands for all rows.

    The arrays are arguments of compiled programs, unless the model needs their values in Python:
    then they are part of the programs.

    Parameters
    ----------
    reason
        Why the model cannot be cut into minibatches.
    """
    layout, arrays = _layout(model, args, kwargs)
    whole = WholeLayout(*layout._replace(size=1))
    try:
        model, sites, prototype, trace = _traced(model, whole, tuple(arrays.values()))
    except Exception:
        layout, *nothing = _with_values(layout, arrays)
        whole = WholeLayout(*layout._replace(size=1))
        sites, prototype, trace = _describe(FullData(model), whole, *nothing)
    _check_sites(sites)
    observed = [site.shape[0] for site in sites.values() if site.kind == "observed" and site.shape]
    made = MinibatchModel(model, whole, frozenset(), sites, prototype)
    made.num_rows, made.reason = max(observed, default=1), reason
    made.indices = index_reads(trace, first=1)
    return without_idle_keys(made, args, kwargs)


def _layout(model: Callable, args: tuple, kwargs: dict) -> tuple[ArgumentLayout, dict]:
    """Return a layout that takes all arrays for constants, and the arrays by name."""
    leaves = flatten_arguments(model, args, kwargs)
    arrays = {name: leaf for name, leaf in leaves.items() if is_array(leaf)}
    empty = [f"{name} {leaf.shape}" for name, leaf in arrays.items() if leaf.size == 0]
    if empty:
        raise ValueError(f"These array arguments are empty: {', '.join(empty)}. There are no data.")
    treedef = jax.tree.structure((args, kwargs))
    kinds = tuple("constant" if is_array(leaf) else "static" for leaf in leaves.values())
    statics = tuple(leaf for leaf in leaves.values() if not is_array(leaf))
    return ArgumentLayout(treedef, tuple(leaves), kinds, statics, 0), arrays


def _with_values(layout: ArgumentLayout, arrays: dict) -> tuple[ArgumentLayout, tuple, tuple]:
    """Return a layout that holds the arrays themselves, and no rows and no constants."""
    statics = iter(layout.statics)
    every = [arrays.get(n) if k == "constant" else next(statics) for n, k in layout.named_kinds()]
    kinds = ("static",) * len(layout.kinds)
    return layout._replace(kinds=kinds, statics=tuple(every)), (), ()


def _traced(model: Callable, layout: ArgumentLayout, arrays: tuple) -> tuple:
    """Return the model, with answers to what it asks of the arrays, and what describes it."""
    try:
        return model, *_describe(FullData(model), layout, (), arrays)
    except QUESTIONS:

        def run(model, rng_key, arrays):
            trace_of(FullData(model), rng_key, init_to_uniform, *layout.join((), arrays))

        answered = find_answers(run, model, arrays)
        if answered is None:
            raise
        return answered, *_describe(FullData(answered), layout, (), arrays)


def _failed(error: Exception, layout: ArgumentLayout, arrays: dict) -> Exception:
    """Return the model's own error, with a note of the arguments that it was given."""
    listing = ", ".join(f"{name} {leaf.dtype} {leaf.shape}" for name, leaf in arrays.items())
    others = [name for name, kind in layout.named_kinds() if kind == "static"]
    error.add_note(
        f"The model failed on the arguments of run(...): arrays {listing or 'none'}; not "
        f"arrays: {others or 'none'}. Lists of numbers are not arrays: use jnp.asarray(...)."
    )
    return error


def _first_line(error: Exception) -> str:
    text = str(error)
    return f"{type(error).__name__}: {text.splitlines()[0] if text else error!r}"


def _describe(model: Callable, layout: ArgumentLayout, rows: tuple, constants: tuple) -> tuple:
    """Return a model's sites, its unconstrained latents' shapes and its trace.

    Nothing is computed. The trace's first input is the key.
    """
    sites = {}

    def run(rng_key, rows, constants):
        args, kwargs = layout.join(rows, constants)
        watched = AskedForKey(model)
        trace = trace_of(watched, rng_key, init_to_uniform, args, kwargs)
        if watched.asked:
            sites[RANDOM] = Site("random", (), False, ())
        latents = {}
        for name, site in trace.items():
            if site["type"] not in ("sample", "deterministic"):
                continue
            kind, discrete, enumerable = "deterministic", False, False
            if site["type"] == "sample":
                discrete = bool(getattr(site["fn"].support, "is_discrete", False))
                enumerable = discrete and bool(site["fn"].has_enumerate_support)
                kind = "latent"
                if site["is_observed"]:
                    kind = "factor" if site["infer"].get("is_auxiliary") else "observed"
            plates = tuple((f.name, f.size) for f in site["cond_indep_stack"])
            nesting = max((-f.dim for f in site["cond_indep_stack"]), default=0)
            shape, values = jnp.shape(site["value"]), None
            circular = kind == "latent" and is_circular(site)
            if kind == "observed" and not rows:
                values = observed_values(name, site, (*rows, *constants))
            sites[name] = Site(kind, shape, discrete, plates, enumerable, nesting, values, circular)
            if kind == "latent" and not discrete:
                latents[name] = unconstrained(site)
        sites.update(module_sites(trace, list(latents)))
        return latents

    made = jax.make_jaxpr(run, return_shape=True)
    trace, prototype = made(jax.random.key(0), rows, constants)
    return sites, prototype, trace


def _check_sites(sites: dict[str, Site]) -> None:
    discrete = {n: s for n, s in sites.items() if s.kind == "latent" and s.discrete}
    if discrete:
        check_enumerable(list(discrete), all(site.enumerable for site in discrete.values()))
    if not any(site.kind in ("observed", "factor") for site in sites.values()):
        raise ValueError(
            "The model has no observed site, so there are no data to make minibatches of. Give "
            "the observations to a site: numpyro.sample('y', ..., obs=y), and pass y to run(...)."
        )
    if not any(site.kind == "latent" and not site.discrete for site in sites.values()):
        kind = "continuous latent site" if discrete else "latent site"
        fixed = [name for name, site in sites.items() if site.kind == "fixed"]
        cure = ""
        if fixed:
            cure = (
                f" The weights {fixed[:MOST_NAMED]} have no prior: the keys of a dict of priors "
                "must be what follows the module's name in them."
            )
        raise ValueError(f"The model has no {kind}: there is nothing to sample.{cure}")


def _number_of_rows(sites: dict[str, Site], lengths: dict[str, int]) -> int:
    """Return N, the leading axis that observed sites share with array arguments."""
    found, unmatched = {}, {}
    for name, site in sites.items():
        if site.kind != "observed":
            continue
        candidates = [*site.shape[:1], *(size for _, size in site.plates)]
        matches = [size for size in candidates if size in lengths.values()]
        if matches:
            found[name] = matches[0]
        else:
            unmatched[name] = site.shape
    if not found and not unmatched:  # the likelihood is a numpyro.factor
        found = {f"argument {name}": length for name, length in lengths.items()}
    if not found:
        raise NotMinibatchable(
            f"No array argument has the leading axis of the observations {_some(unmatched)}: the "
            f"arguments' leading axes are {lengths or 'none'}. Pass the data as arguments of "
            "run(...), rows first; data that the model closes over cannot be minibatched."
        )
    if len(set(found.values())) > 1:
        raise NotMinibatchable(
            f"The observed sites have different numbers of rows: {found}. Minibatches need one "
            "common leading axis. Bind the smaller arrays to the model with functools.partial, "
            "so that they are used whole in every step."
        )
    return next(iter(found.values()))


def _check_shapes(model, layout, plates, sites, args, kwargs) -> None:
    """Raise unless latent sites keep their shape when the model sees half of the rows."""
    count = layout.size // 2
    data, constants = layout.split(args, kwargs)
    kind = jax.dtypes.canonicalize_dtype
    rows = tuple(jax.ShapeDtypeStruct((count, *x.shape[1:]), kind(x.dtype)) for x in data)
    try:
        halves, *_ = _describe(RowPlates(model, plates, count), layout, rows, constants)
    except Exception as error:
        names = [n for n, kind in zip(layout.names, layout.kinds, strict=True) if kind == "data"]
        raise NotMinibatchable(
            f"The model fails on {count} of its {layout.size} rows. The arguments {names} were "
            "cut to these rows, because their leading axis is that of the observations; if one of "
            "them is not data, bind it to the model with functools.partial. The cause: "
            f"{_first_line(error)}"
        ) from error
    for name, site in sites.items():
        if (
            site.kind == "latent"
            and not site.discrete
            and (name not in halves or halves[name].shape != site.shape)
        ):
            raise _latent_inside(name, "the rows of the data (its shape follows their number)")


def _latent_inside(name: str, where: str) -> NotMinibatchable:
    return NotMinibatchable(
        f"The latent site {name!r} lies inside {where}: it has a value for each row, and a "
        "minibatch would see only some of them. Marginalise it for minibatches."
    )


def _some(shapes: dict[str, tuple]) -> str:
    """Return the first shapes of many in words: a loop of sites has one for each row."""
    named = [f"{name!r} {shape}" for name, shape in shapes.items()]
    more = len(named) - MOST_NAMED
    return ", ".join(named[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
