"""Say what a user has overlooked where a model fails on its arguments."""

import inspect
from collections.abc import Callable

import numpy as np

from sgworld_mcmc.model.traces import Site

__all__ = ["check_forgotten", "explained"]


def explained(
    error: Exception, model: Callable, args: tuple, kwargs: dict, arrays: dict
) -> Exception:
    """Return an error that names the cause, or the same one with a note, if a model has failed.

    Parameters
    ----------
    error
        What the model has raised.
    args, kwargs
        The model's arguments.
    arrays
        The array arguments by name.
    """
    text = str(error)
    cause = f"The cause: {type(error).__name__}: {text.splitlines()[0] if text else error!r}"
    nothing = _nothing_given(model, args, kwargs)
    if nothing and "None" in text:
        return ValueError(
            f"The model fails because {_listed(nothing)} None: give the data to run(...). {cause}"
        )
    floating = [name for name, x in arrays.items() if np.issubdtype(x.dtype, np.floating)]
    if floating and "Indexer must have integer" in text:
        return TypeError(
            "The model takes an entry by an index that is no integer. The arguments of floating "
            f"point are {', '.join(f'`{name}`' for name in floating)}: give codes of groups or "
            f"categories as integers, .astype(int). {cause}"
        )
    lengths = {name: x.shape[0] for name, x in arrays.items() if x.ndim}
    words = ("shape", "broadcast", "size", "dimension", "value for each row")
    if len(set(lengths.values())) > 1 and any(word in text for word in words):
        listing = ", ".join(f"`{name}` has {length}" for name, length in lengths.items())
        return ValueError(
            f"The model fails on arguments with different numbers of rows: {listing}. All data "
            f"need the same number of rows. {cause}"
        )
    return error


def check_forgotten(model: Callable, args: tuple, kwargs: dict, sites: dict[str, Site]) -> None:
    """Raise ``ValueError`` if nothing is observed because the observations are None."""
    nothing = _nothing_given(model, args, kwargs)
    if not nothing:
        return
    observed = any(site.kind in ("observed", "factor") for site in sites.values())
    latent = [n for n in nothing if n in sites and sites[n].kind == "latent"]
    if latent or not observed:
        named = latent or nothing
        raise ValueError(
            f"{_listed(named)} None, so that the model "
            "observes no data there: pass the observations to run(...)."
        )


def _listed(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names) + (" is" if len(names) == 1 else " are")


def _nothing_given(model: Callable, args: tuple, kwargs: dict) -> list[str]:
    """Return the names of the arguments that are None, also by default."""
    try:
        bound = inspect.signature(model).bind_partial(*args, **kwargs)
    except (TypeError, ValueError):
        return [name for name, value in kwargs.items() if value is None]
    bound.apply_defaults()
    return [name for name, value in bound.arguments.items() if value is None]
