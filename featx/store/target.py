"""Files that a user asked for by name: looked at before the work, written whole after it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from featx.errors import StoreError, StoreWriteError, UsageError
from featx.store import disk


def check_target(path: str | os.PathLike[str], endings: tuple[str, ...], *, what: str) -> None:
    """Raise where a file of this name would not be written: better before the work than after it.

    Parameters
    ----------
    path : path-like
    endings : tuple of str
        One of which the name must have, so that no feature file or table is overwritten by mistake.
    what : str
        What it will hold, in the plural, for the message.

    Raises
    ------
    UsageError
        The name ends otherwise, or its folder is not there.
    """
    name = os.fspath(path)
    if not name.lower().endswith(endings):
        raise UsageError(f"{what} are written as {' or '.join(endings)}, not as {name!r}")
    folder = Path(os.path.realpath(name)).parent
    if not folder.is_dir():
        raise UsageError(f"{name!r}: there is no folder {os.fspath(folder)!r}")


def save_text(path: str | os.PathLike[str], text: str, *, what: str) -> None:
    """Write a file in UTF-8, all of it or nothing; a pipe or a device is written to, not replaced.

    Parameters
    ----------
    path : path-like
    text : str
    what : str
        What it holds, in the plural, for the message.

    Raises
    ------
    StoreWriteError
        If the file system refuses.
    """
    target = Path(os.path.realpath(path))
    try:
        if target.exists() and not target.is_file():
            with target.open("w", encoding="utf-8", newline="") as file:
                file.write(text)
        else:
            disk.write_whole(target, text.encode())
    except OSError as error:
        raise StoreWriteError(
            f"{what} cannot be written ({error.strerror})", path=os.fspath(path), errno=error.errno
        ) from error


@contextlib.contextmanager
def whole_file(path: str | os.PathLike[str], *, what: str) -> Iterator[BinaryIO]:
    """Open a file for writing in pieces, which takes its name when all of it is on the disk, or not at all.

    Parameters
    ----------
    path : path-like
        Replaced if it exists.
    what : str
        What it holds, in the plural, for the message.

    Raises
    ------
    StoreWriteError
        If the file system refuses.
    """
    target = Path(os.path.realpath(path))
    temporary = target.with_name(target.name + ".tmp")
    try:
        try:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                disk.sync(file.fileno())
            disk.replace(temporary, target)
            disk.sync_folder(target.parent)
        except BaseException:
            with contextlib.suppress(OSError):
                disk.unlink(temporary)
            raise
    except StoreError:
        raise
    except OSError as error:
        raise StoreWriteError(
            f"{what} cannot be written ({error.strerror})", path=os.fspath(path), errno=error.errno
        ) from error
