"""The last outcome of every sample of a manifest, in memory that allows for millions of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.store.accounts import RECORD, TEXTS, Accounts, columns_of, entry_of
from featx.store.ledger import rows_of
from featx.store.records import LedgerEntry
from featx.store.texts import BLOCK, Texts, digests_of


class KeyIndex:
    """From keys to their positions.

    What is looked for mostly comes in the order of the keys; so those that follow the last ones found are compared
    first, and a table of all keys is made only when something else is asked for.

    Parameters
    ----------
    keys : sequence of str
        Each once.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self._keys = keys
        self._next = 0
        self._table: dict[str, int] | None = None

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the position of each key, -1 where there is none."""
        start, stop = self._next, self._next + len(keys)
        if list(self._keys[start:stop]) == list(keys):
            self._next = stop
            return np.arange(start, stop)
        table = self._all()
        found = np.fromiter((table.get(key, -1) for key in keys), np.int64, len(keys))
        self._next = int(found[-1]) + 1
        return found

    def get(self, key: str) -> int:
        """Return the position of a key, -1 if there is none."""
        return self._all().get(key, -1)

    def _all(self) -> dict[str, int]:
        if self._table is None:
            self._table = {key: position for position, key in enumerate(self._keys)}
        return self._table


class Outcomes:
    """What is known of every sample: of the finished file, of a stopped run, of this one.

    Entries are numbered as they come; the last one of a sample counts. Earlier ones, and those of samples that the
    manifest no longer has, are found by their sha256 all the same: their rows are still there.

    Parameters
    ----------
    keys : sequence of str
        The samples of the manifest.
    n_views : int
        Rows of one sample.

    Attributes
    ----------
    keys : sequence of str
    vanished : dict of str to int
        Samples that are not in the manifest, and the number of their last entry.
    n_known : int
        How many samples of the manifest have an entry.
    """

    def __init__(self, keys: Sequence[str], *, n_views: int = 1) -> None:
        self.keys = keys
        self.vanished: dict[str, int] = {}
        self.n_known = 0
        self._n_views = n_views
        self._index = KeyIndex(keys)
        self._last = np.full(len(keys), -1, np.int64)
        self._texts = Texts()
        self._n = 0
        self._records = np.empty(len(keys), RECORD)
        self._places = np.empty((len(keys), 2), np.int64)
        self._of_sha256: dict[int, int] = {}

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the position of each key in the manifest, -1 where there is none."""
        return self._index.find(keys)

    def add(self, source: int, accounts: Accounts, positions: NDArray[np.int64] | None = None) -> None:
        """Take in entries; what they say wins over what was known.

        Parameters
        ----------
        source : int
            Where the rows of the good ones are, one sample after the other; see `places`.
        accounts : Accounts
            The entries.
        positions : int64 array (n,), optional
            What `find` says of their keys, where that is known.
        """
        numbers = self._append(source, accounts)
        positions = self._index.find(accounts.keys) if positions is None else positions
        is_here = positions >= 0
        self.n_known += self.count_new(positions[is_here])
        self._last[positions[is_here]] = numbers[is_here]
        for i in np.flatnonzero(~is_here).tolist():
            self.vanished[accounts.keys[i]] = int(numbers[i])
        good = np.flatnonzero(accounts.records["is_ok"])
        for start in range(0, len(good), BLOCK):
            some = good[start : start + BLOCK]
            beginnings = np.ascontiguousarray(accounts.records["sha256"][some]).view("<u8")[:, 0]
            self._of_sha256.update(zip(beginnings.tolist(), numbers[some].tolist(), strict=True))

    def count_new(self, positions: NDArray[np.int64]) -> int:
        """Count the samples at these positions that have no entry yet."""
        return int(np.unique(positions[self._last[positions] < 0]).size)

    @property
    def is_known(self) -> NDArray[np.bool_]:
        """Whether each sample of the manifest has an entry."""
        return self._last >= 0

    def column(self, name: str) -> NDArray[Any]:
        """Return a field of `RECORD` for each sample of the manifest; without meaning where it has no entry."""
        return self._records[name][self._last] if self._n else np.zeros(len(self.keys), RECORD)[name]

    def columns(self) -> dict[str, Sequence[str] | NDArray[np.int64]]:
        """Return all fields of the entries but the key, where every sample of the manifest has one."""
        is_in_order = self._n == len(self.keys) and bool((self._last == np.arange(self._n)).all())
        return columns_of(self._records[: self._n] if is_in_order else self._records[self._last], self._texts.texts)

    def entry(self, position: int) -> LedgerEntry:
        """Return the entry of a sample of the manifest that has one."""
        return self._entry(self.keys[position], int(self._last[position]))

    def source(self, position: int) -> int:
        """Return from which source the entry of a sample came, which has one; see `add`."""
        return int(self._places[self._last[position], 0])

    def refresh(self, entry: LedgerEntry) -> bool:
        """Give a sample's entry another size, time and reason; False if it has none, or one of other bytes."""
        position = self._index.get(entry.key)
        number = self._last[position] if position >= 0 else -1
        if number < 0:
            return False
        known = self._entry(entry.key, number)
        if (known.status, known.sha256) != (entry.status, entry.sha256):
            return False
        record = self._records[number]
        record["bytes"], record["mtime_ns"] = entry.bytes, entry.mtime_ns
        record["reason"] = self._texts.number(entry.reason)
        return True

    def places(self) -> NDArray[np.int64]:
        """Return (source, first row there) of the good samples of the manifest that have entries: int64 (n_good, 2)."""
        places = self._places[self._last[self.is_known]]
        return places[places[:, 1] >= 0]

    def place_of_sha256(self, sha256: str) -> tuple[int, int] | None:
        """Return (source, first row there) of a sample of these bytes, under whatever key; None if there is none."""
        if not sha256:
            return None
        digest = digests_of([sha256])[0]
        number = self._of_sha256.get(int(digest.view("<u8")[0]))
        if number is None or not np.array_equal(self._records[number]["sha256"], digest):
            return None
        source, row = self._places[number].tolist()
        return source, row

    def as_mapping(self) -> Mapping[str, LedgerEntry]:
        """Return a view of all entries by key: samples of the manifest in its order, then those that have vanished."""
        return _Known(self)

    def of_key(self, key: str) -> LedgerEntry | None:
        """Return the entry of a sample, also of one that has vanished; None if it has none."""
        position = self._index.get(key)
        number = self.vanished.get(key, -1) if position < 0 else int(self._last[position])
        return None if number < 0 else self._entry(key, number)

    def _entry(self, key: str, number: int) -> LedgerEntry:
        return entry_of(key, self._records[number], self._texts.texts)

    def _append(self, source: int, accounts: Accounts) -> NDArray[np.int64]:
        """Store records and places; return the numbers of the entries."""
        numbers = np.arange(self._n, self._n + len(accounts))
        if numbers.size and numbers[-1] >= len(self._records):
            size = len(self._records) + max(len(accounts), len(self._records) // 2)
            self._records, self._places = _longer(self._records, size), _longer(self._places, size)
        here = slice(self._n, self._n + len(accounts))
        records = self._records[here]
        records[:] = accounts.records
        of_number = self._texts.numbers(accounts.texts)
        for name in TEXTS:
            records[name] = of_number[records[name]]
        is_ok = records["is_ok"]
        self._places[here, 0] = source
        self._places[here, 1] = rows_of(is_ok, self._n_views)
        self._n += len(accounts)
        return numbers


def _longer(array: NDArray[Any], n: int) -> NDArray[Any]:
    longer = np.empty((n, *array.shape[1:]), array.dtype)  # memory that is not written to costs nothing
    longer[: len(array)] = array
    return longer


class _Known(Mapping[str, LedgerEntry]):
    def __init__(self, outcomes: Outcomes) -> None:
        self._outcomes = outcomes

    def __getitem__(self, key: str) -> LedgerEntry:
        entry = self._outcomes.of_key(key)
        if entry is None:
            raise KeyError(key)
        return entry

    def __len__(self) -> int:
        return self._outcomes.n_known + len(self._outcomes.vanished)

    def __iter__(self) -> Iterator[str]:
        keys = self._outcomes.keys
        for position in np.flatnonzero(self._outcomes.is_known).tolist():
            yield keys[position]
        yield from self._outcomes.vanished
