"""The seal at the end of a feature file, by which damage is found before HDF5 sees it.

HDF5 follows what a file says of itself, also into a loop without end where a bit has flipped. So everything but the
rows (which have checksums of their own) is under a sha256 that stands behind HDF5's own end of the file, where HDF5
does not look::

    HDF5's bytes
    {"rows": [[offset, length], ...], "sha256": "..."}         the rows' chunks; sha256 of all other bytes of HDF5
    featx-seal 1 <HDF5's bytes, 16 hex digits> <sha256 of the two lines, 64 hex digits>
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # a type only: bundles are read through this package, without HDF5
    import h5py

Range = tuple[int, int]
"""Offset and length of neighbouring bytes."""

_HDF5 = b"\x89HDF\r\n\x1a\n"
_LAST_LINE = re.compile(rb"(featx-seal 1 ([0-9a-f]{16}) )([0-9a-f]{64})\n")
_LAST_LINE_BYTES = len("featx-seal 1 ") + 16 + 1 + 64 + 1
_BLOCK_BYTES = 1024 * 1024


def is_hdf5(fd: int) -> bool:
    """Whether a file begins like HDF5; what comes after that is not looked at."""
    return os.pread(fd, len(_HDF5), 0) == _HDF5


def row_ranges(datasets: Sequence[h5py.Dataset]) -> list[Range]:
    """Return where a file that was flushed holds the chunks of these datasets."""
    chunks: list[Range] = []
    for dataset in datasets:
        if dataset.chunks is not None:
            dataset.id.chunk_iter(lambda chunk: chunks.append((int(chunk.byte_offset), int(chunk.size))))
    return _joined(sorted(chunks))


def trailer_of(fd: int, rows: Sequence[Range]) -> bytes:
    """Return what is to be written at the end of an HDF5 file that is whole otherwise."""
    size = os.fstat(fd).st_size
    text = json.dumps({"rows": rows, "sha256": _sha256(fd, size, rows)}).encode() + b"\n"
    begin = b"featx-seal 1 %016x " % size
    return text + begin + hashlib.sha256(text + begin).hexdigest().encode() + b"\n"


def check_trailer(fd: int) -> None:
    """Read all of a feature file but its rows; ValueError if that is not what was sealed."""
    end = os.fstat(fd).st_size
    last = _LAST_LINE.fullmatch(os.pread(fd, _LAST_LINE_BYTES, max(0, end - _LAST_LINE_BYTES)))
    if last is None:
        raise ValueError(
            "the seal at its end is missing: it was cut off, or changed by another program, or featx did not make it;"
            " `featx cache import` takes features made elsewhere"
        )
    size = int(last[2], 16)
    text = os.pread(fd, max(0, end - _LAST_LINE_BYTES - size), size)
    if hashlib.sha256(text + last[1]).hexdigest().encode() != last[3]:
        raise ValueError("the seal at its end is damaged")
    seal = json.loads(text)
    if _sha256(fd, size, seal["rows"]) != seal["sha256"]:
        raise ValueError("its bytes do not match the seal at its end")


def _sha256(fd: int, size: int, without: Sequence[Range]) -> str:
    digest = hashlib.sha256()
    for start, stop in _between(without, size):
        for offset in range(start, stop, _BLOCK_BYTES):
            digest.update(os.pread(fd, min(_BLOCK_BYTES, stop - offset), offset))
    return digest.hexdigest()


def _between(ranges: Sequence[Range], size: int) -> Iterator[Range]:
    """Yield start and stop of what lies before, between and behind the ranges."""
    edges = [(0, 0), *((offset, offset + length) for offset, length in ranges), (size, size)]
    for (_, start), (stop, _) in pairwise(edges):
        yield start, stop


def _joined(ranges: list[Range]) -> list[Range]:
    joined: list[Range] = []
    for offset, length in ranges:
        if joined and sum(joined[-1]) == offset:
            joined[-1] = joined[-1][0], joined[-1][1] + length
        else:
            joined.append((offset, length))
    return joined
