"""Columns in HDF5: strings and arrays, each with the sha256 of its contents beside it.

Columns of strings are written, read and checked in blocks, so that a million of them need no second copy in memory.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError
from featx.store.texts import BLOCK, Decoder, iter_blocks

STRING = h5py.string_dtype("utf-8")
SEAL = "sha256"
"""Attribute of a dataset: the sha256 of its contents."""

_BLOCK_BYTES = 8 * 1024 * 1024


def check_strings(name: str, values: Sequence[str]) -> None:
    """Refuse what HDF5's strings cannot hold.

    Raises
    ------
    InputError
        If a value holds NUL or a lone surrogate.
    """
    for block in iter_blocks(values):
        if not _is_storable("".join(block)):
            bad = next(value for value in block if not _is_storable(value))
            raise InputError(f"{name} {bad!r} holds a NUL character or is not valid Unicode, so it cannot be stored")


def strings_sha256(values: Sequence[str]) -> str:
    """Return the sha256 that `write_strings` would write: of the strings in UTF-8, joined by NUL."""
    digest = _JoinedDigest()
    for block in iter_blocks(values):
        digest.update("\0".join(block).encode())
    return digest.hexdigest()


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> None:
    """Write strings that pass `check_strings`."""
    dataset = group.create_dataset(name, shape=(len(values),), dtype=STRING, track_times=False)
    digest = _JoinedDigest()
    start = 0
    for block in iter_blocks(values):
        digest.update("\0".join(block).encode())
        dataset[start : start + len(block)] = np.array(block, dtype=object)
        start += len(block)
    dataset.attrs[SEAL] = digest.hexdigest()


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """Read what `write_strings` wrote; values that are alike are one object as long as they are few.

    Raises
    ------
    ValueError
        If the contents do not have their sha256.
    """
    values: list[str] = []
    for block in iter_strings(group, name):
        values += block
    return values


def iter_strings(group: h5py.Group, name: str) -> Iterator[list[str]]:
    """Read what `write_strings` wrote, in blocks; the ValueError of `read_strings` comes after the last one."""
    decode = Decoder()
    for block in _iter_bytes(group, name):
        yield decode(block)


def write_numbers(group: h5py.Group, name: str, values: NDArray[Any]) -> None:
    """Write an array."""
    values = np.ascontiguousarray(values)
    dataset = group.create_dataset(name, data=values, track_times=False)
    dataset.attrs[SEAL] = numbers_sha256(values)


def read_numbers(group: h5py.Group, name: str) -> NDArray[Any]:
    """Read what `write_numbers` wrote; raises ValueError as `read_strings` does."""
    dataset = group[name]
    values: NDArray[Any] = dataset[...]
    _check(dataset, numbers_sha256(values))
    return values


def numbers_sha256(values: NDArray[Any]) -> str:
    """Return the sha256 that `write_numbers` would write: of the bytes of the array."""
    return hashlib.sha256(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data).hexdigest()


def verify_column(group: h5py.Group, name: str) -> str:
    """Read strings or numbers, in blocks, and return their sha256; raises ValueError as `read_strings` does."""
    dataset = group[name]
    if h5py.check_string_dtype(dataset.dtype) is not None:
        for _ in _iter_bytes(group, name):
            pass
    else:
        digest = hashlib.sha256()
        row_bytes = dataset.dtype.itemsize * int(np.prod(dataset.shape[1:], dtype=np.int64))
        step = max(1, _BLOCK_BYTES // max(1, row_bytes))
        for start in range(0, dataset.shape[0], step):
            digest.update(np.ascontiguousarray(dataset[start : start + step]).reshape(-1).view(np.uint8).data)
        _check(dataset, digest.hexdigest())
    return str(dataset.attrs[SEAL])


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Read rows in any order, repeated or not: one read for each run of neighbours."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    bounds = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1)
    for start, stop in itertools.pairwise(bounds):
        out[start:stop] = dataset[rows[start] : rows[start] + stop - start]
    return out


class _JoinedDigest:
    """The sha256 of texts joined by NUL, from texts that are some of them joined by NUL."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._is_empty = True

    def update(self, joined: bytes) -> None:
        if not self._is_empty:
            self._digest.update(b"\0")
        self._digest.update(joined)
        self._is_empty = False

    def hexdigest(self) -> str:
        return self._digest.hexdigest()


def _iter_bytes(group: h5py.Group, name: str) -> Iterator[list[bytes]]:
    dataset = group[name]
    digest = _JoinedDigest()
    for start in range(0, dataset.shape[0], BLOCK):
        block: list[bytes] = dataset[start : start + BLOCK].tolist()
        digest.update(b"\0".join(block))
        yield block
    _check(dataset, digest.hexdigest())


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _check(dataset: h5py.Dataset, digest: str) -> None:
    if dataset.attrs[SEAL] != digest:
        raise ValueError(f"{dataset.name!r} does not match its sha256")
