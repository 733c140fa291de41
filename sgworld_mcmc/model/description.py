"""The description by which a plan recognises the model and the data that it was made for."""

from typing import NamedTuple

import jax
import numpy as np

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.model.numpyro_model import MinibatchModel

__all__ = ["ModelDescription", "describe", "difference", "probe", "same_contents"]

# Number of rows whose log density is compared, and the relative difference that rounding can make.
PROBED, ROUNDING = 512, 1e-3


class ModelDescription(NamedTuple):
    """A model and its data, in words and numbers.

    Attributes
    ----------
    size
        Number of rows N.
    latents
        (name, unconstrained shape) of each latent site.
    additive
        Names of the sites whose log density is a sum over rows.
    arguments
        (name, kind, shape, type) of each argument of the model.
    contents
        Fingerprints of the NumPy arrays among the arguments, None for JAX arrays.
    log_density
        Log density at the plan's center, estimated from the first rows; None if it was not
        evaluated.
    """

    size: int
    latents: tuple[tuple[str, tuple[int, ...]], ...]
    additive: tuple[str, ...]
    arguments: tuple[tuple[str, str, tuple[int, ...], str], ...]
    contents: tuple[int | None, ...]
    log_density: float | None = None


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
        tuple(sorted(model.additive)),
        tuple(arguments),
        contents,
    )


def difference(old: ModelDescription, new: ModelDescription) -> str | None:
    """Return how two descriptions differ, in words, or None if they agree."""
    for what in ("latents", "size", "arguments", "additive"):
        before, now = getattr(old, what), getattr(new, what)
        if before != now:
            return f"{_NAMES[what]}: {_listed(before)} then, {_listed(now)} now"
    if not same_contents(old, new):
        return "the numbers in the model's array arguments"
    if old.log_density is None or new.log_density is None:
        return None
    apart = abs(old.log_density - new.log_density)
    if not apart <= ROUNDING * (1 + abs(old.log_density)):
        return (
            f"the log density at the plan's center, {old.log_density:.6g} then and "
            f"{new.log_density:.6g} now: another prior or likelihood"
        )
    return None


def same_contents(old: ModelDescription, new: ModelDescription) -> bool:
    """Return whether the arrays hold the same numbers, as far as both descriptions know them."""
    pairs = zip(old.contents, new.contents, strict=True)
    return all(before == now for before, now in pairs if None not in (before, now))


_NAMES = {
    "latents": "the latent sites and their unconstrained shapes",
    "size": "the number of rows",
    "arguments": "the model's arguments",
    "additive": "the sites that are sums over rows",
}


def _listed(value) -> str:
    return str(value) if isinstance(value, int) else ", ".join(map(str, value)) or "none"


def _text(leaf) -> str:
    """Return a static argument as text that is the same in another process."""
    return repr(leaf) if isinstance(leaf, int | float | bool | str | None) else type(leaf).__name__


def probe(model: MinibatchModel, data: tuple, constants: tuple, center: np.ndarray) -> float:
    """Return the log density at the center, estimated from the first rows in the user's order."""
    first = jax.tree.map(lambda x: jax.numpy.asarray(x[:PROBED]), data)
    constants = jax.tree.map(jax.numpy.asarray, constants)
    if "probe" not in model.kept:
        model.kept["probe"] = quick_jit(model.log_density, "little")
    flat = jax.numpy.asarray(np.asarray(center), float)
    return float(model.kept["probe"](flat, first, constants))
