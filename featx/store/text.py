"""Text files that a user asked for, such as a table of predictions."""

from __future__ import annotations

import os
from pathlib import Path

from featx.errors import StoreWriteError
from featx.store import disk


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
