"""A file by its path or its URL: read whole or in part, opened, looked at.

A URL is what begins with ``scheme://``; it is read through fsspec (`featx.manifest.remote`), which is imported only
when there is one. Whatever goes wrong with a file is an OSError here.
"""

from __future__ import annotations

import os
import re
import stat as stat_module
from pathlib import Path
from typing import BinaryIO

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")


def is_url(text: str) -> bool:
    """Tell whether a text is a URL and no path."""
    return _URL.match(text) is not None


def read_file(path: str) -> bytes:
    """Read a whole file."""
    if is_url(path):
        from featx.manifest import remote

        return remote.read(path)
    check_regular(path)
    return Path(path).read_bytes()


def read_part(path: str, start: int, size: int) -> bytes:
    """Read `size` bytes from `start` on; an OSError if there are not so many."""
    if is_url(path):
        from featx.manifest import remote

        data = remote.read(path, start, start + size)
    else:
        with open(path, "rb", buffering=0) as file:
            data = _read_fully(file.fileno(), start, size)
    if len(data) != size:
        raise OSError(f"{len(data)} bytes instead of {size} from {start} on: was the file changed?")
    return data


def open_file(path: str) -> BinaryIO:
    """Open a file for reading at any place in it."""
    if is_url(path):
        from featx.manifest import remote

        return remote.open_file(path)
    check_regular(path)
    return open(path, "rb")


def check_regular(path: str) -> None:
    """Raise an OSError for what is no plain file: reading from a pipe might never end."""
    if not stat_module.S_ISREG(Path(path).stat().st_mode):
        raise OSError("not a regular file")


def stat_file(path: str) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a file; None if it is not there.

    Of a file behind a URL the time is what its server tells, or a number made of its ETag; or now, if it tells neither.
    """
    if is_url(path):
        from featx.manifest import remote

        return remote.stat(path)
    try:
        found = os.stat(path)  # noqa: PTH116 - a million times, for which a Path each is too much
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def said(error: OSError) -> str:
    """Return what an error says, in words and without the file's name."""
    if isinstance(error, FileNotFoundError):
        return "no such file"
    return error.strerror or str(error) or type(error).__name__


def suffix_of(name: str) -> str:
    """Return the lower-case extension of a file's name, ``""`` if it has none or is nothing but one."""
    stem, dot, extension = name.rpartition("/")[2].rpartition(".")
    return f".{extension.lower()}" if stem and dot else ""


def _read_fully(descriptor: int, start: int, size: int) -> bytes:
    """Read up to the end of the file or of what is wanted; one system call gives 2 GiB at most."""
    parts = []
    while size:
        part = os.pread(descriptor, size, start)
        if not part:
            break
        parts.append(part)
        start, size = start + len(part), size - len(part)
    return b"".join(parts)
