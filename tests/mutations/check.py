"""Do the tests notice deliberate faults? ``make mutations`` says so.

Each fault of :mod:`faults` is made in a copy of the package, one at a time, and the fast tests that
should notice it are run there. A fault that no test notices has survived, and asks for a test.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from faults import FAULTS, Fault

ROOT = Path(__file__).resolve().parents[2]
COPIED = ("sgworld_mcmc", "sgworld_benchmarks", "tests", "pyproject.toml")
# A test run that takes longer is stopped: a fault may lead into a loop without an end.
MOST_SECONDS = 600
# Exit codes of pytest.
PASSED, FAILED = 0, 1


def main(argv: list[str] | None = None) -> int:
    """Check the faults and return 1 if one has survived."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("words", nargs="*", help="check faults with one of these in their names")
    wanted = parser.parse_args(argv).words
    faults = [f for f in FAULTS if not wanted or any(word in f.name for word in wanted)]
    with tempfile.TemporaryDirectory(prefix="sgworld-mutations-") as folder:
        copy, cache = Path(folder) / "copy", Path(folder) / "cache"
        _copy(copy)
        tests = tuple(dict.fromkeys(test for fault in faults for test in fault.tests))
        code, text = _run(copy, cache, tests)
        if code != PASSED:
            print(f"The tests fail without a fault:\n{text}")
            return 2
        survived = [fault for fault in faults if not _killed(fault, copy, cache)]
    print(f"{len(faults) - len(survived)} of {len(faults)} faults killed")
    return int(bool(survived))


def mutated(text: str, fault: Fault) -> str:
    """Return the text with the fault; raise unless there is exactly one place for it."""
    if text.count(fault.old) != 1:
        raise ValueError(
            f"{fault.old!r} occurs {text.count(fault.old)} times in {fault.file}: adapt the fault "
            f"{fault.name!r} to the code."
        )
    return text.replace(fault.old, fault.new)


def _killed(fault: Fault, copy: Path, cache: Path) -> bool:
    path = copy / "sgworld_mcmc" / fault.file
    before = path.read_text()
    path.write_text(mutated(before, fault))
    start = time.perf_counter()
    try:
        code, text = _run(copy, cache, fault.tests)
    finally:
        path.write_text(before)
    if code not in (PASSED, FAILED):
        raise RuntimeError(f"The tests of {fault.name!r} could not be run:\n{text}")
    killer = next((x for x in text.splitlines() if x.startswith(("FAILED", "ERROR"))), "")
    word = "survived" if code == PASSED else "killed"
    seconds = time.perf_counter() - start
    print(f"{word:9}{fault.name:58}{seconds:5.0f} s  {killer[:90]}", flush=True)
    return code == FAILED


def _copy(target: Path) -> None:
    target.mkdir()
    skip = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=skip)
        else:
            shutil.copy(source, target / name)


def _run(copy: Path, cache: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run fast tests in the copy until one fails; return pytest's exit code and output."""
    environment = os.environ | {
        "PYTHONPATH": str(copy),
        "PYTHONDONTWRITEBYTECODE": "1",
        # Programs without a fault in them are compiled once.
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    command = [sys.executable, "-m", "pytest", "-m", "not slow", "-x", "-q", "--tb=line"]
    command += ["-rfE", "-p", "no:cacheprovider", *(f"tests/{test}" for test in tests)]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            timeout=MOST_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        return FAILED, f"FAILED after {error.timeout} s"
    return done.returncode, done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
