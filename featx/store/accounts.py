"""Ledger entries as columns: a hundred bytes for each, besides its key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, overload

import h5py
import numpy as np
from numpy.typing import NDArray

from featx.store.records import FAILED, OK, LedgerEntry
from featx.store.texts import Digests, Numbered, Texts, digests_of

NUMBERS = ("bytes", "mtime_ns", "width", "height")
"""Fields of an entry that are numbers."""
TEXTS = ("reason", "format", "mode")
"""Fields of an entry of which many are alike."""

RECORD = np.dtype(
    [("sha256", "u1", 32), *((name, "<i8") for name in NUMBERS), *((name, "<i4") for name in TEXTS), ("is_ok", "?")]
)
"""An entry but for its key; texts by number; a sha256 of zeros stands for ``""``."""


class Accounts(Sequence[LedgerEntry]):
    """Entries as columns, which are made when they are asked for one by one.

    Parameters
    ----------
    keys : sequence of str
        The samples.
    records : RECORD array (n,)
        What is known of each.
    texts : list of str
        By the numbers in the records.
    """

    def __init__(self, keys: Sequence[str], records: NDArray[np.void], texts: list[str]) -> None:
        self.keys = keys
        self.records = records
        self.texts = texts

    @classmethod
    def of(cls, entries: Sequence[LedgerEntry]) -> Accounts:
        """Turn entries into columns."""
        texts, records = Texts(), np.zeros(len(entries), RECORD)
        records["sha256"] = digests_of([entry.sha256 for entry in entries])
        records["is_ok"] = [entry.status == OK for entry in entries]
        for name in NUMBERS:
            records[name] = [getattr(entry, name) for entry in entries]
        for name in TEXTS:
            records[name] = texts.numbers([getattr(entry, name) for entry in entries])
        return cls([entry.key for entry in entries], records, texts.texts)

    def __len__(self) -> int:
        return len(self.records)

    @overload
    def __getitem__(self, index: int) -> LedgerEntry: ...

    @overload
    def __getitem__(self, index: slice) -> list[LedgerEntry]: ...

    def __getitem__(self, index: int | slice) -> LedgerEntry | list[LedgerEntry]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return entry_of(self.keys[index], self.records[index], self.texts)

    def __iter__(self) -> Iterator[LedgerEntry]:
        for i in range(len(self)):
            yield self[i]


def entry_of(key: str, record: np.void, texts: Sequence[str]) -> LedgerEntry:
    """Return one entry."""
    fields: dict[str, Any] = {name: int(record[name]) for name in NUMBERS}
    fields |= {name: texts[record[name]] for name in TEXTS}
    return LedgerEntry(key, OK if record["is_ok"] else FAILED, sha256=Digests(record["sha256"][None])[0], **fields)


def columns_of(records: NDArray[np.void], texts: Sequence[str]) -> dict[str, Sequence[str] | NDArray[np.int64]]:
    """Return all fields of entries but the key: numbers as arrays, strings as sequences that take little memory."""
    numbers = {name: records[name].astype(np.int64) for name in NUMBERS}
    strings = {name: Numbered(records[name], texts) for name in TEXTS}
    status = Numbered(records["is_ok"].astype(np.int32), (FAILED, OK))
    return {"status": status, "sha256": Digests(records["sha256"]), **numbers, **strings}


def write_accounts(group: h5py.Group, accounts: Accounts) -> None:
    """Write entries into a shard: quick to read, and for featx alone."""
    group.create_dataset("records", data=np.frombuffer(accounts.records.tobytes(), np.uint8), track_times=False)
    for name, texts in (("keys", accounts.keys), ("texts", accounts.texts)):
        group.create_dataset(name, data=np.frombuffer(json.dumps(list(texts)).encode(), np.uint8), track_times=False)


def read_accounts(group: h5py.Group) -> Accounts:
    """Read what `write_accounts` wrote."""
    keys, texts = (json.loads(group[name][...].tobytes()) for name in ("keys", "texts"))
    return Accounts(keys, np.frombuffer(group["records"][...].tobytes(), RECORD), texts)
