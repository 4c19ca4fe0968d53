"""The few operations with which the store changes a file system.

Everything that the store writes, HDF5's output included, goes through these functions. So an error
of the file system arrives as a plain `OSError` with its number, before HDF5 has seen it (a failed
write inside HDF5 leaves a file object that cannot be closed), and the tests can record, refuse and
replay every operation of a run.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from featx.store.trailer import Range, trailer_of


def open_file(path: Path, *, empty: bool = False) -> int:
    """Open `path` for reading and writing, made if it is not there; return its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if empty else 0), 0o666)


def write(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`."""
    view = memoryview(data)
    while len(view):
        n = os.pwrite(fd, view, offset)
        view, offset = view[n:], offset + n


def truncate(fd: int, size: int) -> None:
    """Cut the file to `size` bytes, or lengthen it with zeros."""
    os.ftruncate(fd, size)


def sync(fd: int) -> None:
    """Return when the file's bytes are on the disk."""
    os.fsync(fd)


def replace(source: Path, target: Path) -> None:
    """Give `source` the name `target`, in one step."""
    source.replace(target)


def unlink(path: Path) -> None:
    """Remove a file that may be gone already."""
    path.unlink(missing_ok=True)


def make_folder(path: Path) -> None:
    """Make one folder that may be there already; NotADirectoryError where a file has its name."""
    while not path.is_dir():
        try:
            path.mkdir()
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):  # a folder that another process made and removed: once more
                if not stat.S_ISDIR(path.lstat().st_mode) and not path.is_dir():
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path)) from None


def remove_folder(path: Path) -> None:
    """Remove an empty folder."""
    path.rmdir()


def sync_folder(path: Path) -> None:
    """Return when the names in the folder are on the disk."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that cannot sync folders
            raise
    finally:
        os.close(fd)


def make_folders(path: Path) -> None:
    """Make a folder and the ones above it, so that they outlast a power cut."""
    if not path.is_dir():
        make_folders(path.parent)
        make_folder(path)
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes | memoryview) -> None:
    """Write a file so that its name never stands for half of it, not even after a power cut."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        fd = open_file(temporary, empty=True)
        try:
            write(fd, data, 0)
            sync(fd)
        finally:
            os.close(fd)
        replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            unlink(temporary)
        raise
    sync_folder(path.parent)


class OutputFile(io.RawIOBase):
    """A file that HDF5 writes through `write`; it keeps the first error instead of raising it.

    HDF5 cannot close a file whose writes fail. So after an error this object takes what comes and
    drops it; `check` raises the error, and the caller throws the file away.
    """

    def __init__(self, path: Path) -> None:
        self._fd = open_file(path, empty=True)
        self._position = 0
        self._error: OSError | None = None

    def check(self) -> None:
        """Raise the first error of a write, if there was one."""
        if self._error is not None:
            raise self._error

    def seal(self, rows: Sequence[Range]) -> None:
        """Write the seal behind HDF5's last byte; `rows` are the places of the rows."""
        self.check()
        write(self._fd, trailer_of(self._fd, rows), os.fstat(self._fd).st_size)

    def sync(self) -> None:
        """Return when the file's bytes are on the disk."""
        self.check()
        sync(self._fd)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Move; HDF5 asks for the end to learn the size."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: os.fstat(self._fd).st_size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from the position; what was never written reads as zeros."""
        data = os.pread(self._fd, len(buffer), self._position)
        buffer[:] = data.ljust(len(buffer), b"\0")
        self._position += len(buffer)
        return len(buffer)

    def write(self, data: memoryview) -> int:  # type: ignore[override]
        """Write at the position, or drop the bytes if an earlier write failed."""
        self._attempt(lambda: write(self._fd, data, self._position))
        self._position += len(data)
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        """Set the size."""
        size = self._position if size is None else size
        self._attempt(lambda: truncate(self._fd, size))
        return size

    def close(self) -> None:
        """Close the descriptor."""
        if not self.closed:
            os.close(self._fd)
        super().close()

    def _attempt(self, operation: Callable[[], None]) -> None:
        if self._error is None:
            try:
                operation()
            except OSError as error:
                self._error = error
