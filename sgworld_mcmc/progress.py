"""Show what a run is doing while it lasts.

Code that takes long says where it is by ``stage("pilot chains")``, and perhaps ``fraction(0.3)``.
:func:`reporting` decides once whether this is shown; outside of it the calls do nothing.
"""

import importlib.util
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, NamedTuple

__all__ = [
    "Reporter",
    "Stage",
    "count_rows",
    "fraction",
    "is_counting",
    "is_watched",
    "reporting",
    "stage",
    "tell",
    "watch",
]

# The display is redrawn this many times in a second: more would take time from the run.
RATE = 4
# After this many seconds of a stage, the display says how long it will last.
SOON = 0.5


class Stage(NamedTuple):
    """What is known about a stage.

    Attributes
    ----------
    name
        Name of the stage, in words.
    seconds
        Time spent in the stage, all visits together.
    done
        Fraction of the stage that is done, 0 to 1; None if it is not known.
    active
        Whether the run is in this stage now.
    """

    name: str
    seconds: float
    done: float | None
    active: bool

    @property
    def left(self) -> float | None:
        """Estimated seconds to the end of the stage; None if they are not known."""
        if not self.active or not self.done or self.seconds < SOON:
            return None
        return self.seconds * (1 - self.done) / self.done


class Reporter:
    """The stages that a run has seen, and the one where it is.

    Attributes
    ----------
    portion
        (number, count): the fractions are those of chain ``number`` of ``count`` chains that run
        one after the other.
    rows
        Number of rows of the data read in each stage.
    counting
        Whether rows are counted even where it takes time to count them.
    told
        Sentences for the user, which are shown under the stages.
    """

    def __init__(self, counting: bool = False) -> None:
        self.name, self.portion = "", (0, 1)
        self.rows: dict[str, float] = {}
        self.counting = counting
        self.told: list[str] = []
        self._begin = self._since = time.perf_counter()
        self._seconds: dict[str, float] = {}
        self._done: dict[str, float] = {}

    def enter(self, name: str) -> None:
        """Leave the stage and begin or resume another."""
        now = time.perf_counter()
        if self.name:
            self._seconds[self.name] += now - self._since
        self._seconds.setdefault(name, 0.0)
        self.name, self._since = name, now

    def leave(self) -> None:
        """Leave the stage, and enter no other: the time that follows belongs to none."""
        if self.name:
            self._seconds[self.name] += time.perf_counter() - self._since
        self.name = ""

    def update(self, done: float) -> None:
        """Note which fraction of the stage is done."""
        number, count = self.portion
        self._done[self.name] = (number + done) / count

    def stages(self) -> list[Stage]:
        """Return all stages so far, in the order in which they were first entered."""
        now, name = time.perf_counter() - self._since, self.name
        return [
            Stage(key, spent + now * (key == name), self._done.get(key), key == name)
            for key, spent in list(self._seconds.items())
        ]

    def passes(self, size: int) -> float:
        """Return how often data of ``size`` rows have been read, in all stages together."""
        return sum(self.rows.values()) / size

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return time.perf_counter() - self._begin


_current: ContextVar[Reporter | None] = ContextVar("sgworld_mcmc_progress", default=None)


def stage(name: str) -> None:
    """Tell the reporter that another stage of the run begins."""
    reporter = _current.get()
    if reporter is not None:
        reporter.enter(name)


def tell(text: str) -> None:
    """Show a sentence to the user, if the stages are shown."""
    reporter = _current.get()
    if reporter is not None:
        reporter.told.append(text)


def count_rows(rows: float) -> None:
    """Add to the number of rows of the data that the present stage has read."""
    reporter = _current.get()
    if reporter is not None:
        reporter.rows[reporter.name] = reporter.rows.get(reporter.name, 0.0) + float(rows)


def is_counting() -> bool:
    """Return whether rows are counted even where it takes time to count them."""
    reporter = _current.get()
    return reporter is not None and reporter.counting


@contextmanager
def watch() -> Iterator[Reporter]:
    """Yield a reporter that keeps seconds and rows by stage of all runs inside.

    Examples
    --------
    >>> with watch() as seen:
    ...     stage("checking the model")
    ...     count_rows(100)
    >>> seen.rows, [each.name for each in seen.stages()]
    ({'checking the model': 100.0}, ['checking the model'])
    """
    token = _current.set(Reporter(counting=True))
    try:
        yield _current.get()
    finally:
        _current.reset(token)


def fraction(done: float) -> None:
    """Tell the reporter which fraction of the stage is done, 0 to 1."""
    reporter = _current.get()
    if reporter is not None:
        reporter.update(done)


@contextmanager
def reporting(shown: bool | None) -> Iterator[Reporter]:
    """Yield a reporter that keeps the stages inside, and show them if wanted.

    Parameters
    ----------
    shown
        Whether to show the stages; None shows them if :func:`is_watched` says so.
    """
    outer = _current.get()
    reporter = outer or Reporter()
    token = _current.set(reporter)
    try:
        with _display(reporter) if shown or (shown is None and is_watched()) else nullcontext():
            yield reporter
    finally:
        _current.reset(token)
        if outer is None:
            reporter.leave()


def is_watched() -> bool:
    """Return whether somebody is likely to look: at a terminal or a notebook, in no test or CI."""
    if any(name in os.environ for name in ("CI", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST")):
        return False
    if _in_notebook():
        # rich draws with ipywidgets, and complains if it is not installed.
        return importlib.util.find_spec("ipywidgets") is not None
    return bool(sys.stderr is not None and sys.stderr.isatty())


def _in_notebook() -> bool:
    if "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return getattr(shell, "kernel", None) is not None


def _display(reporter: Reporter) -> Any:
    # rich is imported only if something is shown: the import takes longer than a stage or two.
    from rich.console import Console
    from rich.live import Live

    return Live(
        console=Console(stderr=True),
        get_renderable=lambda: picture(reporter.stages(), reporter.told),
        refresh_per_second=RATE,
    )


def picture(stages: list[Stage], told: list[str] | tuple = ()) -> Any:
    """Return the stages as a table of rich: name, times, and a bar if the fraction is known.

    The sentences that are ``told`` follow.
    """
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    table.add_column(min_width=20)
    table.add_column(justify="right", min_width=9)
    table.add_column()
    table.add_column()
    for one in stages:
        bar = "" if one.done is None else ProgressBar(total=1.0, completed=one.done, width=30)
        left = "" if one.left is None else f"about {_duration(one.left)} left"
        part = "" if one.done is None else f"{one.done:4.0%}  {left}"
        style = None if one.active else "dim"
        table.add_row(one.name, _duration(one.seconds), bar, part, style=style)
    return Group(table, *told) if told else table


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
