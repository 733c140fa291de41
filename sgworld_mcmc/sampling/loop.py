"""The loop of a run: Python calls one compiled program for block after block of draws.

``numpyro.infer.MCMC`` makes a new compiled function at every run without progress bar, also on
data of the same shape; this loop is compiled once for each shape of the arguments, whatever the
numbers of calls. It transforms only the draws that are kept to constrained space, not those that
are thinned out. Between two blocks a run can be interrupted, and can say how far it is.
"""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.interrupts import Interrupts, wait
from sgworld_mcmc.progress import fraction, stage
from sgworld_mcmc.sampling.collection import Collected, Collection, Progress
from sgworld_mcmc.sampling.program import (
    Recipe,
    collect_traced,
    first_draws,
    program_for,
    recipe_of,
    room_for,
)
from sgworld_mcmc.streaming.source import SourceError

__all__ = ["collect", "empty_buffers"]

# A run that reads more numbers than this takes more than about a second.
LONG = 2**29
# A block should take this many seconds: a user hardly notices it, and a block costs about 0.1 ms.
BLOCK_SECONDS = 0.4


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
    recipe = recipe_of(sampler, postprocess, collection, layout)
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(state)):
        return collect_traced(state, args, kwargs, recipe, collection)
    program = program_for(recipe, "much" if numbers > LONG else "some")
    advance = partial(program, kwargs=kwargs, chain=np.int32(collection.chain))
    if portions is None:
        advance = partial(advance, args=args)
    if buffers is None:
        stage("compiling")
        buffers = room_for(collection, state, args, kwargs, recipe)
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
    return room_for(collection, state, args, kwargs, recipe_of(sampler, postprocess, collection))


def _collect_blocks(
    run: "_Clockwork", state, recipe: Recipe, collection: Collection, interrupts, note
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
