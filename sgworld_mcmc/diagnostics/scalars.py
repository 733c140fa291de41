"""Convert draws of any kind into arrays by chain, and split them into named scalars.

This is the only place that names the entries of sites, such as ``beta[0]`` and ``Sigma[0,1]``.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

__all__ = ["as_chains", "flatten_scalars", "select_scalars"]


def as_chains(samples_like: Any, *, chain_axes: int | None = None) -> dict[str, np.ndarray]:
    """Return draws as arrays grouped by chain, whatever object holds them.

    Parameters
    ----------
    samples_like : numpyro.infer.MCMC, ArviZ object or dict
        A finished MCMC; an ``InferenceData`` or ``DataTree`` with a ``posterior`` group (or that
        group itself); or a dict ``site -> array``.
    chain_axes : {None, 1, 2}
        The layout of the arrays in a dict: 2 means ``(chains, draws, ...)``, 1 means
        ``(draws, ...)``, as ``mcmc.get_samples()`` returns them. None (default) deduces it: a
        one-dimensional array, or sites that share only their first axis, can only be ungrouped.
        If the shapes allow both, ``(chains, draws, ...)`` is assumed, and arrays with more chains
        than draws raise, because they are nearly always ungrouped vectors.

    Returns
    -------
    dict of str to numpy.ndarray
        ``site -> (chains, draws, ...)``, in the order of the input.

    Examples
    --------
    >>> import numpy as np
    >>> {k: v.shape for k, v in as_chains({"mu": np.zeros(50), "beta": np.zeros((50, 3))}).items()}
    {'mu': (1, 50), 'beta': (1, 50, 3)}
    """
    if hasattr(samples_like, "get_samples"):
        samples = samples_like.get_samples(group_by_chain=True)
        if not isinstance(samples, Mapping):
            raise TypeError(
                "`samples_like` is an MCMC whose draws are not a dict of sites (a `potential_fn` "
                "sampler): pass a dict of arrays instead"
            )
        return {name: np.asarray(value) for name, value in samples.items()}
    dataset = _posterior_dataset(samples_like)
    if dataset is not None:
        return {
            str(name): np.asarray(dataset[name].transpose("chain", "draw", ...).values)
            for name in dataset.data_vars
        }
    if not isinstance(samples_like, Mapping):
        raise TypeError(
            f"`samples_like` is a {type(samples_like).__name__}: pass a finished numpyro MCMC, an "
            "ArviZ object with a `posterior` group, or a dict of site names to arrays of draws"
        )
    arrays = {str(name): np.asarray(value) for name, value in samples_like.items()}
    _check_arrays(arrays)
    if (chain_axes or _guess_chain_axes(arrays)) == 1:
        arrays = {name: value[None] for name, value in arrays.items()}
    return arrays


def flatten_scalars(samples: Mapping[str, Any], chain_axes: int = 2) -> dict[str, np.ndarray]:
    """Split every site into scalar parameters.

    Parameters
    ----------
    samples : dict of str to array
        Arrays with ``chain_axes`` leading axes of draws, followed by the shape of the site.
    chain_axes : int
        Number of leading axes kept: 2 for ``(chains, draws, ...)`` (default, what `as_chains`
        returns), 1 for ``(draws, ...)``, 0 for a single position.

    Returns
    -------
    dict of str to numpy.ndarray
        Views of shape ``(chains, draws)`` (the kept axes) in row-major order. The names are
        ``mu`` for a scalar site, ``beta[3]`` for a vector and ``Sigma[0,1]`` for a matrix.

    Examples
    --------
    >>> import numpy as np
    >>> list(flatten_scalars({"mu": np.zeros((2, 5)), "beta": np.zeros((2, 5, 2))}))
    ['mu', 'beta[0]', 'beta[1]']
    """
    scalars = {}
    for site, value in samples.items():
        value = np.asarray(value)
        if value.ndim < chain_axes:
            raise ValueError(
                f"`samples[{site!r}]` has shape {value.shape}, fewer axes than "
                f"`chain_axes={chain_axes}`: pass `chain_axes=1` for draws without chains"
            )
        for index in np.ndindex(value.shape[chain_axes:]):
            name = f"{site}[{','.join(map(str, index))}]" if index else str(site)
            scalars[name] = value[(..., *index)]
    return scalars


def select_scalars(
    scalars: Mapping[str, np.ndarray], names: Iterable[str] | str | None
) -> dict[str, np.ndarray]:
    """Keep the scalars that ``names`` asks for, in the order of ``names``.

    Parameters
    ----------
    scalars : dict of str to array
        Scalar parameters, as `flatten_scalars` returns them.
    names : iterable of str, str or None
        Scalar names (``"beta[3]"``) or site names (``"beta"``, all its entries); None keeps all.

    Returns
    -------
    dict of str to numpy.ndarray
    """
    if names is None:
        return dict(scalars)
    chosen = {}
    for name in [names] if isinstance(names, str) else names:
        found = [key for key in scalars if key == name or key.startswith(f"{name}[")]
        if not found:
            raise ValueError(
                f"`names` asks for {name!r}, which the draws do not have; they have "
                f"{_shorten(scalars)}"
            )
        chosen |= {key: scalars[key] for key in found}
    return chosen


def _posterior_dataset(obj):
    """Return the posterior as an object with `data_vars`, or None if `obj` is not from ArviZ."""
    # A DataTree node of a group and an xarray Dataset both have non-empty `data_vars`;
    # InferenceData and DataTree are Mappings, so this has to come before the test for a dict.
    if getattr(obj, "data_vars", None):
        return obj
    if isinstance(obj, dict) or not hasattr(obj, "to_netcdf"):
        return None
    if "posterior" not in obj:
        raise ValueError("`samples_like` is an ArviZ object without a `posterior` group")
    return obj["posterior"]


def _check_arrays(arrays):
    if not arrays:
        raise ValueError("`samples_like` is an empty dict: it holds no draws")
    for name, value in arrays.items():
        if value.ndim == 0 or value.dtype.kind not in "bifu":
            raise TypeError(
                f"`samples_like[{name!r}]` is no numeric array of draws: shape {value.shape}, "
                f"dtype {value.dtype}"
            )


def _guess_chain_axes(arrays):
    shapes = [value.shape for value in arrays.values()]
    if min(map(len, shapes)) == 1 or len({shape[:2] for shape in shapes}) > 1:
        return 1
    chains, draws = shapes[0][:2]
    if chains > draws:
        raise ValueError(
            f"the draws have shape {shapes[0]}: {chains} chains of {draws} draws? Pass "
            "`chain_axes=1` if they are not grouped by chain, `chain_axes=2` if they are"
        )
    return 2


def _shorten(names, most=12):
    names = list(names)
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
