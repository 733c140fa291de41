"""How much memory there is, and whether rows and draws fit in it."""

import os
from pathlib import Path

__all__ = ["available_memory", "check_room", "fits", "readable"]

# Rows that take less than this part of the free memory are read, and a run goes as it does with
# arrays in memory: the set-up and the run have a copy each, and the files' pages are cached.
PART = 1 / 4
# Where nothing tells how much memory there is.
UNKNOWN = 4 * 2**30


def available_memory() -> int:
    """Return the number of bytes that this process may still take.

    It is the least of what the machine has free (``MemAvailable``), what the control group allows,
    and the limits of the process (``ulimit -d`` and ``-v``).
    """
    return max(0, min(_machine(), _control_group(), _limits()))


def check_room(nbytes: float) -> None:
    """Raise if draws of so many bytes do not fit in the free memory.

    Raises
    ------
    MemoryError
        The message says how much is needed, and what helps.
    """
    free = available_memory()
    if nbytes > free:
        raise MemoryError(
            f"The draws would take {readable(nbytes)} of memory, and {readable(free)} are free. "
            "Ask for fewer (`num_samples`, `num_chains`, `thinning`), keep functions of each draw "
            "instead of all its sites (`keep`, for instance predictions), or write the draws to "
            "disk: run(..., checkpoint=folder, draws='disk')."
        )


def fits(nbytes: int) -> bool:
    """Return whether rows of so many bytes are read: at most a quarter of the free memory."""
    return nbytes <= PART * available_memory()


def readable(nbytes: float) -> str:
    """Return a number of bytes for readers.

    Examples
    --------
    >>> readable(8.4e9), readable(3e6)
    ('8.4 GB', '3 MB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if nbytes >= size:
            return f"{nbytes / size:.3g} {unit}"
    return f"{nbytes:.0f} bytes"


def _machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = {line.split(":")[0]: line.split()[1] for line in lines}
        return int(found["MemAvailable"]) * 1024
    except (OSError, KeyError, ValueError):
        pass
    try:  # systems without /proc: half of all memory
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    except (OSError, ValueError, AttributeError):
        return UNKNOWN


def _control_group() -> int:
    group = Path("/sys/fs/cgroup")
    try:
        most = (group / "memory.max").read_text().strip()
        if most == "max":
            return 2**62
        # Pages of files count as used, and are given back when they are needed.
        held = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        used = int((group / "memory.current").read_text())
        return int(most) - used + int(held.get("file", 0))
    except (OSError, ValueError):
        return 2**62


def _limits() -> int:
    """Return what the limits of the process leave of data and address space."""
    left = 2**62
    try:
        import resource
    except ImportError:  # Windows has no such limits
        return left
    try:
        status = Path("/proc/self/status").read_text().splitlines()
        used = {line.split(":")[0]: line.split()[1] for line in status if line.endswith("kB")}
    except OSError:
        used = {}
    for limit, name in ((resource.RLIMIT_DATA, "VmData"), (resource.RLIMIT_AS, "VmSize")):
        soft, _ = resource.getrlimit(limit)
        if soft != resource.RLIM_INFINITY:
            left = min(left, soft - 1024 * int(used.get(name, 0)))
    return left
