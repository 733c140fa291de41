"""Settings for all tests: quick compilation, a shared cache, and global settings that must stay."""

import atexit
import gc
import os
import shutil
import tempfile
from importlib.metadata import version
from pathlib import Path

import pytest

# Compilation takes most of the tests' time, and few loops run long enough to repay it. An unknown
# flag ends the process, so that the last one is only given to versions that are known to have it.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=1 --xla_llvm_disable_expensive_passes=true"
    + (" --xla_cpu_use_fusion_emitters=false" if version("jaxlib").startswith("0.10.") else ""),
)

# Several tests compile the same programs, and the next run of the tests compiles nearly all of them
# again. All worker processes share a folder of compiled programs, which begins with those of
# earlier runs. They are kept when the tests have ended by themselves: a process that is killed may
# leave half a file, which would be read for ever after.
KEPT, MOST_BYTES = Path(__file__).parent.parent / ".jax_cache", 2**31


def pytest_sessionfinish(exitstatus):
    """Keep the programs that this run has compiled, if it has ended by itself."""
    if FOLDER is not None and exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
        for program in FOLDER.iterdir():
            program.replace(KEPT / program.name)


def _folder_of_programs():
    """Return a new folder with the programs of earlier runs; None if a parent process has one."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return None
    KEPT.mkdir(exist_ok=True)
    kept = [path for path in KEPT.iterdir() if path.is_file()]
    folder = Path(tempfile.mkdtemp(prefix="run-", dir=KEPT))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    if sum(path.stat().st_size for path in kept) > MOST_BYTES:
        for path in kept:
            path.unlink(missing_ok=True)
        kept = []
    for path in kept:
        os.link(path, folder / path.name)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder)
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
    os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
    # XLA's own caches, of GPUs, would make the folder's name a part of what is compiled.
    os.environ["JAX_PERSISTENT_CACHE_ENABLE_XLA_CACHES"] = "none"
    return folder


FOLDER = _folder_of_programs()

import jax  # noqa: E402 (the settings come first)

# Files of fixtures have no examples, and share one name, under which Python finds one of them only.
collect_ignore_glob = ["*conftest.py"]

# Linux allows a process 65 530 maps of memory, of which a compiled program takes some dozens; XLA
# ends the process if it gets no more. A worker forgets its programs when it has so many.
MANY_MAPS = 20_000
_SETTINGS = ("jax_enable_x64", "jax_debug_nans", "jax_default_matmul_precision")


def pytest_collection_modifyitems(items):
    """Mark the examples in docstrings that run a benchmark or a whole sampler as slow."""
    for item in items:
        if isinstance(item, pytest.DoctestItem):
            runs_sampler = any("mcmc.run(" in example.source for example in item.dtest.examples)
            if runs_sampler or "sgworld_benchmarks" in item.path.parts:
                item.add_marker(pytest.mark.slow)


@pytest.fixture(autouse=True)
def global_settings_stay():
    """Check that neither the package nor a test leaves JAX's global settings changed."""
    before = [getattr(jax.config, name) for name in _SETTINGS]
    yield
    assert [getattr(jax.config, name) for name in _SETTINGS] == before


@pytest.fixture(autouse=True, scope="module")
def programs_leave_room():
    """Forget compiled programs before their number ends the process."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        jax.clear_caches()
        gc.collect()
