"""The folder of a checkpoint: whose it is, what it holds, and who is at work in it."""

import errno
import json
import os
from pathlib import Path
from typing import Any

__all__ = ["Folder", "open_folder"]

REQUEST, PLAN, LOCK, STATES = "run.json", "plan.npz", "lock", "states"


class Folder:
    """A folder that this process holds: see :func:`open_folder`.

    Attributes
    ----------
    path
        Its absolute path.
    request
        What was asked of the run that the folder holds; None if it holds none.
    """

    def __init__(self, path: Path, lock: Any) -> None:
        self.path, self._lock = path, lock
        self.request = _request(path)

    @property
    def plan(self) -> Path:
        """The path of the plan."""
        return self.path / PLAN

    @property
    def states(self) -> Path:
        """The path of the states."""
        return self.path / STATES

    @property
    def has_plan(self) -> bool:
        """Whether the set-up was finished, so that there is something to go on with."""
        return self.plan.exists()

    def begin(self, request: dict[str, str]) -> None:
        """Note what is asked of a run that begins."""
        for part in self.path.glob("*.part"):
            part.unlink(missing_ok=True)
        temporary = self.path / f"{REQUEST}.part"
        temporary.write_text(json.dumps(request, indent=1, sort_keys=True))
        os.replace(temporary, self.path / REQUEST)
        self.request = request

    def release(self) -> None:
        """Let other processes have the folder."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def open_folder(path: str | os.PathLike, resume: bool) -> Folder:
    """Make a folder, or take one that is there, and keep others out of it.

    Raises
    ------
    TypeError, ValueError
        If ``checkpoint`` is not the path of a local folder.
    FileExistsError
        If there is a run in the folder that is not to be resumed, or something else.
    OSError
        If the folder cannot be made or written.
    RuntimeError
        If a process is at work in it.
    """
    if not isinstance(path, str | os.PathLike) or isinstance(os.fspath(path), bytes):
        raise TypeError(f"`checkpoint` must be the path of a folder, not {path!r}.")
    if not os.fspath(path):
        raise ValueError("`checkpoint` must be the path of a folder, not an empty string.")
    if "://" in os.fspath(path):
        raise ValueError(f"`checkpoint` must be a folder of a local disk, not {str(path)!r}.")
    # Absolute: the run may change its working directory.
    folder = Path(path).expanduser().absolute()
    if folder.exists() and not folder.is_dir():
        raise FileExistsError(f"`checkpoint` {str(path)!r} is a file: give the path of a folder.")
    ours = folder.is_dir() and (folder / LOCK).exists()
    if folder.is_dir() and not ours and any(folder.iterdir()):
        raise FileExistsError(
            f"`checkpoint` {str(path)!r} holds other files and no checkpoint: give another folder."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = _locked(folder)
    except OSError as error:
        raise type(error)(
            error.errno, f"`checkpoint` {str(path)!r} cannot be written ({error.strerror})"
        ) from error
    try:
        found = Folder(folder, lock)
        if found.has_plan and not resume:
            raise FileExistsError(
                f"`checkpoint` {str(path)!r} holds a run already: go on with it by resume=True, or "
                "give another folder."
            )
    except BaseException:
        lock.close()
        raise
    return found


def _locked(folder: Path) -> Any:
    """Return the open lock file; the lock ends with the process, however it ends."""
    lock = open(folder / LOCK, "a+")
    try:
        import fcntl

        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except ImportError:  # Windows: nobody is kept out
        pass
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            lock.seek(0)
            number = lock.read().strip() or "unknown"
            lock.close()
            raise RuntimeError(
                f"`checkpoint` {str(folder)!r} is in use by the process {number}: wait for it, or "
                "give another folder."
            ) from None
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            lock.close()
            raise
        # A file system without locks: nobody is kept out.
    lock.seek(0)
    lock.truncate()
    lock.write(str(os.getpid()))
    lock.flush()
    return lock


def _request(folder: Path) -> dict[str, str] | None:
    try:
        found = json.loads((folder / REQUEST).read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"`checkpoint` {str(folder)!r}: {REQUEST} cannot be read. Begin anew in another folder."
        )
    return found
