"""What lies where in a tar file: one pass over its headers, without reading or unpacking what is in it.

The format is that of POSIX (ustar and pax, https://pubs.opengroup.org/onlinepubs/9799919799/utilities/pax.html) with
GNU's long names and large sizes. Python's tarfile would keep every member in memory, and takes damage in the middle of
a file for its end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

_BLOCK = 512
_NOTHING = bytes(_BLOCK)
_LONGEST_HEADER = 1 << 20
"""No name is longer; a damaged header must not make us read gigabytes."""
_FILES = (b"0", b"\0", b"7")
_WITHOUT_BYTES = (b"1", b"2", b"3", b"4", b"5", b"6")


class DamagedTarError(Exception):
    """A tar file that ends too early, or holds something that is no header where one must be."""


@dataclass(frozen=True)
class Member:
    """One entry of a tar file.

    Attributes
    ----------
    name : str
        As it is written there; bytes that are not UTF-8 are surrogate escapes.
    offset, size : int
        Where its bytes begin in the tar file, and how many they are.
    kind : str
        ``"file"``, ``"folder"``, ``"link"``, or ``"special"`` (devices, pipes, sparse files and what is unknown).
    """

    name: str
    offset: int
    size: int
    kind: str


def iter_members(file: BinaryIO, length: int) -> Iterator[Member]:
    """Yield the members of an uncompressed tar file in their order.

    Parameters
    ----------
    file : binary file
        Opened for reading; the caller may move its position between two members.
    length : int
        Its bytes.

    Raises
    ------
    DamagedTarError
        If it is none, or is cut off, or damaged; after the members before that place have been given.
    OSError
        If it cannot be read.
    """
    position, previous = 0, ""
    known: dict[str, str | int] = {}
    while position < length:
        block = _read(file, position, _BLOCK, previous)
        if block == _NOTHING and not known:  # the end has two of them; what follows is padding
            return
        name, size, flag = _parse(block, position, previous)
        start = position + _BLOCK
        if flag in (b"L", b"x", b"X"):
            if size > _LONGEST_HEADER:
                raise DamagedTarError(f"the header at byte {position:,} claims to hold {size:,} bytes")
            known |= _long_fields(flag, _read(file, start, size, previous), position)
        elif flag not in (b"K", b"g"):
            name = str(known.get("path", name))
            # Links, devices and folders may name a size, and yet nothing follows.
            size = 0 if flag in _WITHOUT_BYTES else _as_size(known.get("size", size), position)
            if start + size > length:
                raise DamagedTarError(f"it ends within the member {name!r}, {start + size - length:,} bytes too early")
            yield Member(name, start, size, "special" if "sparse" in known else _kind(flag, name))
            previous, known = name, {}
        position = start + -(-size // _BLOCK) * _BLOCK
    if position:
        raise DamagedTarError(f"the mark of its end is missing{_after(previous)}: was it cut off?")


def _read(file: BinaryIO, position: int, size: int, previous: str) -> bytes:
    file.seek(position)
    data = file.read(size)
    if len(data) != size:
        raise DamagedTarError(f"it ends within a header at byte {position:,}{_after(previous)}")
    return data


def _parse(block: bytes, position: int, previous: str) -> tuple[str, int, bytes]:
    """Return name, size and type of a header."""
    try:
        written, size = _number(block[148:156]), _number(block[124:136])
    except ValueError:
        written, size = -1, -1
    if size < 0 or not _sum_is(written, block):
        where = f"at byte {position:,}{_after(previous)}" if position else "at its beginning"
        raise DamagedTarError(f"there is no header of a tar file {where}")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and block[345]:
        name = f"{_text(block[345:500])}/{name}"
    return name, size, block[156:157]


def _sum_is(written: int, block: bytes) -> bool:
    # The sum counts its own field as spaces; some old programs summed signed bytes.
    whole = block[:148] + b" " * 8 + block[156:]
    return written == sum(whole) or written == sum(byte - 256 if byte > 127 else byte for byte in whole)


def _number(field: bytes) -> int:
    if field[0] in (0x80, 0xFF):  # GNU's way to write numbers of more than eleven octal digits
        return int.from_bytes(field[1:], "big") if field[0] == 0x80 else -1
    digits = field.split(b"\0")[0].strip()
    return int(digits, 8) if digits else 0


def _long_fields(flag: bytes, data: bytes, position: int) -> dict[str, str | int]:
    """Return what a header in front of a member says of it: its path, its size, whether it is sparse."""
    if flag == b"L":
        return {"path": _text(data)}
    fields: dict[str, str | int] = {}
    while data.strip(b"\0"):
        length, space, _ = data[:32].partition(b" ")
        if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data):
            raise DamagedTarError(f"the extended header at byte {position:,} is damaged")
        keyword, _, value = data[len(length) + 1 : int(length) - 1].partition(b"=")
        data = data[int(length) :]
        if keyword in (b"path", b"size"):
            fields[keyword.decode()] = value.decode("utf-8", "surrogateescape")
        elif keyword.startswith(b"GNU.sparse."):
            fields["sparse"] = 1
    return fields


def _as_size(size: str | int, position: int) -> int:
    if isinstance(size, str) and not (size.isascii() and size.isdecimal() and len(size) < 20):
        raise DamagedTarError(f"the extended header before byte {position:,} is damaged")
    return int(size)


def _kind(flag: bytes, name: str) -> str:
    if flag == b"5" or (flag in _FILES and name.endswith("/")):
        return "folder"
    return "file" if flag in _FILES else "link" if flag in (b"1", b"2") else "special"


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _after(previous: str) -> str:
    return f", after the member {previous!r}" if previous else ""
