r"""From the place of a sample to its bytes: all that a decoding worker needs to know of a source.

A place is a path of the file system, or a URL (`featx.manifest.files`). What is no file of its own is written with
NULs, which no path can hold: ``"\0tar\0FILE\0OFFSET\0SIZE"`` is a member of a tar file, and
``"\0parquet\0FILE\0ROWGROUP\0ROW\0COLUMN"`` a value in a Parquet file; FILE is a path or a URL.
"""

from __future__ import annotations

import errno
import io
from typing import BinaryIO

from featx.errors import ImageDecodeError
from featx.manifest import files

TAR, PARQUET = "tar", "parquet"

_CODES = {errno.ENOENT: "missing", errno.ENOTDIR: "missing", errno.ELOOP: "symlink-loop"}


def place_in(kind: str, file: str, *parts: int | str) -> str:
    """Return the place of something in a file."""
    return "\0".join(("", kind, file, *map(str, parts)))


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
        data = _read(place)
    except OSError as error:
        code = _CODES.get(error.errno or 0, "missing" if isinstance(error, FileNotFoundError) else "unreadable")
        detail = files.said(error) if code == "unreadable" else ""
        raise ImageDecodeError(code, detail, key=key) from error
    if not data:
        raise ImageDecodeError("empty", key=key)
    return data


def open_place(place: str) -> BinaryIO:
    """Open the bytes of a sample, of which only the beginning may be wanted; what goes wrong is an OSError."""
    return io.BytesIO(_read(place)) if place.startswith("\0") else files.open_file(place)


def _read(place: str) -> bytes:
    kind, parts = _split(place)
    if kind == TAR:
        return files.read_part(parts[0], int(parts[1]), int(parts[2]))
    if kind == PARQUET:
        from featx.manifest import parquet_values

        return parquet_values.read_value(parts[0], int(parts[1]), int(parts[2]), parts[3])
    return files.read_file(place)


def stat_place(place: str) -> tuple[int, int] | None:
    """Return (bytes, modification time in ns) of a sample; None if it is not there.

    Of a member of a tar file its own size; of a value in a Parquet file the size of the file, since its own is known
    only once it is read. The time is the file's.
    """
    kind, parts = _split(place)
    if not kind:
        return files.stat_file(place)
    found = files.stat_file(parts[0])
    if found is None or kind != TAR:
        return found
    return int(parts[2]), found[1]


def _split(place: str) -> tuple[str, list[str]]:
    if not place.startswith("\0"):
        return "", [place]
    _, kind, *parts = place.split("\0")
    return kind, parts
