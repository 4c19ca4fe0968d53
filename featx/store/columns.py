"""Columns in HDF5: strings and arrays, each with the sha256 of its contents beside it."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError

STRING = h5py.string_dtype("utf-8")
SEAL = "sha256"
"""Attribute of a dataset: the sha256 of its contents."""


def check_strings(name: str, values: Sequence[str]) -> None:
    """Refuse what HDF5's strings cannot hold.

    Raises
    ------
    InputError
        If a value holds NUL or a lone surrogate.
    """
    if not _is_storable("".join(values)):
        bad = next(value for value in values if not _is_storable(value))
        raise InputError(f"{name} {bad!r} holds a NUL character or is not valid Unicode, so it cannot be stored")


def write_strings(group: h5py.Group, name: str, values: Sequence[str]) -> str:
    """Write strings that pass `check_strings` and return their sha256."""
    dataset = group.create_dataset(name, shape=(len(values),), dtype=STRING, track_times=False)
    dataset[...] = np.array(values, dtype=object)
    return _seal(dataset, hashlib.sha256("\0".join(values).encode()).hexdigest())


def read_strings(group: h5py.Group, name: str) -> list[str]:
    """Read what `write_strings` wrote.

    Raises
    ------
    ValueError
        If the contents do not have their sha256.
    """
    dataset = group[name]
    values: list[bytes] = dataset[:].tolist()
    joined = b"\0".join(values)
    _check(dataset, name, hashlib.sha256(joined).hexdigest())
    return joined.decode().split("\0") if values else []


def write_numbers(group: h5py.Group, name: str, values: NDArray[Any]) -> str:
    """Write an array and return the sha256 of its bytes."""
    values = np.ascontiguousarray(values)
    dataset = group.create_dataset(name, data=values, track_times=False)
    return _seal(dataset, hashlib.sha256(values.tobytes()).hexdigest())


def read_numbers(group: h5py.Group, name: str) -> NDArray[Any]:
    """Read what `write_numbers` wrote; raises ValueError as `read_strings` does."""
    dataset = group[name]
    values: NDArray[Any] = dataset[...]
    _check(dataset, name, hashlib.sha256(values.reshape(-1).view(np.uint8).data).hexdigest())
    return values


def read_rows(dataset: h5py.Dataset, rows: NDArray[np.int64]) -> NDArray[Any]:
    """Read rows in any order, repeated or not: one read for each run of neighbours."""
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    bounds = np.flatnonzero(np.diff(rows, prepend=-2, append=-2) != 1)
    for start, stop in itertools.pairwise(bounds):
        out[start:stop] = dataset[rows[start] : rows[start] + stop - start]
    return out


def _is_storable(text: str) -> bool:
    try:
        return b"\0" not in text.encode()
    except UnicodeEncodeError:
        return False


def _seal(dataset: h5py.Dataset, digest: str) -> str:
    dataset.attrs[SEAL] = digest
    return digest


def _check(dataset: h5py.Dataset, name: str, digest: str) -> None:
    if dataset.attrs[SEAL] != digest:
        raise ValueError(f"{name!r} does not match its sha256")
