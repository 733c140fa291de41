"""Convert draws, whatever object holds them, into one (chains, draws, D) array."""

from collections.abc import Mapping

import numpy as np


def flatten_samples(samples, shapes):
    """Return the draws of the sites in ``shapes`` as one array.

    Parameters
    ----------
    samples : mapping, numpyro.infer.MCMC, arviz.InferenceData or xarray.DataTree
        A mapping from site to array (draws, ...) or (chains, draws, ...); or an object with
        ``get_samples`` that has been run; or an object with a ``posterior`` group. Sites that are
        not in ``shapes`` (deterministic ones, for example) are ignored.
    shapes : dict
        Site name to the shape of one draw; the columns follow this order.

    Returns
    -------
    numpy.ndarray
        (chains, draws, D) float64 draws; one chain if the draws had no axis for chains.

    Raises
    ------
    ValueError
        If a site is missing, a shape is wrong, draws are NaN or infinite, or a chain has fewer
        than two draws.
    TypeError
        If ``samples`` is of another kind.
    """
    arrays = _site_arrays(samples)
    missing = [name for name in shapes if name not in arrays]
    if missing:
        raise ValueError(
            f"`samples` has no site {missing}; it has {sorted(arrays)}. Pass the draws of "
            f"{list(shapes)}, in constrained values, under these names."
        )
    columns = {name: _one_site(name, arrays[name], shape) for name, shape in shapes.items()}
    leading = {name: column.shape[:2] for name, column in columns.items()}
    if len(set(leading.values())) > 1:
        raise ValueError(
            f"`samples` has different (chains, draws) for its sites: {leading}; pass the sites of "
            "one and the same run."
        )
    return np.concatenate(list(columns.values()), axis=-1)


def _site_arrays(samples):
    if isinstance(samples, Mapping) and "posterior" not in samples:
        return samples
    if hasattr(samples, "get_samples"):
        if getattr(samples, "last_state", True) is None:
            raise ValueError("`samples` has not been run; call its .run(key, *data) first.")
        return samples.get_samples(group_by_chain=True)
    try:
        group = samples["posterior"]
        return {
            name: group[name].transpose("chain", "draw", ...).values for name in group.data_vars
        }
    except (TypeError, LookupError, AttributeError, ValueError) as error:
        raise TypeError(
            f"`samples` is a {type(samples).__name__}; pass a dict from site name to draws, a "
            "NumPyro MCMC after .run, or ArviZ data with a posterior group."
        ) from error


def _one_site(name, value, shape):
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"`samples[{name!r}]` must hold real numbers: {error}") from error
    event = len(shape)
    extra = array.ndim - event
    if extra not in (1, 2) or array.shape[extra:] != tuple(shape):
        wanted = ", ".join(["draws", *map(str, shape)])
        raise ValueError(
            f"`samples[{name!r}]` has shape {array.shape}; it must be ({wanted}) or "
            f"(chains, {wanted})."
        )
    chains = array.shape[0] if extra == 2 else 1
    draws = array.shape[extra - 1]
    if chains < 1 or draws < 2:
        raise ValueError(
            f"`samples[{name!r}]` has {chains} chains of {draws} draws; at least 2 draws are "
            "needed for a standard deviation."
        )
    array = array.reshape(chains, draws, -1)
    bad = int((~np.isfinite(array).all(axis=-1)).sum())
    if bad:
        raise ValueError(
            f"`samples[{name!r}]` has NaN or infinite values in {bad} of {chains * draws} draws; "
            "the run diverged: use a smaller step size, or drop these draws knowingly."
        )
    return array
