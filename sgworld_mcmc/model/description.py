"""The description by which a plan recognises the model and the data that it was made for."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.model.numpyro_model import MinibatchModel
from sgworld_mcmc.protocols import Coordinates

__all__ = ["PROBED", "ModelDescription", "describe", "difference", "probe", "same_contents"]

# Number of rows on which log densities are compared, and the absolute and relative difference that
# rounding can make.
PROBED, ABSOLUTE, RELATIVE = 512, 1e-3, 1e-5


class ModelDescription(NamedTuple):
    """A model and its data, in words and numbers.

    Attributes
    ----------
    size
        Number of rows N.
    latents
        (name, unconstrained shape) of each latent site.
    sites
        (name, kind) of each site.
    additive
        Names of the sites whose log density is a sum over rows.
    arguments
        (name, kind, shape, type) of each argument of the model.
    contents
        Fingerprints of the NumPy arrays among the arguments, None for JAX arrays.
    log_densities
        (name, value, value) of each sample site: the sums of its log density over the first rows
        at the plan's center and one unit from it in all coordinates; None if not evaluated.
    reason
        Why the model is not cut into minibatches; None if it is.
    part
        Fingerprints of the random part of streamed rows that the set-up has read, one for each
        array of rows; None if the rows are in memory.
    """

    size: int
    latents: tuple[tuple[str, tuple[int, ...]], ...]
    sites: tuple[tuple[str, str], ...]
    additive: tuple[str, ...]
    arguments: tuple[tuple[str, str, tuple[int, ...], str], ...]
    contents: tuple[int | None, ...]
    log_densities: tuple[tuple[str, float, float], ...] | None = None
    reason: str | None = None
    part: tuple[int, ...] | None = None


def describe(
    model: MinibatchModel, data: tuple, constants: tuple, contents: tuple[int | None, ...]
) -> ModelDescription:
    """Describe a model and its data leaves, as the user gave them, without computing anything."""
    leaves = {"data": iter(data), "constant": iter(constants), "static": iter(model.layout.statics)}
    arguments = []
    for name, kind in zip(model.layout.names, model.layout.kinds, strict=True):
        leaf = next(leaves[kind])
        shape = tuple(int(n) for n in np.shape(leaf)) if kind != "static" else ()
        text = str(leaf.dtype) if kind != "static" else _text(leaf)
        arguments.append((name, kind, shape, text))
    return ModelDescription(
        model.size,
        tuple((name, tuple(model.shapes[name])) for name in model.latents),
        tuple(sorted((name, site.kind) for name, site in model.sites.items())),
        tuple(sorted(model.additive)),
        tuple(arguments),
        contents,
        reason=model.reason,
    )


def difference(old: ModelDescription, new: ModelDescription) -> str | None:
    """Return how two descriptions differ, in words, or None if they agree."""
    for what in ("latents", "sites", "size", "arguments", "additive"):
        before, now = getattr(old, what), getattr(new, what)
        if before != now:
            return f"{_NAMES[what]}: {_listed(before)} then, {_listed(now)} now"
    if not same_contents(old, new):
        return "the numbers in the model's array arguments"
    if old.part != new.part:
        return "the numbers in the rows that are streamed"
    if old.log_densities is None or new.log_densities is None:
        return None
    for (name, *before), (_, *now) in zip(old.log_densities, new.log_densities, strict=True):
        for a, b in zip(before, now, strict=True):
            if not abs(a - b) <= ABSOLUTE + RELATIVE * abs(a):
                return (
                    f"the log density of site {name!r} at a point of the plan, {a:.6g} then and "
                    f"{b:.6g} now: another prior or likelihood"
                )
    return None


def same_contents(old: ModelDescription, new: ModelDescription) -> bool:
    """Return whether the arrays hold the same numbers, as far as both descriptions know them."""
    pairs = zip(old.contents, new.contents, strict=True)
    return all(before == now for before, now in pairs if None not in (before, now))


_NAMES = {
    "latents": "the latent sites and their unconstrained shapes",
    "sites": "the sites",
    "size": "the number of rows",
    "arguments": "the model's arguments",
    "additive": "the sites that are sums over rows",
}


def _listed(value) -> str:
    return str(value) if isinstance(value, int) else ", ".join(map(str, value)) or "none"


def _text(leaf) -> str:
    """Return a static argument as text that is the same in another process."""
    leaf = leaf.item() if isinstance(leaf, np.generic) else leaf
    if isinstance(leaf, int | float | bool | str | None):
        return repr(leaf)
    name = getattr(leaf, "__qualname__", None)
    return type(leaf).__name__ if name is None else f"{leaf.__module__}.{name}"


def probe(
    model: MinibatchModel, data: tuple, constants: tuple, coordinates: Coordinates
) -> tuple[tuple[str, float, float], ...]:
    """Return the log densities of a description, from the first rows in the user's order."""
    center = np.asarray(coordinates.center, float)
    away = np.asarray(coordinates.to_model(np.ones(len(center))), float)
    with jax.enable_x64(model.precise):
        first = jax.tree.map(lambda x: from_numpy(x[:PROBED]), data)
        constants = jax.tree.map(from_numpy, constants)
        if "probe" not in model.kept:

            def evaluate(flat, rows, constants):
                return model.log_densities(model.unravel(flat), rows, constants)

            model.kept["probe"] = quick_jit(evaluate, "little")
        made = [model.kept["probe"](from_numpy(x), first, constants) for x in (center, away)]
    return tuple((name, float(made[0][name]), float(made[1][name])) for name in sorted(made[0]))
