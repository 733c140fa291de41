"""Advance groups of vectorized chains side by side, each group in a thread of its own.

On a CPU a compiled loop of small operations runs on one core, however many there are: XLA divides
only large operations over threads. Chains do not know of each other, so that the same program
advances one group of them on every core, and is compiled once, for the chains of one group.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

__all__ = ["SideBySide", "join_chains", "may_be_joined", "split_chains"]

# The draws of the groups are put together at the end, which takes their memory twice: beyond this
# many bytes all chains are one group. Their operations are then large enough to be divided.
MOST_BYTES = 2**27


def split_chains(tree: Any) -> list:
    """Return a pytree of arrays with a leading axis of chains as one part for each core.

    The parts are equally large; there is one of them where the chains cannot be divided. Nothing
    is compiled.
    """
    leaves = jax.tree.leaves(tree)
    if jax.default_backend() != "cpu" or jax.local_device_count() > 1:
        return [tree]
    chains = leaves[0].shape[0]
    groups = next(n for n in range(min(_cores(), chains), 0, -1) if chains % n == 0)
    if groups == 1:
        return [tree]
    size = chains // groups

    def part(number):
        rows = lambda x: x[number * size : (number + 1) * size]  # noqa: E731
        return jax.tree.map(lambda x: _on_host(rows, x), tree)

    return [part(number) for number in range(groups)]


def may_be_joined(buffers: Any, groups: int) -> bool:
    """Return whether there is memory to join the draws of groups that have such buffers each."""
    return groups * sum(x.nbytes for x in jax.tree.leaves(buffers)) <= MOST_BYTES


def join_chains(parts: list) -> Any:
    """Return pytrees of arrays with a leading axis of chains as one; compiles nothing."""
    return jax.tree.map(lambda *x: _on_host(lambda *rows: np.concatenate(rows), *x), *parts)


class SideBySide:
    """A compiled program for several groups of chains; its states and buffers are lists.

    Parameters
    ----------
    program
        A ``jax.jit`` function of (state, buffers, ...) that returns both.
    groups
        Number of groups.
    """

    def __init__(self, program: Callable, groups: int) -> None:
        self._program, self._compiled = program, None
        # The precision is a setting of each thread.
        self._double = bool(jax.config.jax_enable_x64)
        # A thread executes what it has been given one after the other: each group has its own.
        self._threads = [ThreadPoolExecutor(1) for _ in range(groups)]

    def __call__(self, states: list, buffers: list, *numbers: Any, **static: Any) -> tuple:
        """Advance all groups; the results are there when their computation ends."""
        if self._compiled is None:
            # Tracing depends on settings of JAX that belong to this thread.
            lowered = self._program.lower(states[0], buffers[0], *numbers, **static)
            self._compiled = lowered.compile()
        dynamic = {name: value for name, value in static.items() if name != "recipe"}
        given = zip(self._threads, states, buffers, strict=True)
        calls = [
            thread.submit(self._advance, state, own, *numbers, **dynamic)
            for thread, state, own in given
        ]
        made = [call.result() for call in calls]
        return [state for state, _ in made], [own for _, own in made]

    def _advance(self, *args: Any, **static: Any) -> tuple:
        with jax.enable_x64(self._double):
            return self._compiled(*args, **static)


def _on_host(function: Callable, *arrays: Any) -> jax.Array:
    """Return the result of a function of NumPy arrays, which random keys become too."""
    if jax.dtypes.issubdtype(arrays[0].dtype, jax.dtypes.extended):
        rows = [np.asarray(jax.random.key_data(x)) for x in arrays]
        return jax.random.wrap_key_data(
            jax.device_put(function(*rows)), impl=jax.random.key_impl(arrays[0])
        )
    return jax.device_put(function(*(np.asarray(x) for x in arrays)), may_alias=True)


def _cores() -> int:
    """Return the number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
