"""Measure the seconds of compiling and of running separately, in a single run."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import jax

__all__ = ["Seconds", "measure"]


class Seconds:
    """Wall-clock seconds spent in compiling (tracing and lowering included) and in the rest."""

    def __init__(self) -> None:
        self.compile = 0.0
        self.run = 0.0


@contextmanager
def measure() -> Iterator[Seconds]:
    """Measure the block; the fields are filled in when it ends.

    JAX reports the duration of every trace, lowering and compilation. These nest (a function is
    traced while another one is), so that their union in time counts, not their sum. Subtracting the
    time of a second run would not work for NumPyro's NUTS, which compiles again in every run.

    Examples
    --------
    >>> import jax
    >>> with measure() as seconds:
    ...     _ = jax.jit(lambda x: x + 1)(1.0).block_until_ready()
    >>> seconds.compile > 0 and seconds.run > 0
    True
    """
    seconds, spans = Seconds(), []

    def listen(event, duration, **_):
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            spans.append((now - duration, now))

    jax.monitoring.register_event_duration_secs_listener(listen)
    start = time.perf_counter()
    try:
        yield seconds
    finally:
        total = time.perf_counter() - start
        jax.monitoring.unregister_event_duration_listener(listen)
        seconds.compile = min(total, _union(spans, start))
        seconds.run = total - seconds.compile


def _union(spans, start):
    length, end = 0.0, start
    for left, right in sorted(spans):
        length += max(0.0, right - max(left, end))
        end = max(end, right)
    return length
