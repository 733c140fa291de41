"""What a run shows of itself, and when it shows nothing."""

import io
import os
import pty
import subprocess
import sys
import time

import jax
import models
import numpy as np
import pytest
from rich.console import Console

from sgworld_mcmc import SGWORLD, progress

ENVIRONMENT = ("CI", "PYTEST_XDIST_WORKER", "PYTEST_CURRENT_TEST")
SCRIPT = """
import jax, models
from sgworld_mcmc import SGWORLD
settings = dict(batch_size=20, step_size=0.1, gradient="plain", num_samples=20, num_warmup=2)
mcmc = SGWORLD(models.gaussian, **settings)
mcmc.run(jax.random.key(0), models.regression_data()[1])
"""
EVERY = [
    "checking the model",
    "searching the mode",
    "coordinates",
    "pilot chains",
    "noise of the rows",
    "choosing settings",
    "control variates",
    "compiling",
    "warm-up",
    "draws",
    "checking the draws",
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def go_outside(monkeypatch):
    """As if no test and no CI job were running, in a terminal."""
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stderr", Terminal())


def test_watched_in_a_terminal_only_outside_of_tests_and_jobs(monkeypatch):
    go_outside(monkeypatch)
    assert progress.is_watched()
    for name in ENVIRONMENT:
        monkeypatch.setenv(name, "1")
        assert not progress.is_watched()
        monkeypatch.delenv(name)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert not progress.is_watched()
    monkeypatch.setattr(sys, "stderr", None)  # pythonw
    assert not progress.is_watched()


def test_watched_in_a_notebook_that_has_widgets(monkeypatch):
    go_outside(monkeypatch)
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr(progress, "_in_notebook", lambda: True)
    for there in (True, False):
        found = object() if there else None
        monkeypatch.setattr(progress.importlib.util, "find_spec", lambda name, found=found: found)
        assert progress.is_watched() is there


def test_stages_keep_order_time_and_fraction(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    with progress.reporting(False) as reporter:
        for name, seconds in (("a", 1), ("b", 2), ("a", 4), ("draws", 6)):
            progress.stage(name)
            now[0] += seconds
        reporter.portion = 1, 2
        progress.fraction(0.5)
        stages = reporter.stages()
    assert [(s.name, s.seconds, s.done, s.active) for s in stages] == [
        ("a", 5, None, False),
        ("b", 2, None, False),
        ("draws", 6, 0.75, True),
    ]
    assert stages[2].left == pytest.approx(2)  # a quarter after three quarters took six seconds
    assert stages[0].left is None
    console = Console(file=io.StringIO(), width=120)
    console.print(progress.picture(stages))
    lines = console.file.getvalue().splitlines()
    assert [line.split()[0] for line in lines] == ["a", "b", "draws"]
    assert "6.0 s" in lines[2] and "75%" in lines[2] and "about 2.0 s left" in lines[2]


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.14, "3.1 s"), (61, "1 min 01 s"), (7322, "2 h 02 min")]
)
def test_durations(seconds, text):
    assert progress._duration(seconds) == text


def test_nothing_happens_where_nobody_reports():
    progress.stage("a")
    progress.fraction(0.5)
    with progress.reporting(False) as reporter:
        pass
    progress.stage("b")
    assert reporter.stages() == []


def test_a_run_goes_through_every_stage(monkeypatch):
    seen = []
    enter = progress.Reporter.enter
    monkeypatch.setattr(
        progress.Reporter, "enter", lambda self, name: seen.append(name) or enter(self, name)
    )
    mcmc = SGWORLD(models.gaussian, num_samples=20, num_warmup=2)
    mcmc.run(jax.random.key(0), models.regression_data()[1])
    assert list(dict.fromkeys(seen)) == EVERY
    reporter = mcmc._reporter
    assert reporter._done["warm-up"] == reporter._done["draws"] == 1
    assert sum(s.seconds for s in reporter.stages()) == pytest.approx(reporter.seconds, abs=0.5)


def _output(terminal):
    """What a script prints, its standard error being a terminal or not."""
    environment = {k: v for k, v in os.environ.items() if k not in ENVIRONMENT}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path), "TERM": "xterm", "COLUMNS": "100"}
    master, slave = pty.openpty() if terminal else os.pipe()
    command = [sys.executable, "-c", SCRIPT]
    process = subprocess.Popen(command, stderr=slave, env=environment)
    os.close(slave)
    text = b""
    while True:
        try:
            new = os.read(master, 4096)
        except OSError:  # how a terminal ends
            break
        if not new:
            break
        text += new
    os.close(master)
    assert process.wait() == 0, text.decode()
    return text.decode()


@pytest.mark.parametrize("terminal", [True, False])
@pytest.mark.slow
def test_a_script_shows_its_stages_in_a_terminal(terminal):
    text = _output(terminal)
    if not terminal:
        assert text == ""
        return
    for name in ("checking the model", "compiling", "warm-up", "draws"):
        assert name in text
    assert "100%" in text


@pytest.mark.parametrize("shown", [True, False])
def test_it_is_shown_or_not_as_asked(shown, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO() if shown else Terminal())
    with progress.reporting(shown):
        progress.stage("pilot chains")
    assert ("pilot chains" in sys.stderr.getvalue()) is shown


def test_importing_the_package_imports_no_display():
    script = "import sys, sgworld_mcmc; sys.exit('rich.live' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", script], check=True, env=environment)


def test_other_values_are_refused():
    with pytest.raises(TypeError, match="`progress_bar` must be True, False or None"):
        SGWORLD(models.gaussian, progress_bar="yes")


def test_saying_where_one_is_costs_next_to_nothing():
    with progress.reporting(False):
        begin = time.perf_counter()
        for done in np.linspace(0, 1, 1000):
            progress.stage("draws")
            progress.fraction(done)
    assert time.perf_counter() - begin < 0.1
