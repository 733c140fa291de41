"""Find the data among a model's arguments and the plates over its rows; check its sites."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from numpyro.infer import init_to_uniform

from sgworld_mcmc.model.arguments import ArgumentLayout, flatten_arguments, is_array
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.model.observed_values import observed_values
from sgworld_mcmc.model.plates import FullData, RowPlates
from sgworld_mcmc.model.slips import check_forgotten, explained
from sgworld_mcmc.model.traces import Site, trace_of, unconstrained

__all__ = ["minibatch_model"]


def minibatch_model(model: Callable, args: tuple, kwargs: dict) -> MinibatchModel:
    """Find the data among a model's arguments and make a :class:`MinibatchModel`.

    Raises
    ------
    ValueError
        If there is no observed site, a discrete latent site, a latent site inside the data plate,
        no array argument with the observations' leading axis, or several different ones.
    """
    leaves = flatten_arguments(model, args, kwargs)
    arrays = {name: leaf for name, leaf in leaves.items() if is_array(leaf)}
    empty = [f"{name} {leaf.shape}" for name, leaf in arrays.items() if leaf.size == 0]
    if empty:
        raise ValueError(f"These array arguments are empty: {', '.join(empty)}. There are no data.")
    lengths = {name: leaf.shape[0] for name, leaf in arrays.items() if leaf.ndim > 0}
    treedef = jax.tree.structure((args, kwargs))
    kinds = tuple("constant" if is_array(leaf) else "static" for leaf in leaves.values())
    statics = tuple(leaf for leaf in leaves.values() if not is_array(leaf))
    layout = ArgumentLayout(treedef, tuple(leaves), kinds, statics, 0)

    try:
        sites, prototype = _describe(FullData(model), layout, (), tuple(arrays.values()))
    except Exception as error:
        told = explained(error, model, args, kwargs, arrays)
        if told is not error:
            raise told from error
        listing = ", ".join(f"{name} {leaf.shape}" for name, leaf in arrays.items())
        others = [name for name, leaf in leaves.items() if not is_array(leaf)]
        error.add_note(
            f"The model failed on the arguments of run(...): arrays {listing or 'none'}; not "
            f"arrays: {others or 'none'}. Lists of numbers are not arrays: use jnp.asarray(...)."
        )
        raise
    check_forgotten(model, args, kwargs, sites)
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
        if site.kind == "latent" and inside:
            raise _latent_inside(name, f"the plate {sorted(inside)[0]!r}")
    if size > 1:
        _check_shapes(model, layout, plates, sites, args, kwargs)
    return MinibatchModel(model, layout, plates, sites, prototype)


def _describe(model: Callable, layout: ArgumentLayout, rows: tuple, constants: tuple) -> tuple:
    """Return the sites of a model and the unconstrained latents' shapes; nothing is computed."""
    sites = {}

    def run(rng_key, rows, constants):
        args, kwargs = layout.join(rows, constants)
        trace = trace_of(model, rng_key, init_to_uniform, args, kwargs)
        latents = {}
        for name, site in trace.items():
            if site["type"] not in ("sample", "deterministic"):
                continue
            kind, discrete = "deterministic", False
            if site["type"] == "sample":
                discrete = bool(getattr(site["fn"].support, "is_discrete", False))
                kind = "latent"
                if site["is_observed"]:
                    kind = "factor" if site["infer"].get("is_auxiliary") else "observed"
            plates = tuple((f.name, f.size) for f in site["cond_indep_stack"])
            values = (
                observed_values(name, site, (*rows, *constants)) if kind == "observed" else None
            )
            sites[name] = Site(kind, jnp.shape(site["value"]), discrete, plates, values)
            if kind == "latent" and not discrete:
                latents[name] = unconstrained(site)
        return latents

    try:
        prototype = jax.eval_shape(run, jax.random.key(0), rows, constants)
    except jax.errors.ConcretizationTypeError as error:
        raise ValueError(
            "The model computes a Python number or takes a decision from the values of an array "
            "argument, which minibatches cannot repeat. Compute it before the run and pass it as "
            "a Python argument (for instance num_groups=10). The cause: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return sites, prototype


def _check_sites(sites: dict[str, Site]) -> None:
    for name, site in sites.items():
        if site.kind == "latent" and site.discrete:
            raise ValueError(
                f"The latent site {name!r} is discrete; Langevin dynamics needs continuous ones. "
                "Sum it out of the likelihood, for instance with numpyro.distributions.Mixture."
            )
    if not any(site.kind in ("observed", "factor") for site in sites.values()):
        raise ValueError(
            "The model has no observed site, so there are no data to make minibatches of. Give "
            "the observations to a site: numpyro.sample('y', ..., obs=y), and pass y to run(...)."
        )
    if not any(site.kind == "latent" for site in sites.values()):
        raise ValueError("The model has no latent site: there is nothing to sample.")


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
        raise ValueError(
            f"No array argument has the leading axis of the observations {unmatched}: the "
            f"arguments' leading axes are {lengths or 'none'}. Pass the data as arguments of "
            "run(...), rows first; data that the model closes over cannot be minibatched."
        )
    if len(set(found.values())) > 1:
        raise ValueError(
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
        halves, _ = _describe(RowPlates(model, plates, count), layout, rows, constants)
    except Exception as error:
        names = [n for n, kind in zip(layout.names, layout.kinds, strict=True) if kind == "data"]
        raise ValueError(
            f"The model fails on {count} of its {layout.size} rows. The arguments {names} were "
            "cut to these rows, because their leading axis is that of the observations; if one of "
            "them is not data, bind it to the model with functools.partial. The cause: "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else error!r}"
        ) from error
    for name, site in sites.items():
        if site.kind == "latent" and (name not in halves or halves[name].shape != site.shape):
            raise _latent_inside(name, "the rows of the data (its shape follows their number)")


def _latent_inside(name: str, where: str) -> ValueError:
    return ValueError(
        f"The latent site {name!r} lies inside {where}: it has a value for each row, and a "
        "minibatch would see only some of them. Marginalise it, or sample this model with NUTS."
    )
