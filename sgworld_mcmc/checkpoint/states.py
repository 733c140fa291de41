"""The states of the chains, written by orbax: whole or not at all."""

import contextlib
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from sgworld_mcmc.arrays import from_numpy
from sgworld_mcmc.checkpoint.copies import is_key
from sgworld_mcmc.device_layout import on_this_host

__all__ = ["Point", "States", "host_leaves", "like"]

# The last states are kept, and the ones before in case that a disk has lost the last.
KEPT = 2
# Ends the name of an array without elements.
EMPTY = "_empty"


class Point(NamedTuple):
    """Where a run is.

    Attributes
    ----------
    chain
        The number of the chain, if they are made one after the other.
    calls
        Kernel calls of the warm-up that are left.
    made
        Number of draws of this chain.
    state
        Arrays of the state of this chain, or of all chains.
    ended
        Arrays of the states of the chains before, with an axis of chains; empty if there are none.
    """

    chain: int
    calls: int
    made: int
    state: tuple[np.ndarray, ...]
    ended: tuple[np.ndarray, ...] = ()


class States:
    """The folder with the states.

    Parameters
    ----------
    folder
        Absolute path of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder, self._manager, self._next = folder, None, 0

    def save(self, point: Point) -> None:
        """Write a point of the run; the one before stays until this one is whole."""
        ocp = _orbax()
        tree = _named("state", point.state) | _named("ended", point.ended)
        numbers = {"chain": point.chain, "calls": point.calls, "made": point.made}
        tree |= {name: np.asarray(value, np.int64) for name, value in numbers.items()}
        with _quiet():
            self._open(ocp).save(self._next, args=ocp.args.StandardSave(tree))
        self._next += 1

    def last(self) -> Point | None:
        """Return the last point that was written whole; None if there is none.

        Raises
        ------
        ValueError
            If there are points, and none of them can be read.
        """
        if not self._folder.exists():
            return None
        ocp = _orbax()
        with _quiet():
            manager = self._open(ocp)
            steps = sorted(manager.all_steps(), reverse=True)
            self._next = steps[0] + 1 if steps else 0
            problem = None
            for step in steps:
                try:
                    return _point(manager.restore(step, args=ocp.args.StandardRestore()))
                except Exception as error:  # orbax raises errors of many kinds
                    problem = error
        if problem is not None:
            raise ValueError(
                f"`checkpoint`: the states in {str(self._folder)!r} cannot be read "
                f"({type(problem).__name__}: {problem}). Begin anew in another folder."
            ) from problem
        return None

    def remove(self) -> None:
        """Remove all states."""
        self.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Let go of what orbax holds."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self, ocp) -> Any:
        if self._manager is None:
            alone = {}
            if jax.process_count() > 1:  # of a run on several hosts the first process writes
                both = ocp.options.MultiprocessingOptions
                alone["multiprocessing_options"] = both(primary_host=0, active_processes={0})
                alone["create"] = False
                self._folder.mkdir(exist_ok=True)
            options = ocp.CheckpointManagerOptions(
                **alone,
                max_to_keep=KEPT,
                cleanup_tmp_directories=True,
                # The thread that writes the draws first waits for them: this call may take long.
                enable_async_checkpointing=False,
            )
            self._manager = ocp.CheckpointManager(self._folder, options=options)
        return self._manager


def _named(kind: str, leaves: tuple[np.ndarray, ...]) -> dict[str, np.ndarray]:
    """Return arrays by name; of those without elements, which orbax refuses, their shapes."""
    return {
        f"{kind}_{n:06d}" + ("" if x.size else EMPTY): x if x.size else np.array(x.shape)
        for n, x in enumerate(leaves)
    }


def _point(tree: dict[str, Any]) -> Point:
    def arrays(kind):
        names = sorted(name for name in tree if name.startswith(kind))
        values = (np.asarray(tree[name]) for name in names)
        pairs = zip(names, values, strict=True)
        return tuple(np.zeros(x) if name.endswith(EMPTY) else x for name, x in pairs)

    chain, calls, made = (int(tree[name]) for name in ("chain", "calls", "made"))
    return Point(chain, calls, made, arrays("state_"), arrays("ended_"))


def host_leaves(state: Any) -> tuple[np.ndarray, ...]:
    """Return copies of all arrays of a state on the host; random keys as their words."""
    return tuple(np.array(on_this_host(x)) for x in jax.tree.leaves(state))


def like(state: Any, leaves: tuple[np.ndarray, ...]) -> Any:
    """Return arrays from :func:`host_leaves` as a state like the given one.

    Raises
    ------
    ValueError
        If the arrays are those of another state.
    """
    now, structure = jax.tree.flatten(state)
    shapes = [np.shape(jax.random.key_data(x) if is_key(x) else x) for x in now]
    if shapes != [x.shape for x in leaves]:
        raise ValueError(
            "The checkpoint holds chains of another kind: begin anew in another folder."
        )

    def one(x, leaf):
        if is_key(x):
            return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(x))
        return from_numpy(leaf, x.dtype)

    return jax.tree.unflatten(structure, map(one, now, leaves))


def _orbax():
    try:
        import orbax.checkpoint as ocp
    except ImportError as error:
        raise ImportError(
            "`checkpoint` needs orbax-checkpoint: pip install 'sgworld-mcmc[checkpoints]'"
        ) from error
    return ocp


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep orbax's remarks on single-process layouts off the screen; errors are raised anyway."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
