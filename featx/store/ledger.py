"""The account of every sample, as columns in HDF5."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.store.columns import (
    numbers_sha256,
    read_numbers,
    read_strings,
    strings_sha256,
    write_numbers,
    write_strings,
)
from featx.store.records import OK, LedgerEntry

_NUMBERS = ("bytes", "mtime_ns", "width", "height", "row")
_ENTRY = tuple(field.name for field in dataclasses.fields(LedgerEntry))


@dataclass(frozen=True)
class Ledger:
    """One entry for each sample of the manifest, in manifest order, column by column.

    Attributes
    ----------
    key, status, reason, sha256, format, mode : sequence of str
        As in `featx.store.records.LedgerEntry`; lists, where they were read from a file.
    bytes, mtime_ns, width, height : int64 array (n_samples,)
        As in `featx.store.records.LedgerEntry`.
    label, group, split, fold : sequence of str
        From the manifest; ``""`` = unknown.
    row : int64 array (n_samples,)
        The sample's first row in the file's aligned datasets, which the rows of its other views follow; -1 for a
        failed sample.
    """

    key: Sequence[str]
    status: Sequence[str]
    reason: Sequence[str]
    sha256: Sequence[str]
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    format: Sequence[str]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    mode: Sequence[str]
    label: Sequence[str]
    group: Sequence[str]
    split: Sequence[str]
    fold: Sequence[str]
    row: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        entries: Sequence[LedgerEntry],
        *,
        label: Sequence[str],
        group: Sequence[str],
        split: Sequence[str],
        fold: Sequence[str],
        n_views: int = 1,
    ) -> Ledger:
        """Put entries and what the manifest says of them side by side; rows are numbered in this order."""
        columns: dict[str, Any] = {name: [getattr(entry, name) for entry in entries] for name in _ENTRY}
        columns |= {name: np.array(columns[name], np.int64) for name in _NUMBERS if name in columns}
        is_ok = np.array([status == OK for status in columns["status"]], bool)
        row = rows_of(is_ok, n_views)
        return cls(**columns, label=label, group=group, split=split, fold=fold, row=row)

    def __len__(self) -> int:
        return len(self.key)

    def entries(self) -> Sequence[LedgerEntry]:
        """Return the accounts, made one by one when asked for, without what the manifest says of the samples."""
        return _Entries(self)

    def sha256_of(self, name: str) -> str:
        """Return the sha256 that a column has, or will have, in a file."""
        values = getattr(self, name)
        return numbers_sha256(values) if name in _NUMBERS else strings_sha256(values)


class _Entries(Sequence[LedgerEntry]):
    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def __len__(self) -> int:
        return len(self._ledger)

    @overload
    def __getitem__(self, index: int) -> LedgerEntry: ...

    @overload
    def __getitem__(self, index: slice) -> list[LedgerEntry]: ...

    def __getitem__(self, index: int | slice) -> LedgerEntry | list[LedgerEntry]:
        if not isinstance(index, slice):
            return self[index : index + 1 or None][0]
        columns = [getattr(self._ledger, name)[index] for name in _ENTRY]
        lists = [column.tolist() if isinstance(column, np.ndarray) else column for column in columns]
        return [LedgerEntry(*values) for values in zip(*lists, strict=True)]

    def __iter__(self) -> Iterator[LedgerEntry]:
        for start in range(0, len(self), 4096):
            yield from self[start : start + 4096]


def rows_of(is_ok: NDArray[np.bool_], n_views: int) -> NDArray[np.int64]:
    """Return the first row of each sample, -1 for those that are not good."""
    return np.where(is_ok, (np.cumsum(is_ok) - 1) * n_views, -1).astype(np.int64)


def write_ledger(group: h5py.Group, ledger: Ledger) -> None:
    """Write one dataset for each column."""
    for name, values in vars(ledger).items():
        if name in _NUMBERS:
            write_numbers(group, name, values)
        else:
            write_strings(group, name, values)


def read_ledger(group: h5py.Group) -> Ledger:
    """Read what `write_ledger` wrote; ValueError if columns are damaged or differ in length."""
    columns: dict[str, Any] = {
        field.name: read_numbers(group, field.name) if field.name in _NUMBERS else read_strings(group, field.name)
        for field in dataclasses.fields(Ledger)
    }
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("the ledger's columns differ in length")
    return Ledger(**columns)
