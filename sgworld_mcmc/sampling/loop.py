"""The loop of a run: Python calls one compiled program for block after block of draws.

``numpyro.infer.MCMC`` makes a new compiled function at every run without progress bar, also on
data of the same shape; this loop is compiled once for each shape of the arguments, whatever the
numbers of calls. It transforms only the draws that are kept to constrained space, not those that
are thinned out. Between two blocks a run can be interrupted, and can say how far it is.
"""

import time
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from sgworld_mcmc.compilation import quick_jit
from sgworld_mcmc.devices import Layout
from sgworld_mcmc.interrupts import Interrupts, wait
from sgworld_mcmc.progress import fraction, stage
from sgworld_mcmc.streaming.source import SourceError

__all__ = ["Collected", "Collection", "Progress", "collect", "empty_buffers", "first_draws"]

# A run that reads more numbers than this takes more than about a second.
LONG = 2**29
# A block should take this many seconds: a user hardly notices it, and a block costs about 0.1 ms.
BLOCK_SECONDS = 0.4


class Collection(NamedTuple):
    """What a run collects.

    Attributes
    ----------
    calls
        Kernel calls before the first draw counts.
    draws
        Number of draws to keep.
    thinning
        Number of kernel calls for each draw.
    fields
        Names of the state fields to collect; the first is the kernel's sample field.
    removed
        Sites to leave out of the draws.
    vectorized
        Whether the state has a leading axis of chains.
    room
        Number of draws to make room for, if more than ``draws``: runs that have the same room
        share one program.
    chain, chains
        The number of a chain that is not vectorized, and how many share the buffers: their draws
        have a leading axis of chains then. Zero chains for buffers without such an axis.
    made
        Number of draws that an earlier process has made. ``calls`` are those that it has left.
    window
        Number of draws that the buffers hold at a time, if not all of them: whoever is told of the
        :class:`Progress` takes them when the buffers are full. Zero for all.
    """

    calls: int
    draws: int
    thinning: int
    fields: tuple[str, ...]
    removed: tuple[str, ...]
    vectorized: bool
    room: int = 0
    chain: int = 0
    chains: int = 0
    made: int = 0
    window: int = 0


class Progress(NamedTuple):
    """How far a chain (or chains) is between two blocks.

    Attributes
    ----------
    state
        The state at the last draw that is complete, or within the warm-up.
    calls
        Kernel calls of the warm-up that are left.
    made
        Number of draws.
    base
        Number of the draw in the first place of the buffers.
    buffers
        The arrays with the draws, valid until the next block begins.
    """

    state: Any
    calls: int
    made: int
    base: int
    buffers: Any


class Collected(NamedTuple):
    """What a run returns.

    Attributes
    ----------
    draws
        Maps the name of a field to its draws, (draws, ...) or with a leading axis of chains
        (chains, draws, ...).
    state
        The state at the last draw.
    made
        Number of draws, fewer than asked for if the run was interrupted.
    buffers
        The arrays in which the next of several chains writes its draws.
    """

    draws: dict[str, Any]
    state: Any
    made: int
    buffers: Any = None


def collect(
    state: Any,
    args: tuple,
    kwargs: dict,
    *,
    sampler: Any,
    collection: Collection,
    postprocess: Callable | None,
    numbers: float = 0.0,
    block: int | None = None,
    interrupts: Interrupts | None = None,
    buffers: Any = None,
    note: Callable[[Progress], None] | None = None,
    portions: Callable | None = None,
) -> Collected:
    """Advance a chain (or chains) and stack its draws.

    Parameters
    ----------
    state
        The state to start from.
    args, kwargs
        Arguments of the kernel.
    sampler, postprocess
        The kernel, and the user's transformation of the draws or None; both are static.
    collection
        What to collect.
    numbers
        Count of the numbers that the run will read, if known: a long run is compiled to run fast.
    block
        Number of kernel calls in a block; None lets the clock decide. The draws do not depend on
        it.
    interrupts
        The record that notes a Ctrl-C after the first draw; without it every Ctrl-C raises.
    buffers
        Those of the chain before, if chains that are made one after the other share them, or
        :func:`empty_buffers` with the draws of an earlier process.
    note
        Function that is told of the progress after every block.
    portions
        Function of the compiled program and the state that returns a program whose data are
        streamed (:class:`sgworld_mcmc.streaming.portions.Portions`); None for data in memory.
    """
    layout = getattr(args[0], "layout", None) if args else None
    recipe = _recipe(sampler, postprocess, collection, layout)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(state)):
        return _collect_traced(state, args, kwargs, recipe, collection)
    program = _compiled("much" if numbers > LONG else "some")
    advance = partial(program, kwargs=kwargs, recipe=recipe, chain=np.int32(collection.chain))
    if portions is None:
        advance = partial(advance, args=args)
    if buffers is None:
        stage("compiling")
        buffers = _room(collection, state, args, kwargs, recipe)
    if layout is not None:
        state, buffers = layout.place_chains((state, buffers), recipe.vectorized)
    if portions is None:
        run = _Clockwork(advance, buffers, block, agreed=_one if layout is None else layout.agreed)
        made = _collect_blocks(run, state, recipe, collection, interrupts, note)
        return made if layout is None else layout.gathered(made)
    advance = portions(advance, state)
    try:
        run = _Clockwork(advance, buffers, block, advance.most)
        return _collect_blocks(run, state, recipe, collection, interrupts, note)
    finally:
        advance.close()


def empty_buffers(
    state: Any,
    args: tuple,
    kwargs: dict,
    *,
    sampler: Any,
    collection: Collection,
    postprocess: Callable | None,
) -> Any:
    """Return room for the draws, on the host: the arguments are those of :func:`collect`."""
    return _room(collection, state, args, kwargs, _recipe(sampler, postprocess, collection))


class _Recipe(NamedTuple):
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


def _recipe(
    sampler: Any,
    postprocess: Callable | None,
    collection: Collection,
    layout: Layout | None = None,
) -> _Recipe:
    fields, removed, vectorized = collection.fields, collection.removed, collection.vectorized
    thinned, shared = collection.thinning > 1, collection.chains > 0
    return _Recipe(sampler, postprocess, fields, removed, vectorized, thinned, shared, layout)


@cache
def _compiled(work: str) -> Callable:
    # The program is made when first needed: to ask for the backend earlier would start JAX at
    # import. The draws so far are changed in place; the state may be the caller's, and is not.
    return quick_jit(_advance, work, static_argnames="recipe", donate_argnames="buffers")


def _advance(state, buffers, slot, turns, before, calls, args, kwargs, recipe, chain=0):
    """Make ``turns`` draws of ``calls`` kernel calls each, the first after ``before`` more.

    They are written from ``slot`` on. The program is given all four numbers when it runs, so that
    the kernel is compiled once. The warm-up is a draw of many calls, which the first real draw
    overwrites. Several devices each run the program with what they have of chains and rows.
    """
    if recipe.layout is not None:
        one = recipe._replace(layout=None)

        def each(state, buffers, numbers, data):
            *numbers, chain = numbers
            return _advance(state, buffers, *numbers, (data, *args[1:]), kwargs, one, chain)

        numbers = (slot, turns, before, calls, chain)
        return recipe.layout.program(each, recipe.vectorized)(state, buffers, numbers, args[0])
    sample = lambda _, state: recipe.sampler.sample(state, args, kwargs)  # noqa: E731

    def keep(state, buffers, place):
        write = lambda buffer, x: recipe.write(buffer, x, chain, place)  # noqa: E731
        return jax.tree.map(write, buffers, _read(state, args, kwargs, recipe))

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


# Inline: the program is the same as without, but the model is traced once for both uses.
@partial(jax.jit, static_argnames="recipe", inline=True)
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


def _collect_traced(state, args, kwargs, recipe: _Recipe, collection: Collection) -> Collected:
    """Make all draws in one call, for a transformation such as pmap over chains.

    Python does not run the program then, so there are no blocks; JAX refuses compiler options too.
    """
    calls, draws, thinning = collection.calls, collection.draws, collection.thinning
    shapes = jax.eval_shape(partial(_read, recipe=recipe), state, args, kwargs)
    room = lambda x: jnp.zeros(_with_axis(x.shape, max(draws, 1), recipe.axis), x.dtype)  # noqa: E731
    buffers = jax.tree.map(room, shapes)
    each = (thinning, draws) if draws else (0, 1)
    state, buffers = _advance(state, buffers, 0, each[1], calls, each[0], args, kwargs, recipe)
    return Collected(buffers if draws else {}, state, draws)


def _collect_blocks(
    run: "_Clockwork", state, recipe: _Recipe, collection: Collection, interrupts, note
) -> Collected:
    """Make the draws block by block; ``state`` is that of the last draw that is complete."""
    state = run.blank(state)

    if collection.calls:
        stage("warm-up")
    stopped = lambda: run.agreed(interrupts is not None and interrupts.asked)  # noqa: E731
    left = collection.calls
    while left and not stopped():
        calls = min(left, run.calls())
        state, left = run(state, 0, 1, calls), left - calls
        fraction(1 - left / collection.calls)
        if note is not None:
            note(Progress(state, left, collection.made, collection.made, run.buffers))
    if collection.draws == 0:
        return Collected({}, state, 0)

    stage("draws")
    run.forget()  # a call of the warm-up may take less time than one of a draw
    made, left, ahead = collection.made, collection.thinning, state
    base, window = (made, collection.window) if collection.window else (0, collection.draws)
    while made < collection.draws and not stopped():
        try:
            calls = run.calls()
        except SourceError as error:  # the draws made so far are kept, as after Ctrl-C
            if made == 0 or interrupts is None:
                raise
            interrupts.fail(str(error))
            break
        if left == collection.thinning <= calls:
            turns = min(calls // left, min(collection.draws, base + window) - made)
            ahead, left = run(ahead, made - base, turns, left), 0
        else:  # the block is part of a draw: it writes what the complete draw will overwrite
            calls, turns = min(left, calls), 1
            ahead, left = run(ahead, made - base, 1, calls), left - calls
        if left == 0:
            made, left, state = made + turns, collection.thinning, ahead
            fraction(made / collection.draws)
            if interrupts is not None:
                interrupts.defer()  # from now on there is something to lose
            if note is not None:
                note(Progress(state, 0, made, base, run.buffers))
            if made - base == window:
                base = made
    if recipe.shared or collection.window:
        return Collected({}, state, made, run.buffers)
    return Collected(first_draws(run.buffers, made, recipe.axis), state, made)


def first_draws(buffers: Any, made: int, axis: int) -> Any:
    """Return the draws that have been made, without a copy if there is no room for more."""
    if made == jax.tree.leaves(buffers)[0].shape[axis]:
        return buffers
    kept = (slice(None),) * axis + (slice(made),)
    return jax.tree.map(lambda x: x[kept], buffers)


def _room(collection: Collection, state, args, kwargs, recipe: _Recipe) -> Any:
    """Return zeros for all draws, on the host; the first call moves them to the device."""
    shapes = _read.eval_shape(state, args, kwargs, recipe=recipe)
    draws = collection.window or max(collection.draws, collection.room, 1)

    def zeros(x):
        shape = (collection.chains, *x.shape) if recipe.shared else x.shape
        shape = _with_axis(shape, draws, recipe.axis)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.extended):  # random keys
            return jnp.zeros(shape, x.dtype)
        return np.zeros(shape, x.dtype)  # compiles nothing

    return jax.tree.map(zeros, shapes)


def _with_axis(shape: tuple[int, ...], length: int, axis: int) -> tuple[int, ...]:
    return (*shape[:axis], length, *shape[axis:])


def _one(number: int) -> int:
    """Return the number on which a single process agrees with itself."""
    return number


class _Clockwork:
    """Run blocks, and choose their lengths from the time that the last one has taken."""

    def __init__(
        self,
        advance: Callable,
        buffers: Any,
        block: int | None,
        most: Callable[[], int] | None = None,
        agreed: Callable[[int], int] = _one,
    ) -> None:
        self.agreed = agreed
        self._advance, self.buffers, self._block, self._most = advance, buffers, block, most
        self._seconds = None  # that a kernel call has taken

    def blank(self, state: Any) -> Any:
        """Compile the program by a block without draws, so that the other blocks can be timed."""
        return self._run(state, 0, 0, 0)

    def forget(self) -> None:
        """Begin again with a short block."""
        self._seconds = None

    def calls(self) -> int:
        """Return the number of kernel calls that a block may make."""
        calls = self._block
        if calls is None:
            calls = 1 if self._seconds is None else max(1, int(BLOCK_SECONDS / self._seconds))
        calls = self.agreed(calls)  # clocks of several hosts differ
        # Streamed data are in memory for so many calls.
        return calls if self._most is None else min(calls, self._most())

    def __call__(self, state: Any, slot: int, turns: int, calls: int) -> Any:
        """Make ``turns`` draws of ``calls`` calls each from ``slot`` on; return the state."""
        begin = time.perf_counter()
        expected = (self._seconds or np.inf) * turns * calls
        state = self._run(state, slot, turns, calls)
        # To look whether the result is there costs time, and a short block need not be
        # interrupted: it takes no longer than the answer to Ctrl-C may.
        state = jax.block_until_ready(state) if expected < 2 * BLOCK_SECONDS else wait(state)
        self._seconds = (time.perf_counter() - begin) / (turns * calls)
        return state

    def _run(self, state, slot, turns, calls):
        numbers = (np.int32(x) for x in (slot, turns, 0, calls))
        state, self.buffers = self._advance(state, self.buffers, *numbers)
        return state
