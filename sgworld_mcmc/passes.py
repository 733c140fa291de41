"""How often a set-up reads the data: rows and seconds by stage, for whoever watches.

With many rows nothing costs as much as reading them all. Each part of the set-up that reads rows
says how many; :func:`watch` adds them up. Nobody watches an ordinary run, which then counts
nothing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["Watch", "count_rows", "is_watched", "stage", "watch"]


class Watch:
    """What has been read, and how long it took.

    Attributes
    ----------
    rows
        Rows read by stage.
    seconds
        Seconds by stage, compilation included.
    """

    def __init__(self) -> None:
        self.rows: dict[str, float] = {}
        self.seconds: dict[str, float] = {}
        self._stages: list[str] = []

    def passes(self, size: int) -> float:
        """How often data of ``size`` rows have been read, all stages together."""
        return sum(self.rows.values()) / size


_WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


@contextmanager
def watch() -> Iterator[Watch]:
    """Watch every set-up, and every check after a run, within a ``with`` statement.

    Examples
    --------
    >>> with watch() as seen:
    ...     with stage("shuffle"):
    ...         count_rows(100)
    >>> seen.passes(50), list(seen.seconds)
    (2.0, ['shuffle'])
    """
    token = _WATCH.set(Watch())
    try:
        yield _WATCH.get()
    finally:
        _WATCH.reset(token)


def is_watched() -> bool:
    """Whether anybody watches: what costs time to count need not be counted otherwise."""
    return _WATCH.get() is not None


def count_rows(rows: float) -> None:
    """Say that so many rows are read, by the innermost stage that is under way."""
    seen = _WATCH.get()
    if seen is not None:
        name = seen._stages[-1] if seen._stages else "other"
        seen.rows[name] = seen.rows.get(name, 0) + float(rows)


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Name what is done within a ``with`` statement; its seconds exclude those of inner stages."""
    seen = _WATCH.get()
    if seen is None:
        yield
        return
    start, inner = time.perf_counter(), sum(seen.seconds.values())
    seen._stages.append(name)
    try:
        yield
    finally:
        seen._stages.pop()
        nested = sum(seen.seconds.values()) - inner
        spent = time.perf_counter() - start - nested
        seen.seconds[name] = seen.seconds.get(name, 0.0) + spent
