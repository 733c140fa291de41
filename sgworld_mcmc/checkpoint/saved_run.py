"""Make the draws of a run that is saved: where it goes on, what is written, and when."""

import time
import warnings
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.checkpoint.copies import is_key, on_host, written
from sgworld_mcmc.checkpoint.draws_store import DrawsStore, leaves_of
from sgworld_mcmc.checkpoint.folder import Folder
from sgworld_mcmc.checkpoint.states import Point, States, host_leaves, like
from sgworld_mcmc.checkpoint.stored_draws import StoredDraws
from sgworld_mcmc.checkpoint.writer import Writer
from sgworld_mcmc.sampling.collection import Collected, Collection, Progress
from sgworld_mcmc.sampling.loop import collect, empty_buffers

__all__ = ["CheckpointWarning", "SavedRun"]

# With the draws on disk, so many bytes of them are made before they are written. Twice as many may
# wait to be written.
WINDOW_BYTES = 2**24
WAITING = 2


class CheckpointWarning(UserWarning):
    """A run can't write its checkpoint any more, and goes on in memory."""


class SavedRun:
    """A run with a checkpoint, chain after chain if they are not advanced together.

    Parameters
    ----------
    folder
        The folder, held by this process.
    every
        Seconds between two checkpoints.
    on_disk
        Whether the draws are to stay on disk.
    chains
        Number of chains.
    hidden
        Names of the fields that only the checks of the draws need.
    """

    def __init__(
        self, folder: Folder, every: float, on_disk: bool, chains: int, hidden: tuple[str, ...]
    ) -> None:
        self._folder, self._every, self._on_disk = folder, every, on_disk
        self._chains, self._hidden = chains, hidden
        self._states, self._writer = States(folder.states), Writer()
        self._store, self._leaves, self._readable = None, None, True
        if not folder.has_plan:  # what an earlier run may have left is not of this one
            self._states.remove()
        # Where an earlier process has come to, what is still to be written, and the present chain.
        self._found = self._states.last()
        self._pieces: deque = deque()
        self._collection, self._last, self._taken, self._saved = None, None, 0, True
        self._ended: tuple[np.ndarray, ...] = ()
        # Whoever is told where the run goes on: the other processes of one on several hosts.
        self.told: Callable | None = None
        self._made, self._began, self._warned = 0, time.monotonic(), False

    def collect(
        self,
        state: Any,
        args: tuple,
        kwargs: dict,
        *,
        sampler: Any,
        collection: Collection,
        postprocess: Callable | None,
        buffers: Any,
        **options: Any,
    ) -> Collected:
        """Make the draws as :func:`sgworld_mcmc.sampling.loop.collect` does, and save them."""
        room = partial(empty_buffers, state, args, kwargs, sampler=sampler, postprocess=postprocess)
        first = buffers is None
        if self._on_disk:
            one = room(collection=collection._replace(window=1))
            size = sum(x.nbytes for x in jax.tree.leaves(one))
            window = min(collection.draws, max(1, WINDOW_BYTES // max(size, 1)))
            collection = collection._replace(window=window)
        if first:
            buffers = room(collection=collection)
            self._open_store(buffers, collection)
        self._collection, found = collection, self._found
        if found is not None and first and not self._on_disk:
            buffers = self._filled(buffers, found)
        begin = state
        if found is not None and collection.chain < found.chain:
            ended = tuple(x[collection.chain] for x in found.ended)
            return self._end(like(state, ended), collection.draws, buffers)
        if found is not None and collection.chain == found.chain:
            begin = like(state, found.state)
            collection = collection._replace(calls=found.calls, made=found.made)
            self._ended = found.ended
            if found.made == collection.draws:
                self._append_ended(begin)
                return self._end(begin, found.made, buffers)
        self._collection, self._taken = collection, collection.made
        self._last, self._saved = None, True
        options |= {"sampler": sampler, "collection": collection, "postprocess": postprocess}
        if self.told is not None:
            self.told(begin, collection, None if found is None else buffers, ended=False)
        try:
            made = collect(begin, args, kwargs, buffers=buffers, note=self._note, **options)
        except KeyboardInterrupt:
            # Within a block the draws that nobody has taken are out of reach.
            if self._last is not None and self._last.made == self._taken:
                self._save_last()
            raise
        self._made = made.made
        alone = collection.chains == 0 or collection.chain == collection.chains - 1
        if alone or made.made < collection.draws:
            self._save_last()
        elif self._last is not None:
            self._take(self._last)
        self._append_ended(made.state)
        return made

    def draws(self, made: int, chains: int) -> Any:
        """Return the draws that lie on disk, by field; as arrays if the disk has failed."""
        stored = StoredDraws(self._store, self._leaves, chains, made, self._folder.path)
        if not self._pieces:
            return stored
        everything = {}
        for number, leaf in enumerate(jax.tree.leaves(self._leaves)):
            array = np.zeros((chains, made, *leaf.shape), leaf.dtype)
            if self._readable:
                there = self._store.read(leaf, made, chains)
                array[:, : there.shape[1]] = there
            for chain, start, piece in self._pieces:
                which = slice(None) if chain is None else chain
                stop = start + piece[number].shape[0 if chain is not None else 1]
                if chain is None or chain < chains:
                    array[which, start:stop] = piece[number]
            everything[leaf] = array
        return jax.tree.map(lambda leaf: everything[leaf], self._leaves)

    @property
    def made(self) -> int:
        """Number of draws of the last chain."""
        return self._made

    @property
    def on_disk(self) -> bool:
        """Whether the draws stay on disk."""
        return self._on_disk

    def close(self) -> None:
        """End the writing, and let other processes have the folder."""
        self._writer.close()
        self._states.close()
        self._folder.release()

    def warn(self, error: Exception | None = None) -> None:
        """Warn once that nothing more can be written."""
        error = error or self._writer.failure
        if error is None or self._warned:
            return
        self._warned, self._writer.failure = True, error
        warnings.warn(
            f"The checkpoint {str(self._folder.path)!r} cannot be written any more "
            f"({type(error).__name__}: {error}). The run goes on to its end in memory. The last "
            "whole checkpoint stays valid: once the cause is mended, resume=True goes on from "
            "there.",
            CheckpointWarning,
            stacklevel=2,
        )

    def _append_ended(self, state: Any) -> None:
        leaves = host_leaves(state)
        before = self._ended or tuple(x[None][:0] for x in leaves)
        pairs = zip(before, leaves, strict=True)
        self._ended = tuple(np.concatenate([a, b[None]]) for a, b in pairs)

    def _note(self, progress: Progress) -> None:
        """Look whether it is time to write; the run waits for copies on the host only."""
        self._last, self._saved = progress, False
        full = self._collection.window and progress.made - progress.base == self._collection.window
        if self._writer.failure is not None:
            self.warn()
            if full:
                self._take(progress)
            return
        if time.monotonic() - self._began >= self._every and not self._writer.busy:
            self._save(progress)
        elif full:
            self._take(progress)
            if len(self._pieces) > WAITING:
                self._writer.wait()
            self._writer.submit(self._write_pieces)

    def _save_last(self) -> None:
        if self._last is not None and not self._saved:
            if self._writer.failure is None:
                self._save(self._last)
            elif self._on_disk:
                self._take(self._last)
        self._writer.wait()
        self.warn()

    def _save(self, progress: Progress) -> None:
        self._take(progress)
        collection = self._collection
        state = host_leaves(progress.state)
        point = Point(collection.chain, progress.calls, progress.made, state, self._ended)
        self._began, self._saved = time.monotonic(), True

        def task():
            self._write_pieces()
            self._states.save(point)

        self._writer.submit(task)

    def _write_pieces(self) -> None:
        while self._pieces:
            self._store.append(*self._pieces[0])
            self._pieces.popleft()  # a piece that could not be written stays

    def _take(self, progress: Progress) -> None:
        """Copy the draws that nobody has taken yet to the host."""
        start, stop = self._taken, progress.made
        self._taken = max(start, stop)
        # After a failure the draws stay in the buffers, if they hold all of them.
        if stop <= start or (self._writer.failure is not None and not self._on_disk):
            return
        collection = self._collection
        shared, axis = collection.chains > 0, 1 if collection.vectorized else 0

        def part(x):
            place = start - progress.base, stop - progress.base
            if shared:
                return on_host(x, 1, *place)[collection.chain]
            return on_host(x, axis, *place)

        piece = [part(x) for x in jax.tree.leaves(progress.buffers)]
        chain = None if collection.vectorized else collection.chain
        self._pieces.append((chain, start, piece))

    def _open_store(self, buffers: Any, collection: Collection) -> None:
        several = collection.vectorized or collection.chains > 0
        leading = 2 if several else 1
        one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[leading:], x.dtype), buffers)
        one = {name: one[name] for name in collection.fields}
        self._leaves = leaves_of(one, self._hidden)
        # The order of the leaves is that of the buffers: dicts are sorted by their keys.
        leaves = jax.tree.leaves(self._leaves)
        path, together = self._folder.path, collection.vectorized
        self._store = DrawsStore(path, leaves, self._chains, collection.draws, together)
        if self._found is None:
            try:
                self._store.create()
            except OSError as error:
                self._readable = False
                self.warn(error)
        else:
            self._store.clean()

    def _filled(self, buffers: Any, found: Point) -> Any:
        """Return the buffers with the draws that an earlier process has made."""
        collection = self._collection
        leaves = jax.tree.leaves(self._leaves)
        values, structure = jax.tree.flatten(buffers)
        filled = []
        for leaf, x in zip(leaves, values, strict=True):
            there = [found.made]
            if collection.chains:
                there = [collection.draws] * found.chain + there
            words = self._store.read(leaf, max(there))
            if collection.vectorized:
                x = written(x, (slice(None), slice(found.made)), words)
            else:
                for chain, made in enumerate(there):
                    place = (chain, slice(made)) if collection.chains else slice(made)
                    x = written(x, place, words[chain, :made])
            filled.append(x)
        return jax.tree.unflatten(structure, filled)

    def _end(self, state: Any, made: int, buffers: Any) -> Collected:
        """Return the draws of a chain that an earlier process has finished."""
        self._made = made
        if self.told is not None:
            self.told(state, self._collection, buffers, ended=True)
        buffers = jax.tree.map(lambda x: x if is_key(x) else from_numpy(x), buffers)
        if self._collection.chains or self._on_disk:
            return Collected({}, state, made, buffers)
        return Collected(buffers, state, made)
