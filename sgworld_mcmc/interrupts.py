"""Handle Ctrl-C: wait so that it works, and keep the draws of a run that is interrupted."""

import functools
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

import jax

__all__ = ["InterruptedWarning", "Interrupts", "wait", "waiting"]

# The pause between two looks at a result, in seconds: the shortest and the longest one, and in
# between this fraction of the time that has passed. Each look costs about 20 microseconds.
SHORTEST, LONGEST, PART = 50e-6, 0.02, 1 / 16


class InterruptedWarning(UserWarning):
    """A run was interrupted and keeps the draws made so far."""


def wait(tree: Any) -> Any:
    """Wait for arrays that may take long, so that Ctrl-C works meanwhile; return them.

    ``jax.block_until_ready`` waits outside of Python, where a signal is not seen before the
    computation ends. This looks at the arrays again and again.
    """
    begin = time.perf_counter()
    for leaf in jax.tree.leaves(tree):
        # Random keys and NumPy arrays cannot say whether they are ready.
        ready = getattr(leaf, "is_ready", lambda: True)
        while not ready():
            passed = time.perf_counter() - begin
            time.sleep(min(max(PART * passed, SHORTEST), LONGEST))
    return jax.block_until_ready(tree)  # raises what went wrong


def waiting(function: Callable) -> Callable:
    """Return the function of arrays with a :func:`wait` for its result."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        return wait(function(*args, **kwargs))

    return call


class Interrupts:
    """What Ctrl-C does to a run.

    At first it raises KeyboardInterrupt as everywhere, since nothing can be lost. After
    :meth:`defer` the first Ctrl-C only sets :attr:`asked`, so that the block of draws that is
    being computed can be kept; the second one raises.
    """

    def __init__(self) -> None:
        self.asked = False
        self.reason = "interrupted"
        self._deferred = False

    def fail(self, reason: str) -> None:
        """End the run for another reason than Ctrl-C, and keep its draws."""
        self.asked, self.reason = True, f"cut short ({reason})"

    def defer(self) -> None:
        """Note the next Ctrl-C instead of raising it."""
        # Python delivers signals to the main thread only. A handler that somebody else has set
        # is there for a reason.
        main = threading.current_thread() is threading.main_thread()
        if main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            signal.signal(signal.SIGINT, self._note)
            self._deferred = True

    def release(self) -> None:
        """Let Ctrl-C raise again."""
        if self._deferred:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            self._deferred = False

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
