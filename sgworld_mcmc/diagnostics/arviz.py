"""Convert a finished NumPyro MCMC into an ArviZ object: InferenceData (0.x) or DataTree (1.x)."""

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro

from sgworld_mcmc.arrays import named_leaves
from sgworld_mcmc.diagnostics import model_groups
from sgworld_mcmc.diagnostics.axis_labels import axis_labels
from sgworld_mcmc.diagnostics.lazy_draws import lazy_draws
from sgworld_mcmc.streaming.arguments import is_streamed

__all__ = ["LOG_LIKELIHOOD_LIMIT", "to_arviz"]

# `log_likelihood="auto"` computes at most so many values (chains x draws x rows): 400 MB.
LOG_LIKELIHOOD_LIMIT = 10**8

# ArviZ's names for the fields that NumPyro's HMC reports. ArviZ's `from_numpyro` uses the same.
_STAT_NAMES = {
    "potential_energy": "lp",
    "adapt_state.step_size": "step_size",
    "num_steps": "n_steps",
    "accept_prob": "acceptance_rate",
}


def to_arviz(
    mcmc: Any,
    *,
    log_likelihood: bool | str = "auto",
    posterior_predictive: bool = False,
    rng_key: jax.Array | None = None,
    coords: Mapping[str, Any] | None = None,
    dims: Mapping[str, list[str]] | None = None,
) -> Any:
    """Convert a finished MCMC into an ArviZ object with all that its model knows.

    Parameters
    ----------
    mcmc : numpyro.infer.MCMC
        A finished run. Its ``sampler.model`` must see all rows of the data: a model with a
        subsampled plate raises.
    log_likelihood : {"auto", True, False}
        Whether to add the pointwise log likelihood, unscaled, of every observed site over all
        rows, which ``az.loo`` needs. It takes chains * draws * rows numbers; ``"auto"`` (default)
        leaves it out, with a warning, above `LOG_LIKELIHOOD_LIMIT` = 1e8 of them (400 MB), and
        without one if the draws lie on disk.
    posterior_predictive : bool
        Whether to draw new observations from the model with its arguments unchanged, one data set
        of full size for each draw. The default is False, because the result is random and as
        large as the log likelihood.
    rng_key : jax.Array, optional
        Key for the new observations; needed with ``posterior_predictive=True``.
    coords : dict of str to array, optional
        Labels along dimensions, such as ``{"school": ["A", "B"]}``. Names of the columns and
        categories of data frames are used for the sites that clearly have a value for each.
    dims : dict of str to list of str, optional
        Names of the axes of a variable after chain and draw. They replace, variable by variable,
        the names that the plates give.

    Returns
    -------
    arviz.InferenceData or xarray.DataTree
        The groups ``posterior``, ``sample_stats``, ``log_likelihood``, ``posterior_predictive``,
        ``observed_data`` and ``constant_data`` (array arguments of the model that are not
        observations). Empty groups are left out. ``numpyro.factor`` sites do not count as
        observations.

    Raises
    ------
    ValueError
        If rows are streamed and values of each of them are asked for, there are no draws, the
        model has a subsampled plate, a latent site that is needed has no draws, or an argument
        does not fit.

    Examples
    --------
    >>> import jax, numpyro, numpyro.distributions as dist
    >>> from numpyro.infer import MCMC, NUTS
    >>> def model(y):
    ...     mu = numpyro.sample("mu", dist.Normal(0, 10))
    ...     with numpyro.plate("row", len(y)):
    ...         numpyro.sample("y", dist.Normal(mu, 1), obs=y)
    >>> mcmc = MCMC(NUTS(model), num_warmup=50, num_samples=50, progress_bar=False)
    >>> mcmc.run(jax.random.key(0), jax.numpy.arange(3.0))
    >>> to_arviz(mcmc)["log_likelihood"]["y"].dims
    ('chain', 'draw', 'row')
    """
    if log_likelihood not in ("auto", True, False):
        raise ValueError(f"`log_likelihood` is {log_likelihood!r}: pass 'auto', True or False")
    if posterior_predictive and rng_key is None:
        raise ValueError(
            "`posterior_predictive=True` draws new observations and needs a key: pass "
            "`rng_key=jax.random.key(...)`"
        )
    posterior = _posterior(mcmc)
    groups = {"posterior": posterior, "sample_stats": _sample_stats(mcmc)}
    names, labels = {}, {}
    # Where the rows are streamed, no group has a place for values of each of them.
    streamed = is_streamed(getattr(mcmc, "_args", ()), getattr(mcmc, "_kwargs", {}))
    if streamed and (log_likelihood is True or posterior_predictive):
        raise ValueError(
            "The rows are streamed, since they do not fit in memory, and neither do log "
            "likelihoods or predictions of all of them: compute those of some rows with numpyro."
            "infer.log_likelihood or Predictive, from get_samples()."
        )
    # There is no model for a sampler of a plain potential function.
    if mcmc.sampler.model is not None and not streamed:
        bound = model_groups.BoundModel(mcmc.sampler.model, mcmc._args, mcmc._kwargs)
        view, draws = _seen_with(mcmc, bound, posterior)
        if _on_disk(mcmc) is not None:
            if log_likelihood == "auto":
                log_likelihood = False
            if posterior_predictive or log_likelihood:  # they need every draw
                draws = {name: np.asarray(value) for name, value in draws.items()}
        if _wants_log_likelihood(log_likelihood, view, draws):
            groups["log_likelihood"] = model_groups.log_likelihood(bound, view, draws)
        if posterior_predictive and view.observed:
            _require_latents(view, draws, "posterior_predictive")
            groups["posterior_predictive"] = model_groups.predict(bound, view, draws, rng_key)
        groups["observed_data"] = view.observed
        groups["constant_data"], constant_dims = model_groups.constant_data(bound, view)
        unnamed = {name: x for name, x in posterior.items() if name not in (dims or {})}
        names, labels = _axes(mcmc, view, draws, unnamed)
        names = constant_dims | names
    coords = labels | dict(coords or {})
    return _assemble(mcmc, groups, names | dict(dims or {}), coords)


def _keeps(mcmc):
    """Whether the user keeps something in place of the sites, maybe under a site's name."""
    return getattr(getattr(mcmc.sampler, "settings", None), "keep", None) is not None


def _seen_with(mcmc, bound, posterior):
    """Return what is seen of a model with its draws, and the draws of its latent sites."""
    sites = {} if _keeps(mcmc) else posterior
    # JAX arrays: a scan takes the values of its latent sites by a traced index.
    view = model_groups.inspect_model(bound, {k: jnp.asarray(v[0, 0]) for k, v in sites.items()})
    if _keeps(mcmc):  # what has the name of a site may have another shape
        sites = {k: v for k, v in posterior.items() if v.shape[2:] == view.shapes.get(k)}
    return view, {name: sites[name] for name in view.latents if name in sites}


def _axes(mcmc, view, draws, unnamed):
    """Return names of axes by variable, and labels along them, as plates and frames give them.

    ``unnamed`` are the variables of the posterior whose axes have no names from the user.
    """
    kept = _keeps(mcmc)
    names = {k: dims for k, dims in view.dims.items() if not kept or k in draws}
    names |= {name: view.dims[name] for name in view.observed}
    shapes = {name: value.shape[2:] for name, value in unnamed.items()}
    arguments = mcmc._args, mcmc._kwargs
    found, labels = axis_labels(
        getattr(mcmc, "labels", ()), shapes, view.dims, arguments, view.observed
    )
    return names | found, labels


def _on_disk(mcmc):
    """Return the draws of a run that lie on disk; None if they are in memory."""
    return getattr(mcmc, "draws_on_disk", None)


def _posterior(mcmc):
    if getattr(mcmc, "last_state", True) is None:
        raise ValueError("`mcmc` has no draws yet: call `mcmc.run(rng_key, ...)` first")
    if _on_disk(mcmc) is not None:
        return lazy_draws(_on_disk(mcmc), "posterior")
    samples = jax.device_get(mcmc.get_samples(group_by_chain=True))
    if hasattr(samples, "_asdict"):
        samples = samples._asdict()
    if not isinstance(samples, Mapping):  # named as ArviZ's `from_numpyro` names such draws
        samples = {f"Param:{i}": leaf for i, leaf in enumerate(jax.tree.leaves(samples))}
    return {name: np.asarray(value) for name, value in named_leaves(samples).items()}


def _sample_stats(mcmc):
    stats, stored = {}, _on_disk(mcmc)
    if stored is not None:
        fields = lazy_draws(stored, "sample_stats")
    else:
        fields = mcmc.get_extra_fields(group_by_chain=True)
    for field, value in fields.items():
        if isinstance(value, dict | tuple | list):
            continue
        if stored is None or field == "potential_energy":
            value = np.asarray(value)
        stats[_STAT_NAMES.get(field, field)] = -value if field == "potential_energy" else value
        # Only trees have a depth: other kernels may count their steps under the same name.
        if field == "num_steps" and hasattr(mcmc.sampler, "_max_tree_depth"):
            stats["tree_depth"] = np.log2(value).astype(int) + 1
    if "diverging" in stats and stored is None:
        stats["diverging"] = stats["diverging"].astype(bool)
    return stats


def _wants_log_likelihood(choice, view, draws):
    if choice is False or not view.observed:
        return False
    if choice is True:
        _require_latents(view, draws, "log_likelihood")
        return True
    if missing := _missing_latents(view, draws):
        warnings.warn(
            f"`log_likelihood` is left out: the latent sites {missing} have no draws",
            UserWarning,
            stacklevel=3,
        )
        return False
    chains, count = next(iter(draws.values())).shape[:2]
    rows = sum(view.rows.values())
    size = chains * count * rows
    if size > LOG_LIKELIHOOD_LIMIT:
        reason = (
            f"it would hold {chains} chains x {count} draws x {rows} rows = {size:.2g} values, "
            f"more than {LOG_LIKELIHOOD_LIMIT:.2g}; pass `log_likelihood=True` to compute it anyway"
        )
    else:
        return True
    warnings.warn(f"`log_likelihood` is left out: {reason}", UserWarning, stacklevel=3)
    return False


def _missing_latents(view, draws):
    return [name for name in view.latents if name not in draws]


def _require_latents(view, draws, argument):
    if missing := _missing_latents(view, draws):
        raise ValueError(
            f"`{argument}` needs draws of every latent site, and {missing} have none (they were "
            f"marginalised, or dropped with `extra_fields`): pass `{argument}=False`, or keep them"
        )


def _assemble(mcmc, groups, names, coords):
    import arviz as az
    import xarray as xr

    attrs = {
        "created_at": datetime.now(UTC).isoformat(),
        "arviz_version": az.__version__,
        "inference_library": "numpyro",
        "inference_library_version": numpyro.__version__,
        "sampler": type(mcmc.sampler).__name__,
    }
    datasets = {}
    for group, arrays in groups.items():
        leading = () if group.endswith("_data") else ("chain", "draw")
        variables = {}
        for name, value in arrays.items():
            given = list(names.get(name, []))
            if group == "sample_stats":
                given = []
            elif group == "log_likelihood":  # an event has one value, not one for each entry
                given = given[: value.ndim - len(leading)]
            axes = _dim_names(name, value.shape[len(leading) :], given, coords)
            if isinstance(value, xr.Variable):  # draws on disk, which stay there
                value.dims = (*leading, *axes)
                variables[name] = value
            else:
                variables[name] = xr.Variable((*leading, *axes), value)
        sizes = {}
        for variable in variables.values():
            sizes |= variable.sizes
        labels = {dim: coords.get(dim, np.arange(size)) for dim, size in sizes.items()}
        if variables:
            datasets[group] = xr.Dataset(variables, coords=labels, attrs=attrs)
    # This is the only place that tells the versions of ArviZ apart. `hasattr` would not do: ArviZ
    # 1.x answers it with a warning and with DataTree.
    if "InferenceData" in vars(az):
        return az.InferenceData(**datasets)
    return xr.DataTree.from_dict(datasets)


def _dim_names(name, shape, given, coords):
    """Name the axes after chain and draw; an axis without a given name becomes ``beta_dim_0``."""
    if len(given) > len(shape):
        raise ValueError(
            f"`dims[{name!r}]` is {given}, {len(given)} names, and {name} has the shape {shape} "
            "beside chain and draw: name each axis once"
        )
    given = [*given, *[None] * (len(shape) - len(given))]
    dims = [dim or f"{name}_dim_{axis}" for axis, dim in enumerate(given)]
    for dim, size in zip(dims, shape, strict=True):
        if dim in coords and len(coords[dim]) != size:
            raise ValueError(
                f"`coords[{dim!r}]` has {len(coords[dim])} labels, and {name} has length {size} "
                f"along {dim}: give one label for each"
            )
    return dims
