"""Zip archives that are safe to read and the same bytes whenever they are written.

Members are written uncompressed: the numbers in them hardly shrink, the bytes do not depend on a zlib's version, and an
archive that claims to grow a lot on reading gives itself away.
"""

from __future__ import annotations

import os
import zipfile
import zlib
from collections import Counter
from collections.abc import Collection, Mapping
from typing import BinaryIO

from featx.errors import BundleError

MAX_BYTES = 8 << 30
"""Of all members together, unpacked: more than the weights of any network in torchvision's registry."""
MAX_RATIO = 20
"""Unpacked to packed bytes; arrays of floats reach 2, indented JSON about 10."""
_FREE_BYTES = 1 << 20  # below this size the ratio does not matter
_CHUNK = 1 << 20
_ZIP_START = b"PK\x03\x04"
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time that a zip can hold
# What zipfile raises on damage; NotImplementedError is its word for a newer version of the format.
_DAMAGE = (zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError, OverflowError, KeyError)


def write_archive(file: BinaryIO, members: Mapping[str, bytes]) -> None:
    """Write a zip whose bytes depend on the members' names, order and contents only."""
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            info = zipfile.ZipInfo(name, _EPOCH)
            info.create_system = 3  # Unix, on every system
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)


def read_archive(
    file: BinaryIO, *, path: str, what: str = "the file", only: Collection[str] | None = None
) -> dict[str, bytes]:
    """Read the members of a zip into memory, refusing bombs before and while they unpack.

    Parameters
    ----------
    file : binary file
        Seekable, at its start.
    path, what : str
        For messages: the bundle, and which archive in it.
    only : collection of str, optional
        The members that are wanted; all by default.

    Returns
    -------
    dict of str to bytes
        Without members that are not there.

    Raises
    ------
    BundleError
        If it is a pickle, no zip, damaged, a zip bomb, encrypted, or names a member twice.
    """
    _check_start(file.read(4), path=path, what=what)
    size = file.seek(0, os.SEEK_END)
    try:
        with zipfile.ZipFile(file) as archive:
            infos = archive.infolist()
            _check_headers(infos, size, path=path, what=what)
            wanted = [info for info in infos if only is None or info.filename in only]
            return {info.filename: _read_member(archive, info) for info in wanted}
    except BundleError:
        raise
    except _DAMAGE as error:
        raise BundleError(f"{what} is a damaged zip archive ({error})", path=path) from error


def _check_start(start: bytes, *, path: str, what: str) -> None:
    if start == _ZIP_START:
        return
    if start[:1] == b"\x80" and start[1:2] <= b"\x05":
        raise BundleError(f"{what} is a pickle; featx never reads pickles, because they can run any code", path=path)
    if not start:
        raise BundleError(f"{what} is empty", path=path)
    raise BundleError(f"{what} is not a zip archive, as featx fit writes it", path=path)


def _check_headers(infos: list[zipfile.ZipInfo], size: int, *, path: str, what: str) -> None:
    for name, count in Counter(info.filename for info in infos).items():
        if count > 1:
            raise BundleError(f"{what} holds {name!r} {count} times", path=path)
    unpacked, packed = sum(info.file_size for info in infos), sum(info.compress_size for info in infos)
    # Overlapping members would be counted in `packed` several times, though the archive holds them once.
    if unpacked > MAX_BYTES or packed > size or unpacked > max(_FREE_BYTES, MAX_RATIO * packed):
        raise BundleError(f"{what} is a zip bomb: {size} bytes claim to unpack to {unpacked}", path=path)
    for info in infos:
        if info.flag_bits & 1:
            raise BundleError(f"{what} is encrypted ({info.filename!r})", path=path)
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise BundleError(f"{what} is compressed in a way that featx does not read ({info.filename!r})", path=path)


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    # Chunk by chunk: a single read() would unpack all that the stream holds, whatever its header claims.
    data = bytearray()
    with archive.open(info) as member:
        while chunk := member.read(_CHUNK):
            data += chunk
    if len(data) != info.file_size:
        raise zipfile.BadZipFile(f"{info.filename!r} has {len(data)} bytes, its header says {info.file_size}")
    return bytes(data)
