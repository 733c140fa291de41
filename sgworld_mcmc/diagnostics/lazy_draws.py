"""Draws that lie on disk as variables of xarray, which read them when they are looked at."""

from typing import Any

from sgworld_mcmc.arrays import named_leaves
from sgworld_mcmc.checkpoint.stored_draws import StoredDraws

__all__ = ["lazy_draws"]


def lazy_draws(stored: StoredDraws, group: str) -> dict[str, Any]:
    """Return the variables (chain, draw, ...) of a group by name; fields with parts are left out.

    Parameters
    ----------
    stored
        The draws.
    group
        ``"posterior"`` or ``"sample_stats"``.
    """
    import xarray as xr

    sites, *fields = stored
    if group == "posterior":
        named = named_leaves(stored.leaves[sites])
    else:
        named = {name: stored.leaves[name] for name in fields}
        named = {name: leaf for name, leaf in named.items() if not isinstance(leaf, dict | tuple)}
    opened = xr.open_dataset(
        stored.path, engine="zarr", group=group, consolidated=False, chunks=None
    )
    variables = {name: opened[leaf.name].variable for name, leaf in named.items()}
    return {name: x[: stored.chains, : stored.made] for name, x in variables.items()}
