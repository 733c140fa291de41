"""Runs on several hosts: local processes over loopback, one of which may be killed."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sgworld_mcmc import own_rows
from sgworld_mcmc.hosts import all_of, from_first, summed

pytest.importorskip("orbax.checkpoint")

ROOT = Path(__file__).parent.parent.parent
SCRIPT = str(ROOT / "examples" / "several_hosts.py")
PARTS, LONG = 4, 400


def free_address():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def environment_of_host():
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    environment.pop("XLA_FLAGS", None)
    return environment


def start(folder, processes, draws, run, *more):
    """Start the processes of a run; their outputs are files of the folder."""
    address, environment = free_address(), environment_of_host()
    # A killed process may leave half of a compiled program, which other tests must not read.
    environment["JAX_COMPILATION_CACHE_DIR"] = str(folder / "programs")
    found = []
    for number in range(processes):
        command = [sys.executable, "-W", "ignore", SCRIPT, "X.npy", "y.npy", "--run", run]
        command += ["--coordinator", address, "--processes", processes, "--process", number]
        command += [
            "--parts",
            PARTS,
            "--draws",
            draws,
            "--batch-size",
            50_000,
            "--every",
            0.2,
            *more,
        ]
        with open(folder / f"log{number}", "w") as log:
            found.append(
                subprocess.Popen(
                    list(map(str, command)),
                    cwd=folder,
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            )
    return found


def finish(folder, processes):
    """Wait for the processes, and return their exit codes and the last process's output."""
    try:
        codes = [process.wait(300) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return codes, [(folder / f"log{n}").read_text() for n in range(len(processes))]


def drawn(folder, processes, draws, run):
    codes, logs = finish(folder, start(folder, processes, draws, run, "--out", f"{run}.npz"))
    assert codes == [0] * processes, logs
    return np.load(folder / f"{run}.npz")["beta"].astype(float)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("hosts")
    command = [sys.executable, SCRIPT, "--make", "X.npy", "y.npy", "--rows=200003", "--features=5"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=made, check=True, env=environment)
    return made


@pytest.fixture(scope="module")
def whole(folder):
    """The draws of two processes that nobody has interrupted."""
    return drawn(folder, 2, LONG, "whole")


def apart(draws, others):
    """Return how far draws are apart, in posterior standard deviations.

    Rows whose logit is exactly zero have another gradient (docs/benchmarks.md): a few draws may be
    farther apart than rounding.
    """
    return float(np.quantile(np.abs(draws - others).max(-1), 0.99) / others.std((0, 1)).min())


@pytest.mark.slow
def test_four_processes_have_the_draws_of_two(folder, whole):
    assert whole.shape == (2, LONG, 5)
    # The posterior of so many rows is narrow, and about the values that made them.
    np.testing.assert_allclose(whole.mean((0, 1)), [1, -1, 0, 0, 0], atol=0.1)
    four = drawn(folder, 4, 100, "four")
    assert apart(four, whole[:, :100]) < 1e-3


@pytest.mark.slow
@pytest.mark.parametrize(("lost", "processes"), [(1, 4), (0, 1)])
def test_a_lost_process_ends_the_run_and_another_number_goes_on(folder, whole, lost, processes):
    run = f"lost{lost}"
    started = start(folder, 2, LONG, run)
    states = folder / run / "states"
    deadline = time.monotonic() + 200
    while not (states.is_dir() and any(x.name.isdigit() for x in states.iterdir())):
        assert time.monotonic() < deadline and started[0].poll() is None, finish(folder, started)
        time.sleep(0.05)
    os.kill(started[lost].pid, signal.SIGKILL)
    begin = time.monotonic()
    other = started[1 - lost]
    assert other.wait(60) != 0
    assert time.monotonic() - begin < 60
    _, logs = finish(folder, started)
    assert "cannot reach the others any more" in logs[1 - lost], logs
    assert f"The last whole checkpoint in '{run}' stays valid" in logs[1 - lost].replace(
        str(folder) + "/", ""
    )
    assert apart(drawn(folder, processes, LONG, run), whole) < 1e-3


@pytest.mark.slow
def test_a_second_run_keeps_the_set_up_unless_one_host_has_other_rows(folder):
    address, script = free_address(), str(Path(__file__).parent / "two_runs.py")
    hosts = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", script, address, str(number)],
            cwd=folder,
            env=environment_of_host(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    found = [json.loads(host.communicate(timeout=200)[0].splitlines()[-1]) for host in hosts]
    assert found[0] == found[1] and found[0]["kept"] == [True, False]
    same, other = found[0]["apart"]
    assert same == 0 and other > 0.01


@pytest.mark.slow
def test_rows_that_are_not_a_process_s_own_are_refused(folder):
    program = (
        "wrong = 'slice(own_rows(len(y)).start // 2, own_rows(len(y)).stop)'\n"
        f"text = open({SCRIPT!r}).read().replace('own_rows(len(y))', wrong)\n"
        "exec(compile(text, 'several_hosts.py', 'exec'))\n"
    )
    (folder / "all_rows.py").write_text(program)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules[__name__], "SCRIPT", "all_rows.py")
        codes, logs = finish(folder, start(folder, 2, 10, "refused"))
    assert 0 not in codes
    for log in logs:
        assert "Process 0 was given 100001 of 250004 rows" in log and "own_rows(250004)" in log


def test_one_process_is_all_of_them():
    assert own_rows(7) == slice(0, 7)
    assert all_of("x") == ["x"] and from_first(lambda: 3) == 3
    np.testing.assert_array_equal(summed((np.ones(2),))[0], np.ones(2))
    with pytest.raises(ValueError, match="cause"):
        from_first(lambda: (_ for _ in ()).throw(ValueError("cause")))
