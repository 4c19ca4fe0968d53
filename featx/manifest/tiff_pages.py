"""The directories of a TIFF: one for each page, without a look at its pixels (TIFF 6.0, section 2; BigTIFF alike)."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


@dataclass(frozen=True)
class Directory:
    """Where a page's tags are.

    Attributes
    ----------
    order : str
        ``"<"`` or ``">"``, as `struct` has it.
    big : bool
        BigTIFF: numbers of 64 bits.
    entries : bytes
        The tags as they are in the file: 12 bytes each, in BigTIFF 20.
    """

    order: str
    big: bool
    entries: bytes

    @property
    def entry_size(self) -> int:
        """Bytes of one tag."""
        return 20 if self.big else 12


def iter_directories(file: BinaryIO) -> Iterator[Directory]:
    """Yield the directories one after the other, as far as they can be read; a loop ends the list."""
    start = file.read(16)
    if start[:4] not in SIGNATURES:
        return
    order, big = "<" if start[:2] == b"II" else ">", 43 in (start[2], start[3])
    count_format, offset_format = (f"{order}Q", f"{order}Q") if big else (f"{order}H", f"{order}I")
    seen: set[int] = set()
    offset = _number(offset_format, start[8:] if big else start[4:8])
    while offset and offset not in seen:
        seen.add(offset)
        try:
            file.seek(offset)
        except (OSError, OverflowError, ValueError):  # beyond what a file can be
            return
        n_entries = _number(count_format, file.read(struct.calcsize(count_format)))
        size = n_entries * (20 if big else 12)
        if not 0 < n_entries <= 0xFFFF:
            return
        entries = file.read(size)
        if len(entries) < size:
            return
        yield Directory(order, big, entries)
        offset = _number(offset_format, file.read(struct.calcsize(offset_format)))


def _number(number_format: str, data: bytes) -> int:
    """Return one unsigned number, 0 where the file has ended."""
    return int(struct.unpack(number_format, data)[0]) if len(data) == struct.calcsize(number_format) else 0
