r"""From the place of a sample to its bytes: all that a decoding worker needs to know of a source.

A place is a path of the file system. What is no file of its own is written with NULs, which no path can hold:
``"\0KIND\0..."`` (see `featx.manifest.source` for the kinds).
"""

from __future__ import annotations

import errno
import stat as stat_module
from pathlib import Path

from featx.errors import ImageDecodeError


def read_place(place: str, *, key: str = "") -> bytes:
    """Read the bytes of a sample.

    Parameters
    ----------
    place : str
        As in `featx.manifest.record.Manifest.paths`.
    key : str
        Named by the error.

    Raises
    ------
    ImageDecodeError
        With the reason ``"missing"``, ``"unreadable"``, ``"empty"`` or ``"symlink-loop"``.
    """
    try:
        if not stat_module.S_ISREG(Path(place).stat().st_mode):  # reading from a pipe might never end
            raise ImageDecodeError("unreadable", "not a regular file", key=key)
        data = Path(place).read_bytes()
    except OSError as error:
        reason = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.ELOOP: "symlink-loop"}
        code = reason.get(error.errno or 0, "unreadable")
        raise ImageDecodeError(code, "" if code != "unreadable" else error.strerror or "", key=key) from error
    if not data:
        raise ImageDecodeError("empty", key=key)
    return data


def stat_place(place: str) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a sample; None if it is not there."""
    try:
        found = Path(place).stat()
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns
