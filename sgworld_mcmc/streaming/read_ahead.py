"""Make the values of an iterator in a thread, ahead of their use."""

import atexit
import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["ReadAhead"]


class ReadAhead:
    """The values of an iterator, made by a thread while earlier ones are used.

    An exception of the iterator is raised where its value would have been returned.

    Parameters
    ----------
    values
        Function that returns the iterator; it is called in the thread.
    depth
        Number of values that are made ahead.

    Examples
    --------
    >>> with ReadAhead(lambda: iter(range(3)), depth=1) as values:
    ...     list(values)
    [0, 1, 2]
    """

    def __init__(self, values: Callable[[], Iterator], depth: int) -> None:
        self._ready: queue.Queue = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, args=(values,), daemon=True)
        self._thread.start()
        _RUNNING.add(self)

    def __iter__(self) -> Iterator:
        return self

    def __next__(self) -> Any:
        while True:
            try:  # with a timeout Ctrl-C is seen while the disk is slow
                kind, value = self._ready.get(timeout=0.1)
                break
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    raise StopIteration from None
        if kind == "value":
            return value
        self._ready.put((kind, value))  # asked again, it says the same again
        raise StopIteration if value is None else value

    def __enter__(self) -> "ReadAhead":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the thread end."""
        self._stop.set()

    def wait(self, seconds: float) -> None:
        """Let the thread end, and wait for it, at most so long."""
        self.close()
        self._thread.join(seconds)

    def _work(self, values: Callable[[], Iterator]) -> None:
        try:
            for value in values():
                if not self._put(("value", value)):
                    return
            self._put(("end", None))
        except BaseException as error:
            self._put(("end", error))

    def _put(self, item: tuple) -> bool:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


# A thread that is still reading, or copying to a device, when Python ends would abort the process.
_RUNNING: weakref.WeakSet[ReadAhead] = weakref.WeakSet()
LONGEST_WAIT = 10.0


@atexit.register
def _wait_for_all() -> None:
    for each in list(_RUNNING):
        each.wait(LONGEST_WAIT)
