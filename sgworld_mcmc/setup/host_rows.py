"""The rows of a run on several hosts, each of which has its own in memory."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.data.in_memory import part_edges, part_order
from sgworld_mcmc.hosts import all_of, own_rows, summed
from sgworld_mcmc.model.arguments import argument_names, is_array, leaf_name
from sgworld_mcmc.progress import count_rows
from sgworld_mcmc.protocols import ArrayTree
from sgworld_mcmc.setup.streamed.part import BYTES, FEWEST, LEAST, MOST, Part
from sgworld_mcmc.streaming.arrays import ALL, ArraySource
from sgworld_mcmc.streaming.rows import Rows
from sgworld_mcmc.streaming.source import Source, StreamedArray

__all__ = ["HostRows", "arguments_of_all"]


class HostRows(Rows):
    """The rows of this host, numbered as those of all hosts together.

    Parameters
    ----------
    leaves, double
        As for :class:`~sgworld_mcmc.streaming.rows.Rows`.
    words, shards
        Integers that decide the order of the rows of each of S parts.
    """

    def __init__(self, leaves: tuple, double: bool, words: np.ndarray, shards: int) -> None:
        super().__init__(leaves, double)
        self.words, self.shards = words, shards
        self.own, self.edges = own_rows(self.size), part_edges(self.size, shards)
        inside = range(self.own.start, self.own.stop)
        self.parts = [n for n in range(shards) if self.edges[n] in inside]
        self.orders = [part_order(words, n, self.edges) for n in self.parts]

    def pieces(self, length: int) -> Iterator[tuple[int, int]]:
        for start in range(self.own.start, self.own.stop, length):
            yield start, min(start + length, self.own.stop)

    def total(self, tree: ArrayTree) -> ArrayTree:
        return summed(tree)

    def again(self, double: bool) -> "HostRows":
        return HostRows(self.leaves, double, self.words, self.shards)

    def taken(self, first: int, last: int) -> list[tuple[np.ndarray, ...]]:
        """Return rows number ``first`` to before ``last`` of the order of each own part."""
        found = []
        for order in self.orders:
            rows = order[first:last] - self.own.start
            arrays = (np.asarray(leaf.origin)[rows] for leaf in self.leaves)
            pairs = zip(arrays, self.dtypes, strict=True)
            found.append(tuple(x.astype(dtype, copy=False) for x, dtype in pairs))
        return found

    def shared(self, first: int, last: int) -> tuple[np.ndarray, ...]:
        """Return these rows of all parts of all hosts, one of each part in turn."""
        parts = [part for host in all_of(self.taken(first, last)) for part in host]
        common = min(len(part[0]) for part in parts)
        mixed = (np.stack([x[:common] for x in leaf], axis=1) for leaf in zip(*parts, strict=True))
        rounds = (x.reshape(-1, *x.shape[2:]) for x in mixed)
        rest = ([x[common:] for x in leaf] for leaf in zip(*parts, strict=True))
        return tuple(np.concatenate([a, *b]) for a, b in zip(rounds, rest, strict=True))

    def part(self) -> Part:
        """Return a random part of all rows, the same in all hosts."""
        size = int(np.clip(self.size // LEAST, min(FEWEST, self.size), MOST))
        size = max(1, min(size, BYTES // max(self.row_bytes, 1)))
        rows = self.shared(0, max(1, size // self.shards))
        count_rows(len(rows[0]))
        with jax.enable_x64(self.double):
            return Part(tuple(from_numpy(x) for x in rows), None, 1)


def arguments_of_all(model: Callable, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Return the arguments with the rows of all hosts in place of this one's."""
    flat, treedef = jax.tree_util.tree_flatten_with_path((args, kwargs))
    names = [leaf_name(argument_names(model, args), path) for path, _ in flat]
    leaves = [leaf for _, leaf in flat]
    here = max((len(x) for x in leaves if is_array(x) and np.ndim(x)), default=0)
    sizes = all_of(here)
    size = sum(sizes)
    wanted = own_rows(size)
    problems = all_of(None if wanted.stop - wanted.start == here else (here, wanted))
    for number, problem in enumerate(problems):
        if problem is not None:
            raise ValueError(
                f"Process {number} was given {problem[0]} of {size} rows, and its own are "
                f"{problem[1]}: open data[own_rows({size})], with sgworld_mcmc.own_rows."
            )
    for place, leaf in enumerate(leaves):
        if is_array(leaf) and np.ndim(leaf) and len(leaf) == here:
            source = _OwnSource(np.asarray(leaf), size)
            leaves[place] = StreamedArray(names[place], source, ALL, leaf)
    return jax.tree.unflatten(treedef, leaves)


class _OwnSource(Source):
    """All rows of all hosts, of which this one can read its own."""

    def __init__(self, array: np.ndarray, size: int) -> None:
        self._rows, self._own = ArraySource(array), own_rows(size)
        self.columns, self.size = self._rows.columns, size

    def read(self, start: int, stop: int) -> dict[str, Any]:
        first = self._own.start
        return self._rows.read(start - first, stop - first)
