"""Evaluate a NumPyro model at posterior draws, to fill the groups of an ArviZ object.

The groups are the log likelihood of each row, new observations, and the data of the model.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from numpyro import handlers
from numpyro.infer import init_to_sample
from numpyro.primitives import Messenger

__all__ = ["BoundModel", "ModelView", "constant_data", "inspect_model", "log_likelihood", "predict"]

# Number of values computed at a time, so that the model's work arrays stay within a few megabytes.
_CHUNK_VALUES = 2**20


class BoundModel(NamedTuple):
    """A NumPyro model with the arguments that it was run with."""

    model: Callable
    args: tuple
    kwargs: dict

    def trace(self, rng_key, latents, wrap=lambda fn: fn):
        """Run the model at given latents; the key serves for sites without a given value."""
        model = wrap(handlers.seed(self.model, rng_key))
        model = handlers.substitute(model, data=latents)
        return handlers.trace(model).get_trace(*self.args, **self.kwargs)

    def on_device(self) -> "BoundModel":
        """Return the model with JAX arrays, of which a traced index takes rows."""

        def to_jax(x):
            return jnp.asarray(x) if isinstance(x, np.ndarray) and x.dtype.kind in "biuf" else x

        return self._replace(**jax.tree.map(to_jax, dict(args=self.args, kwargs=self.kwargs)))


class ModelView(NamedTuple):
    """The sites and plates that one run of a model shows.

    Attributes
    ----------
    observed : dict of str to numpy.ndarray
        Value of every observed site; `numpyro.factor` sites do not count.
    rows : dict of str to int
        Number of log-likelihood terms of each observed site.
    latents : list of str
        Unobserved sample sites.
    dims : dict of str to list
        Names of the axes of each site, taken from the plates; None for an axis without a plate.
    plates : dict of str to int
        Sizes of the plates.
    shapes : dict of str to tuple
        Shapes of the unobserved sample sites.
    """

    observed: dict[str, np.ndarray]
    rows: dict[str, int]
    latents: list[str]
    dims: dict[str, list[str | None]]
    plates: dict[str, int]
    shapes: dict[str, tuple[int, ...]]


def inspect_model(bound: BoundModel, draw: Mapping[str, Any]) -> ModelView:
    """Run the model once, on all its data, at one draw.

    Parameters
    ----------
    bound : BoundModel
        The model and its arguments.
    draw : dict of str to array
        One draw, without axes for chain and draw.

    Returns
    -------
    ModelView

    Raises
    ------
    ValueError
        If the model has a subsampled plate: its data would be one random minibatch.
    """

    def complete(fn):
        # Latents without draws need some value here, also those with improper priors, which
        # cannot be sampled. Functions that need their draws report them as missing.
        return handlers.substitute(
            fn, substitute_fn=lambda site: None if site["name"] in draw else init_to_sample(site)
        )

    view = ModelView({}, {}, [], {}, {}, {})
    for name, site in bound.trace(jax.random.key(0), draw, complete).items():
        if site["type"] == "plate":
            view.plates[name] = _plate_size(name, *site["args"][:2])
        elif site["type"] == "deterministic":
            view.dims[name] = _axis_names(site)
        elif _is_observation(site):
            view.dims[name] = _axis_names(site)
            view.observed[name] = np.asarray(site["value"])
            view.rows[name] = np.size(site["fn"].log_prob(site["value"]))
        elif site["type"] == "sample" and not site["is_observed"]:
            view.dims[name] = _axis_names(site)
            view.latents.append(name)
            view.shapes[name] = np.shape(site["value"])
    return view


def log_likelihood(bound: BoundModel, view: ModelView, draws: Mapping[str, np.ndarray]) -> dict:
    """Compute the pointwise log likelihood of the observed sites, without scale factors.

    Parameters
    ----------
    bound, view
        The model, and what `inspect_model` returned for it.
    draws : dict of str to array
        Draws of all latent sites, ``(chains, draws, ...)``.

    Returns
    -------
    dict of str to numpy.ndarray
        ``site -> (chains, draws, rows...)``.
    """

    bound = bound.on_device()

    def pointwise(latents):
        # The key decides nothing, since every latent has a given value.
        trace = bound.trace(jax.random.key(0), latents)
        return {name: trace[name]["fn"].log_prob(trace[name]["value"]) for name in view.observed}

    return _map_draws(pointwise, draws, view)


def predict(
    bound: BoundModel, view: ModelView, draws: Mapping[str, np.ndarray], rng_key: jax.Array
) -> dict:
    """Draw a new data set of full size for each draw, with the model's arguments unchanged.

    Parameters
    ----------
    bound, view, draws
        As for `log_likelihood`.
    rng_key : jax.Array
        Key, which is split over the draws.

    Returns
    -------
    dict of str to numpy.ndarray
        ``site -> (chains, draws, *shape of the observed value)``.
    """
    bound = bound.on_device()
    chains, count = jax.tree.leaves(draws)[0].shape[:2]
    keys = jax.random.split(rng_key, chains * count)

    def replicate(key_and_latents):
        trace = bound.trace(*key_and_latents, _Redraw)
        stuck = [name for name in view.observed if trace[name]["is_observed"]]
        if stuck:
            raise ValueError(
                f"`posterior_predictive=True` cannot redraw {stuck}, which are inside a scan: use "
                "`numpyro.infer.Predictive` with the observations set to None"
            )
        return {name: trace[name]["value"] for name in view.observed}

    return _map_draws(replicate, (keys.reshape(chains, count, *keys.shape[1:]), draws), view)


def constant_data(bound: BoundModel, view: ModelView) -> tuple[dict, dict]:
    """Collect the array arguments of the model that are not its observations.

    Returns
    -------
    arrays : dict of str to numpy.ndarray
        The arrays, named as in the signature of the model; an entry of a dict is ``data.x``.
    dims : dict of str to list
        Names of axes. The leading axis gets the name of the plate of its length, if there is
        exactly one.
    """
    arrays = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(_named_arguments(bound)):
        # Typed random keys, strings and sizes are not data.
        if not isinstance(leaf, np.ndarray | jax.Array) or np.ndim(leaf) == 0:
            continue
        if not (np.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool):
            continue
        array = np.asarray(leaf)
        if not any(_same(array, value) for value in view.observed.values()):
            arrays[jax.tree_util.keystr(path, simple=True, separator=".")] = array
    # xarray does not allow a variable with the name of a dimension of its own group.
    plates = {} if view.plates.keys() & arrays.keys() else view.plates
    dims = {}
    for name, array in arrays.items():
        fitting = [plate for plate, size in plates.items() if size == array.shape[0]]
        if len(fitting) == 1:
            dims[name] = [*fitting, *[None] * (array.ndim - 1)]
    return arrays, dims


class _Redraw(handlers.uncondition):
    """Redraw observations as `uncondition` does, but in the shape of the observed value.

    Without a plate, ``sample("y", Normal(mu, 1), obs=y)`` has a scalar distribution, and
    `uncondition` alone would draw one number for all rows.
    """

    def process_message(self, msg):
        if _is_observation(msg):
            batch = np.shape(msg["value"])[: np.ndim(msg["value"]) - msg["fn"].event_dim]
            msg["fn"] = msg["fn"].expand(np.broadcast_shapes(msg["fn"].batch_shape, batch))
            super().process_message(msg)


def _is_observation(site):
    # `numpyro.factor` also adds an observed site: an auxiliary one of the distribution Unit.
    return (
        site["type"] == "sample"
        and site["is_observed"]
        and not isinstance(site["fn"], numpyro.distributions.Unit)
        and not site["infer"].get("is_auxiliary", False)
    )


def _plate_size(name, size, subsample_size):
    if subsample_size is not None and subsample_size < size:
        raise ValueError(
            f"the model has the subsampled plate {name!r} ({subsample_size} of {size} rows), so "
            "that its likelihood and data would be those of one random minibatch: write the plate "
            "without `subsample_size`, or sample with SGWORLD or SGLD, which show all rows"
        )
    return size


def _axis_names(site):
    """Return the plates' names for the axes of a site, by the rule of ArviZ's `from_numpyro`."""
    shape = np.shape(site["value"])
    frames = sorted(site["cond_indep_stack"], key=lambda frame: frame.dim)
    if site["type"] == "sample":
        batch_ndim = len(shape) - site["fn"].event_dim
        axes = [batch_ndim + frame.dim for frame in frames]
    else:  # a deterministic site does not say which axes are the batch: assume the first ones
        batch_ndim = len(frames)
        axes = list(range(batch_ndim))
    names: list[str | None] = [None] * len(shape)
    for axis, frame in zip(axes, frames, strict=True):
        if 0 <= axis < len(shape) and shape[axis] == frame.size:
            # ArviZ reserves these two names for the draws.
            names[axis] = None if frame.name in ("chain", "draw") else frame.name
    for axis, name in enumerate((site.get("infer") or {}).get("event_dims", []), batch_ndim):
        if axis < len(shape):
            names[axis] = name
    return names


def _map_draws(fn, draws, view):
    """Apply ``fn`` to every draw of a tree with leaves (chains, draws, ...), a chunk at a time."""
    chains, count = jax.tree.leaves(draws)[0].shape[:2]
    total = chains * count
    flat = jax.tree.map(lambda leaf: leaf.reshape(total, *leaf.shape[2:]), draws)
    size = min(total, max(1, _CHUNK_VALUES // max(1, sum(view.rows.values()))))
    mapped = jax.jit(jax.vmap(fn))
    results: dict[str, np.ndarray] = {}
    for start in range(0, total, size):
        # The last chunk is filled up with copies of the last draw, so that all chunks have the same
        # shape and the function is compiled once.
        rows = np.minimum(np.arange(start, start + size), total - 1)
        chunk = jax.device_get(mapped(jax.tree.map(lambda leaf, rows=rows: leaf[rows], flat)))
        kept = min(size, total - start)
        for name, value in chunk.items():
            if name not in results:
                results[name] = np.empty((total, *value.shape[1:]), value.dtype)
            results[name][start : start + kept] = value[:kept]
    return {name: value.reshape(chains, count, *value.shape[1:]) for name, value in results.items()}


def _named_arguments(bound):
    model = bound.model
    # Handlers hide the signature of the model that they wrap.
    while isinstance(model, Messenger) and model.fn is not None:
        model = model.fn
    try:
        found = inspect.signature(model).bind(*bound.args, **bound.kwargs)
    except (TypeError, ValueError):
        return {"args": bound.args, **bound.kwargs}
    named = {}
    for name, value in found.arguments.items():
        if found.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named |= value
        else:
            named[name] = value
    return named


def _same(array, other):
    return array.shape == other.shape and bool(
        np.all((array == other) | ((array != array) & (other != other)))
    )
