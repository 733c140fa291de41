"""Write in the background, one thing after the other, until something fails."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

__all__ = ["Writer"]


class Writer:
    """A thread that writes while the chains go on.

    Attributes
    ----------
    failure
        What went wrong; None as long as nothing did. Nothing is written after a failure.
    """

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self._threads = ThreadPoolExecutor(1, "sgworld-checkpoint")
        self._future: Future | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being written."""
        return self._future is not None and not self._future.done()

    def submit(self, task: Callable[[], None]) -> None:
        """Run a task once all earlier ones are done, unless one of them has failed."""
        self._future = self._threads.submit(self._run, task)

    def wait(self) -> None:
        """Wait until everything is written, or has failed."""
        if self._future is not None:
            self._future.result()

    def close(self) -> None:
        """Wait, and end the thread."""
        self._threads.shutdown(wait=True)

    def _run(self, task: Callable[[], None]) -> None:
        if self.failure is not None:
            return
        try:
            task()
        except Exception as error:  # of the disk, of orbax, of Zarr: the run goes on without
            self.failure = error
