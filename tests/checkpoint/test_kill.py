"""SIGKILL at random moments of the set-up, the warm-up and the draws: the same draws in the end."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parent
# The stage in which each process is killed, at most so many seconds after it has begun.
SETUP = ("checking the model", "searching the mode", "pilot chains")
LATER = ("warm-up", "warm-up", "warm-up", "draws", "draws", "draws", "draws")
SECONDS = 0.5


def start(*arguments):
    # A killed process may leave half of a compiled program, which other tests must not read.
    programs = str(Path(arguments[2]).parent / "programs")
    path = os.pathsep.join([str(HERE.parent.parent), str(HERE.parent)])
    return subprocess.Popen(
        [sys.executable, "-W", "ignore", str(HERE / "killed_run.py"), *map(str, arguments)],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": path, "JAX_COMPILATION_CACHE_DIR": programs},
        text=True,
    )


def kill_in(stage, seconds, *arguments):
    """Start a process, kill it in a stage, and return the stage in which it was killed."""
    child, seen = start(*arguments), "nothing"
    for line in child.stdout:
        seen = line.strip()
        if seen in (stage, "checking the draws"):
            break
    time.sleep(seconds)
    os.kill(child.pid, signal.SIGKILL)
    rest = child.stdout.read().split("\n")
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL, f"the process ended before it was killed ({seen})"
    return [seen, *filter(None, rest)][-1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "draws", "stages", "streams"),
    [
        ("vectorized", "memory", SETUP + LATER, False),
        ("sequential", "disk", ("pilot chains", "warm-up", "draws", "draws"), False),
        ("vectorized", "disk", ("gradient of all rows", "warm-up", "draws", "draws"), True),
    ],
)
def test_killed_runs_go_on_bit_for_bit(tmp_path, method, draws, stages, streams):
    whole, resumed = tmp_path / "whole.npz", tmp_path / "resumed.npz"
    rows = tmp_path / "y.npy" if streams else "memory"
    if streams:
        np.save(rows, np.random.default_rng(0).standard_normal(20_001).astype(np.float32))
    assert start("none", method, draws, whole, rows).wait() == 0
    random, seen = np.random.default_rng(int.from_bytes(os.urandom(4))), []
    folder = tmp_path / "run"
    for stage in stages:
        seconds = random.uniform(0, SECONDS if stage in LATER else 0.1)
        seen.append(kill_in(stage, seconds, folder, method, draws, resumed, rows))
        assert not resumed.exists()
    assert {"warm-up", "draws"} <= set(seen), seen
    assert start(folder, method, draws, resumed, rows).wait() == 0
    with np.load(whole) as one, np.load(resumed) as other:
        np.testing.assert_array_equal(other["mu"], one["mu"])
        np.testing.assert_array_equal(other["keys"], one["keys"])
        assert np.isfinite(one["mu"]).all() and one["mu"].std() > 0
