"""The account of every sample, as columns in HDF5."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.store.columns import read_numbers, read_strings, write_numbers, write_strings
from featx.store.records import OK, LedgerEntry

_NUMBERS = ("bytes", "mtime_ns", "width", "height", "row")
_ENTRY = tuple(field.name for field in dataclasses.fields(LedgerEntry))


@dataclass(frozen=True)
class Ledger:
    """One entry for each sample of the manifest, in manifest order, column by column.

    Attributes
    ----------
    key, status, reason, sha256, format, mode : list of str
        As in `featx.store.records.LedgerEntry`.
    bytes, mtime_ns, width, height : int64 array (n_samples,)
        As in `featx.store.records.LedgerEntry`.
    label, group, split, fold : list of str
        From the manifest; ``""`` = unknown.
    row : int64 array (n_samples,)
        The sample's first row in the file's aligned datasets, which the rows of its other views follow; -1 for a
        failed sample.
    """

    key: list[str]
    status: list[str]
    reason: list[str]
    sha256: list[str]
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]
    format: list[str]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    mode: list[str]
    label: list[str]
    group: list[str]
    split: list[str]
    fold: list[str]
    row: NDArray[np.int64]

    @classmethod
    def of(
        cls,
        entries: Sequence[LedgerEntry],
        *,
        label: list[str],
        group: list[str],
        split: list[str],
        fold: list[str],
        n_views: int = 1,
    ) -> Ledger:
        """Put entries and what the manifest says of them side by side; rows are numbered in this order."""
        is_ok = np.array([entry.status == OK for entry in entries], bool)
        row = np.where(is_ok, (np.cumsum(is_ok) - 1) * n_views, -1)
        return cls(**_columns_of(entries), label=label, group=group, split=split, fold=fold, row=row)

    def __len__(self) -> int:
        return len(self.key)

    def entries(self) -> list[LedgerEntry]:
        """Return the accounts one by one, without what the manifest says of the samples."""
        return _entries_of([getattr(self, name) for name in _ENTRY])

    def same_as(self, other: Ledger) -> bool:
        """Whether both say the same of the same samples."""
        return all(
            mine == getattr(other, name) if isinstance(mine, list) else np.array_equal(mine, getattr(other, name))
            for name, mine in vars(self).items()
        )


def write_ledger(group: h5py.Group, ledger: Ledger) -> None:
    """Write one dataset for each column."""
    for name, values in vars(ledger).items():
        _write(group, name, values)


def read_ledger(group: h5py.Group) -> Ledger:
    """Read what `write_ledger` wrote; ValueError if columns are damaged or differ in length."""
    columns: dict[str, Any] = {field.name: _read(group, field.name) for field in dataclasses.fields(Ledger)}
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("the ledger's columns differ in length")
    return Ledger(**columns)


def write_entries(group: h5py.Group, entries: Sequence[LedgerEntry]) -> None:
    """Write one dataset for each field of the entries."""
    for name, values in _columns_of(entries).items():
        _write(group, name, values)


def read_entries(group: h5py.Group) -> list[LedgerEntry]:
    """Read what `write_entries` wrote."""
    return _entries_of([_read(group, name) for name in _ENTRY])


def _entries_of(columns: Sequence[list[str] | NDArray[np.int64]]) -> list[LedgerEntry]:
    lists = [column if isinstance(column, list) else column.tolist() for column in columns]
    return [LedgerEntry(*values) for values in zip(*lists, strict=True)]


def _columns_of(entries: Sequence[LedgerEntry]) -> dict[str, Any]:
    columns = {name: [getattr(entry, name) for entry in entries] for name in _ENTRY}
    return {name: np.array(values, np.int64) if name in _NUMBERS else values for name, values in columns.items()}


def _write(group: h5py.Group, name: str, values: list[str] | NDArray[np.int64]) -> None:
    if isinstance(values, list):
        write_strings(group, name, values)
    else:
        write_numbers(group, name, values)


def _read(group: h5py.Group, name: str) -> list[str] | NDArray[np.int64]:
    return read_numbers(group, name) if name in _NUMBERS else read_strings(group, name)
