"""The loop of a run: one compiled program, kept from run to run.

``numpyro.infer.MCMC`` makes a new compiled function at every run without progress bar, also on
data of the same shape; this loop is compiled once for each shape of the arguments. It also
transforms to constrained space the draws that are kept, not every warm-up step.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from sgworld_mcmc.compilation import quick_jit

__all__ = ["Plan", "collect"]

# Numbers that are read in a second or so.
LONG = 2**29


class Plan(NamedTuple):
    """What a run collects; static.

    Attributes
    ----------
    calls
        Kernel calls before the first draw counts.
    draws
        Number of draws to keep.
    thinning
        Kernel calls for each draw.
    fields
        State fields to collect; the first is the kernel's sample field.
    removed
        Sites to leave out of the draws.
    vectorized
        Whether the state has a leading axis of chains.
    """

    calls: int
    draws: int
    thinning: int
    fields: tuple[str, ...]
    removed: tuple[str, ...]
    vectorized: bool


def collect(
    state: Any,
    args: tuple,
    kwargs: dict,
    *,
    sampler: Any,
    plan: Plan,
    postprocess: Callable | None,
    numbers: float = 0.0,
) -> tuple[dict[str, Any], Any]:
    """Advance a chain (or chains) and stack its draws.

    Parameters
    ----------
    state
        Where to start.
    args, kwargs
        Arguments of the kernel.
    sampler, plan, postprocess
        Static: the kernel, what to collect, and the user's transformation of the draws or None.
    numbers
        Of the data that the run will read, if known: a long one is compiled to run fast.

    Returns
    -------
    dict, state
        Field name to draws, (draws, ...) or with several chains (draws, chains, ...); and the
        last state.
    """
    traced = any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(state))
    # Compiler options are refused inside another transformation, such as pmap over chains.
    run = _collect if traced else _compiled("much" if numbers > LONG else "some")
    return run(state, args, kwargs, sampler=sampler, plan=plan, postprocess=postprocess)


@cache
def _compiled(work: str) -> Callable:
    # Made when first needed: asking for the backend earlier would start JAX at import.
    return quick_jit(_collect, work, static_argnames=("sampler", "plan", "postprocess"))


def _collect(state, args, kwargs, *, sampler, plan, postprocess):
    sample = lambda _, state: sampler.sample(state, args, kwargs)  # noqa: E731

    def read(state):
        transform = postprocess or sampler.postprocess_fn(args, kwargs)
        transform = jax.vmap(transform) if plan.vectorized else transform
        values = {field: _field(state, field) for field in plan.fields}
        sites = transform(values[plan.fields[0]])
        if plan.removed:
            sites = {name: value for name, value in sites.items() if name not in plan.removed}
        return {**values, plan.fields[0]: sites}

    def draw(state, calls):
        state = jax.lax.fori_loop(0, calls, sample, state)
        return state, read(state)

    if plan.draws == 0:
        return {}, jax.lax.fori_loop(0, plan.calls, sample, state)
    # The calls before the first draw belong to its turn, so that the kernel is compiled once.
    calls = jnp.full((plan.draws,), plan.thinning).at[0].add(plan.calls)
    state, draws = jax.lax.scan(draw, state, calls)
    return draws, state


def _field(state: Any, path: str) -> Any:
    """A field of the state by its dotted name, such as ``z.beta``: NumPyro's ``extra_fields``."""
    for name in path.split("."):
        state = state[name] if isinstance(state, dict) else getattr(state, name)
    return state
