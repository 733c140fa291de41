"""A NumPyro model seen through minibatches of its data.

:func:`minibatch_model` finds out, from one abstract evaluation, which arguments are data, which
plates run over them, and whether the model can be minibatched at all; the result evaluates the
log density of any set of rows as a prior part and a part that is a sum over rows.
"""

import copy
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.distributions.util import sum_rightmost
from numpyro.infer import init_to_uniform
from numpyro.primitives import Messenger

from sgworld_mcmc.model.arguments import ArgumentLayout, flatten_arguments, is_array

__all__ = ["FullData", "MinibatchModel", "Site", "minibatch_model"]

# Deterministic sites with one value a row are kept up to this many values a draw: 1000 draws of
# more would fill a gigabyte.
MAX_DETERMINISTIC = 250_000


class Site(NamedTuple):
    """What a trace says of a site, without its values."""

    kind: str  # "latent", "observed", "factor" or "deterministic"
    shape: tuple[int, ...]
    discrete: bool
    plates: tuple[tuple[str, int], ...]  # names and sizes


class RowPlates(Messenger):
    """Make the data plates cover exactly the rows that the model was given.

    ``plates`` are their names. A plate that says ``subsample_size`` becomes a full one over
    the rows (any other subsampled plate becomes full, as in :class:`FullData`). A plate whose size
    is written into the model, as in ``plate("N", 1000)``, is cut to the rows; the scale that
    NumPyro derives from it is recorded in ``scales``, to be undone.
    """

    def __init__(self, fn: Callable, plates: frozenset[str], rows: int) -> None:
        super().__init__(fn)
        self.plates, self.rows, self.scales = plates, rows, {}

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "plate" and msg["name"] in self.plates:
            size = msg["args"][0]
            msg["args"] = (size, self.rows)
            msg["value"] = jnp.arange(self.rows)
            if size != self.rows:
                self.scales[msg["name"]] = size / self.rows
        elif msg["type"] == "plate":
            _make_full(msg)
        elif msg["type"] == "subsample":
            # The rows are already the minibatch. Without event_dim the plate leaves them alone.
            msg["kwargs"] = {**msg["kwargs"], "event_dim": None}


class FullData(Messenger):
    """A model with every subsampled plate made full: what it says of all rows.

    A Messenger, so that ``numpyro.infer.log_likelihood``, ``Predictive`` and ArviZ can call it
    like the model itself.
    """

    def process_message(self, msg: dict) -> None:
        if msg["type"] == "plate":
            _make_full(msg)


def _make_full(msg: dict) -> None:
    size, subsample_size = msg["args"]
    if subsample_size not in (None, size):
        msg["args"], msg["value"] = (size, size), jnp.arange(size)


class MinibatchModel:
    """The log density of a NumPyro model on any rows of its data.

    Attributes
    ----------
    layout
        :class:`~sgworld_mcmc.model.arguments.ArgumentLayout` of the arguments; its ``size`` is N.
    plates
        Names of the plates over the rows.
    latents
        Names of the latent sites, sorted: the order of the flat position.
    additive
        Names of the sites whose log density is a sum over rows: set by
        :func:`sgworld_mcmc.model.additivity.check_minibatching`. All others belong to the prior.
    shapes
        Unconstrained shape of each latent site.
    precise
        Whether it may be evaluated in double precision whatever the user's is.
    dimension
        D, the length of the flat unconstrained position.
    kept
        What others have compiled for this model, kept as long as the model.
    """

    def __init__(
        self,
        model: Callable,
        layout: ArgumentLayout,
        plates: frozenset[str],
        sites: dict[str, Site],
        prototype: dict[str, jax.ShapeDtypeStruct],
    ) -> None:
        self.model, self.layout, self.plates, self.sites = model, layout, plates, sites
        self.additive = frozenset(n for n, s in sites.items() if s.kind == "observed")
        self.latents = tuple(sorted(prototype))
        self.shapes = {name: prototype[name].shape for name in self.latents}
        self.precise = False
        self.dimension = sum(int(np.prod(shape)) for shape in self.shapes.values())
        self._remember()

    def _remember(self) -> None:
        # NumPyro's handlers take some 50 ms to trace: once for each shape of the arguments.
        self._traced = jax.jit(self.untraced, inline=True)
        self.kept: dict[Any, Any] = {}

    def with_additive(self, additive: frozenset[str]) -> "MinibatchModel":
        """The same model with the sites named whose log density is a sum over rows."""
        other = copy.copy(self)
        other.additive = additive
        other._remember()
        return other

    @property
    def size(self) -> int:
        """N, the number of rows."""
        return self.layout.size

    @property
    def deterministics(self) -> tuple[str, ...]:
        """Names of the deterministic sites."""
        return tuple(n for n, s in self.sites.items() if s.kind == "deterministic")

    def unravel(self, flat: jax.Array) -> dict[str, jax.Array]:
        """The unconstrained sites of a flat position (D,)."""
        result, start = {}, 0
        for name in self.latents:
            stop = start + int(np.prod(self.shapes[name]))
            result[name] = flat[start:stop].reshape(self.shapes[name])
            start = stop
        return result

    def ravel(self, params: dict[str, jax.Array]) -> jax.Array:
        """The flat position (D,) of unconstrained sites."""
        return ravel_pytree({name: params[name] for name in self.latents})[0]

    def scalar_names(self) -> list[str]:
        """A name for each of the D unconstrained coordinates: ``beta[3]``."""
        names = []
        for site in self.latents:
            for index in np.ndindex(*self.shapes[site]):
                names.append(site + (f"[{','.join(map(str, index))}]" if index else ""))
        return names

    def check_params(
        self, params: dict[str, Any], leading: tuple[int, ...] | None, name: str
    ) -> None:
        """Raise unless ``params`` has just the latent sites, with ``leading`` + their shapes.

        ``leading`` None allows for any one common leading axis, or none.
        """
        if not isinstance(params, dict):
            raise TypeError(
                f"`{name}` must be a dict of unconstrained values by site, not {type(params)}."
            )
        unknown, missing = sorted(set(params) - set(self.latents)), set(self.latents) - set(params)
        if unknown or missing:
            raise ValueError(
                f"`{name}` must name the latent sites {list(self.latents)}: "
                + (f"unknown {unknown}" if unknown else f"missing {sorted(missing)}")
                + ". Values are unconstrained, as in numpyro.infer.MCMC.run."
            )
        if leading is None:
            first = self.latents[0]
            extra = np.ndim(params[first]) - len(self.shapes[first])
            leading = np.shape(params[first])[:1] if extra == 1 else ()
        for site in self.latents:
            if np.shape(params[site]) != leading + self.shapes[site]:
                raise ValueError(
                    f"`{name}[{site!r}]` has shape {np.shape(params[site])}, expected "
                    f"{leading + self.shapes[site]}" + (" (chains first)." if leading else ".")
                )

    def log_densities(
        self, params: dict[str, jax.Array], rows: tuple, constants: tuple, *, total: bool = True
    ) -> dict[str, jax.Array]:
        """Log density of every sample site given these rows, Jacobians included, unscaled.

        Parameters
        ----------
        params
            Unconstrained values by site.
        rows, constants
            Data leaves, any number of rows; constant leaves.
        total
            Sum each site's log density to a scalar (default).
        """
        _, terms = self._evaluate(params, rows, constants)
        return {name: jnp.sum(term) for name, term in terms.items()} if total else terms

    def log_density(self, flat: jax.Array, rows: tuple, constants: tuple) -> jax.Array:
        """Log prior + N / n * the log likelihood of n rows: an estimate from a minibatch.

        A mean over the rows, as :mod:`sgworld_mcmc.gradients.weighting` asks for.
        """
        return self._traced(flat, rows, constants)

    def untraced(self, flat: jax.Array, rows: tuple, constants: tuple) -> jax.Array:
        """The same, calling the user's model whenever it is called."""
        terms = self.log_densities(self.unravel(flat), rows, constants)
        count = jax.tree.leaves(rows)[0].shape[0]
        prior = sum(v for name, v in terms.items() if name not in self.additive)
        return prior + (self.size / count) * sum(terms[name] for name in self.additive)

    def constrain(
        self, params: dict[str, jax.Array], data: tuple, constants: tuple
    ) -> dict[str, jax.Array]:
        """Constrained latents and deterministic sites, evaluated on all rows."""
        trace, _ = self._evaluate(params, data, constants)
        keep = [*self.latents, *(n for n in self.deterministics if self._is_kept(n))]
        return {name: trace[name]["value"] for name in keep}

    def left_out(self) -> list[str]:
        """Deterministic sites with a value a row, too large to be kept for every draw."""
        return [name for name in self.deterministics if not self._is_kept(name)]

    def _is_kept(self, name: str) -> bool:
        shape = self.sites[name].shape
        return self.size not in shape or int(np.prod(shape)) <= MAX_DETERMINISTIC

    def initial_params(
        self, rng_key: jax.Array, strategy: Callable, rows: tuple, constants: tuple
    ) -> dict[str, jax.Array]:
        """One unconstrained starting point from a NumPyro initialisation strategy."""
        model = RowPlates(self.model, self.plates, jax.tree.leaves(rows)[0].shape[0])
        args, kwargs = self.layout.join(rows, constants)
        trace = _trace(model, rng_key, strategy, args, kwargs)
        return {name: _unconstrained(trace[name]) for name in self.latents}

    def _evaluate(self, params: dict, rows: tuple, constants: tuple) -> tuple[dict, dict]:
        log_dets = {}

        def value_of(site: dict):
            if site["type"] != "sample" or site["is_observed"]:
                return None
            name, support = site["name"], site["fn"].support
            if name not in params:
                raise ValueError(
                    f"The latent site {name!r} appeared only when the model was given a minibatch. "
                    "Latent sites must not depend on the number of rows."
                )
            transform = biject_to(support)
            value = transform(params[name])
            if support is not constraints.real:
                log_det = transform.log_abs_det_jacobian(params[name], value)
                surplus = jnp.ndim(log_det) - jnp.ndim(value) + len(site["fn"].event_shape)
                log_dets[name] = sum_rightmost(log_det, surplus)
            return value

        model = RowPlates(self.model, self.plates, jax.tree.leaves(rows)[0].shape[0])
        args, kwargs = self.layout.join(rows, constants)
        # Every latent site is substituted; the seed only serves numpyro.prng_key() in the model.
        trace = _trace(model, jax.random.key(0), value_of, args, kwargs)
        terms = {}
        for name, site in trace.items():
            if site["type"] != "sample":
                continue
            term = site["fn"].log_prob(site["value"]) + log_dets.get(name, 0.0)
            scale = 1.0 if site["scale"] is None else site["scale"]
            for frame in site["cond_indep_stack"]:
                scale = scale / model.scales.get(frame.name, 1.0)
            terms[name] = term * scale
        return trace, terms


def _trace(model: Callable, rng_key: jax.Array, strategy: Callable, args, kwargs) -> dict:
    # The seed goes inside: initialisation strategies draw with the key that it hands out.
    substituted = handlers.substitute(handlers.seed(model, rng_key), substitute_fn=strategy)
    return handlers.trace(substituted).get_trace(*args, **kwargs)


def _unconstrained(site: dict) -> jax.Array:
    return biject_to(site["fn"].support).inv(site["value"])


def minibatch_model(model: Callable, args: tuple, kwargs: dict) -> MinibatchModel:
    """Find the data among a model's arguments and make a :class:`MinibatchModel`.

    Raises
    ------
    ValueError
        No observed site; a discrete latent site; a latent site inside the data plate; no array
        argument with the observations' leading axis, or several different ones.
    """
    leaves = flatten_arguments(model, args, kwargs)
    arrays = {name: leaf for name, leaf in leaves.items() if is_array(leaf)}
    lengths = {name: leaf.shape[0] for name, leaf in arrays.items() if leaf.ndim > 0}
    treedef = jax.tree.structure((args, kwargs))
    kinds = tuple("constant" if is_array(leaf) else "static" for leaf in leaves.values())
    statics = tuple(leaf for leaf in leaves.values() if not is_array(leaf))
    layout = ArgumentLayout(treedef, tuple(leaves), kinds, statics, 0)

    try:
        sites, prototype = _describe(FullData(model), layout, (), tuple(arrays.values()))
    except Exception as error:
        listing = ", ".join(f"{name} {leaf.shape}" for name, leaf in arrays.items())
        others = [name for name, leaf in leaves.items() if not is_array(leaf)]
        error.add_note(
            f"The model failed on the arguments of run(...): arrays {listing or 'none'}; not "
            f"arrays: {others or 'none'}. Lists of numbers are not arrays: use jnp.asarray(...)."
        )
        raise
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
    """Sites of the model, and the unconstrained latents' shapes, without computing anything."""
    sites = {}

    def run(rng_key, rows, constants):
        args, kwargs = layout.join(rows, constants)
        trace = _trace(model, rng_key, init_to_uniform, args, kwargs)
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
            sites[name] = Site(kind, jnp.shape(site["value"]), discrete, plates)
            if kind == "latent" and not discrete:
                latents[name] = _unconstrained(site)
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
    """N: the leading axis that observed sites share with array arguments."""
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
    """Latent sites must keep their shape when the model sees half of the rows."""
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
