"""The compiled program of a run: draws of a chain (or chains), written where the last ones end.

It is compiled once for each shape of its arguments: what changes from block to block, numbers of
draws and calls among them, it is given when it runs. What is compiled for a sampler goes when that
goes: a process that fits one model after another would else end when it has too many programs.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.device_layout import Layout
from sgworld_mcmc.memory import check_room
from sgworld_mcmc.sampling.collection import Collected, Collection

__all__ = ["Recipe", "collect_traced", "first_draws", "program_for", "recipe_of", "room_for"]


class Recipe(NamedTuple):
    """The static values that are compiled into the program."""

    sampler: Any
    postprocess: Callable | None
    fields: tuple[str, ...]
    removed: tuple[str, ...]
    vectorized: bool
    thinned: bool
    shared: bool = False
    layout: Layout | None = None

    @property
    def axis(self) -> int:
        """The axis of the draws in what is collected: it comes after that of the chains."""
        return 1 if self.vectorized or self.shared else 0

    def write(self, buffer: jax.Array, x: jax.Array, chain: Any, place: Any) -> jax.Array:
        """Return the buffer with the draw of a chain, or of all chains, written at a place."""
        if self.shared:
            # Indices must have one type; in double precision a zero of Python is an int64.
            index = [jnp.asarray(i, jnp.int32) for i in (chain, place, *(0,) * jnp.ndim(x))]
            return jax.lax.dynamic_update_slice(buffer, x[None, None], index)
        return jax.lax.dynamic_update_index_in_dim(buffer, x, place, self.axis)


def recipe_of(
    sampler: Any,
    postprocess: Callable | None,
    collection: Collection,
    layout: Layout | None = None,
) -> Recipe:
    """Return what of a collection is compiled into the program that makes it."""
    fields, removed, vectorized = collection.fields, collection.removed, collection.vectorized
    thinned, shared = collection.thinning > 1, collection.chains > 0
    return Recipe(sampler, postprocess, fields, removed, vectorized, thinned, shared, layout)


def program_for(recipe: Recipe, work: str) -> Callable:
    """Return the compiled program of a recipe, for so much ``work`` as :func:`quick_jit` knows.

    It is the same one for as long as the recipe's sampler lives.
    """
    read = _reader(recipe)

    def advance(state, buffers, slot, turns, before, calls, args, kwargs, chain=0):
        numbers = slot, turns, before, calls
        return _advance(state, buffers, *numbers, args, kwargs, chain, recipe=recipe, read=read)

    # The program is made when first needed: to ask for the backend earlier would start JAX at
    # import. The draws so far are changed in place; the state may be the caller's, and is not.
    return _kept(recipe, work, lambda: quick_jit(advance, work, donate_argnames="buffers"))


def _reader(recipe: Recipe) -> Callable:
    """Return the compiled function of (state, args, kwargs): what is kept of a state, by field."""

    def read(state, args, kwargs):
        return _read(state, args, kwargs, recipe)

    # Inline: the program is the same as without, but the model is traced once for both uses.
    return _kept(recipe, "read", lambda: jax.jit(read, inline=True))


def _kept(recipe: Recipe, name: str, make: Callable) -> Any:
    """Return what was made for a recipe, the same for as long as its sampler lives.

    JAX's caches keep static arguments, and the defaults of a function's arguments, for good: a
    recipe is neither, but seen from within a function.
    """
    kept = vars(recipe.sampler).setdefault("_programs", {})
    if (recipe, name) not in kept:
        kept[recipe, name] = make()
    return kept[recipe, name]


def collect_traced(state, args, kwargs, recipe: Recipe, collection: Collection) -> Collected:
    """Make all draws in one call, for a transformation such as pmap over chains.

    Python does not run the program then, so there are no blocks; JAX refuses compiler options too.
    """
    calls, draws, thinning = collection.calls, collection.draws, collection.thinning
    read = _reader(recipe)
    shapes = jax.eval_shape(read, state, args, kwargs)
    room = lambda x: jnp.zeros(_with_axis(x.shape, max(draws, 1), recipe.axis), x.dtype)  # noqa: E731
    buffers = jax.tree.map(room, shapes)
    each = (thinning, draws) if draws else (0, 1)
    numbers = 0, each[1], calls, each[0]
    state, buffers = _advance(state, buffers, *numbers, args, kwargs, recipe=recipe, read=read)
    return Collected(buffers if draws else {}, state, draws)


def room_for(collection: Collection, state, args, kwargs, recipe: Recipe) -> Any:
    """Return zeros for all draws, on the host; the first call moves them to the device.

    Raises
    ------
    MemoryError
        If the machine has no room for so many.
    """
    read = _reader(recipe)
    shapes = read.eval_shape(state, args, kwargs)
    draws = collection.window or max(collection.draws, collection.room, 1)

    def zeros(x):
        shape = (collection.chains, *x.shape) if recipe.shared else x.shape
        shape = _with_axis(shape, draws, recipe.axis)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # random keys
            return jnp.zeros(shape, x.dtype)
        return np.zeros(shape, x.dtype)  # compiles nothing, and takes no memory yet

    copies = draws * max(1, collection.chains)
    check_room(copies * sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes)))
    return jax.tree.map(zeros, shapes)


def first_draws(buffers: Any, made: int, axis: int) -> Any:
    """Return the draws that have been made, without a copy if there is no room for more."""
    if made == jax.tree.leaves(buffers)[0].shape[axis]:
        return buffers
    kept = (slice(None),) * axis + (slice(made),)
    return jax.tree.map(lambda x: x[kept], buffers)


def _advance(state, buffers, slot, turns, before, calls, args, kwargs, chain=0, *, recipe, read):
    """Make ``turns`` draws of ``calls`` kernel calls each, the first after ``before`` more.

    They are written from ``slot`` on. The program is given all four numbers when it runs, so that
    the kernel is compiled once. The warm-up is a draw of many calls, which the first real draw
    overwrites. Several devices each run the program with what they have of chains and rows.
    """
    if recipe.layout is not None:
        one = recipe._replace(layout=None)

        def each(state, buffers, numbers, data):
            *numbers, chain = numbers
            given = (data, *args[1:]), kwargs, chain
            return _advance(state, buffers, *numbers, *given, recipe=one, read=read)

        numbers = (slot, turns, before, calls, chain)
        return recipe.layout.program(each, recipe.vectorized)(state, buffers, numbers, args[0])
    sample = lambda _, state: recipe.sampler.sample(state, args, kwargs)  # noqa: E731

    def keep(state, buffers, place):
        write = lambda buffer, x: recipe.write(buffer, x, chain, place)  # noqa: E731
        return jax.tree.map(write, buffers, read(state, args, kwargs))

    def call(number, carry):
        state, buffers = carry
        state = sample(number, state)
        return state, keep(state, buffers, slot + jnp.maximum(number - before, 0) // calls)

    def turn(number, carry):
        state, buffers = carry
        state = jax.lax.fori_loop(0, calls + jnp.where(number == 0, before, 0), sample, state)
        return state, keep(state, buffers, slot + number)

    # A loop within a loop reads a state only when a draw is complete. But where every call is a
    # draw, of a few microseconds perhaps, the second loop would cost more than it saves.
    if recipe.thinned:
        return jax.lax.fori_loop(0, turns, turn, (state, buffers))
    return jax.lax.fori_loop(0, before + turns * calls, call, (state, buffers))


def _read(state, args, kwargs, recipe):
    """Return what is kept of a state, by field."""
    transform = recipe.postprocess or recipe.sampler.postprocess_fn(args, kwargs)
    transform = jax.vmap(transform) if recipe.vectorized else transform
    computed = getattr(recipe.sampler, "computed_fields", {})
    values = {
        name: computed[name](state, args, kwargs) if name in computed else _field(state, name)
        for name in recipe.fields
    }
    sites = transform(values[recipe.fields[0]])
    if recipe.removed:
        sites = {name: value for name, value in sites.items() if name not in recipe.removed}
    return {**values, recipe.fields[0]: sites}


def _field(state: Any, path: str) -> Any:
    """Return a field of the state by its dotted name (``z.beta``), as in ``extra_fields``."""
    for name in path.split("."):
        state = state[name] if isinstance(state, dict) else getattr(state, name)
    return state


def _with_axis(shape: tuple[int, ...], length: int, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis:])
