"""One writer at a time: a lock that the operating system drops when its owner dies."""

from __future__ import annotations

import fcntl
import os
import socket
import weakref
from pathlib import Path

from featx.store import disk


class WriterLock:
    """An exclusive lock on a small file that names its owner.

    The lock is the operating system's (``flock``), so that a dead writer leaves none; the file's
    text is for people. The file may be removed by the owner alone, and only as its last act.

    Attributes
    ----------
    path : Path
        The lock file.
    """

    def __init__(self, path: Path, fd: int) -> None:
        self.path = path
        self._fd: int | None = fd
        _held.add(self)

    @classmethod
    def take(cls, path: Path) -> WriterLock | None:
        """Take the lock without waiting; None where another process (or another run in this one) has it.

        Raises
        ------
        OSError
            If the file cannot be made or written.
        """
        while True:
            fd = disk.open_file(path)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if _is_named(fd, path):
                    owner = f"pid {os.getpid()} on {socket.gethostname()}".encode()
                    disk.truncate(fd, 0)
                    disk.write(fd, owner, 0)
                    return cls(path, fd)
            except BlockingIOError:
                os.close(fd)
                return None
            except BaseException:
                os.close(fd)
                raise
            os.close(fd)  # the owner before us removed the file between our open and our lock: once more

    def release(self) -> None:
        """Give the lock back; the file stays."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def is_held(path: Path) -> bool:
    """Whether somebody has a lock now; for people, because it may be another's a moment later.

    A lock whose file names a dead process of this machine is not touched: a writer that starts meanwhile must not
    find it taken by a mere question.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if _is_dead(owner_of(path)):
            return False
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


def _is_dead(owner: str) -> bool:
    words = owner.split()  # "pid 123 on host"
    if len(words) != 4 or words[3] != socket.gethostname() or not words[1].isdigit():
        return False
    try:
        os.kill(int(words[1]), 0)
    except (ProcessLookupError, OverflowError):
        return True
    except PermissionError:
        return False
    return False


def owner_of(path: Path) -> str:
    """Return what the owner of a lock wrote about itself."""
    try:
        return path.read_text("utf-8", errors="replace") or "unknown"
    except OSError:
        return "unknown"


def _is_named(fd: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _forget_in_child() -> None:
    # A forked child shares its parent's lock: closing the descriptor neither holds it any longer nor breaks it.
    for lock in list(_held):
        lock.release()


_held: weakref.WeakSet[WriterLock] = weakref.WeakSet()
os.register_at_fork(after_in_child=_forget_in_child)
