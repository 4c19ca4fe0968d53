"""Rows kept by content, for transformers that see the same images again and again."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.errors import StoreError
from featx.spec import FeatureSpec
from featx.store import disk
from featx.store.accounts import Accounts
from featx.store.lock import WriterLock
from featx.store.records import OK, LedgerEntry
from featx.store.shards import ShardFolder
from featx.store.stored import StoredRows

_MAX_ROWS = 2048
_SPEC = "spec.json"


class ViewCache:
    """Rows of samples with all views side by side; each view has a `ShardCache` of its own.

    So the rows of a view are the same ones for every plan that it is in, and plain rows for all of them.
    """

    def __init__(self, caches: Sequence[ShardCache]) -> None:
        self._caches = caches

    @classmethod
    def open(cls, folder: str | os.PathLike[str], spec: FeatureSpec) -> ViewCache:
        """Use the rows of `spec` in `folder`; nothing is made or read yet."""
        return cls([ShardCache.open(folder, dataclasses.replace(spec, views=(view,))) for view in spec.views])

    def get(self, shas: Iterable[str]) -> dict[str, NDArray[np.floating]]:
        """Return the rows that are there with all their views, (n_views * n_features,) each, by sha256."""
        wanted = list(shas)
        first, *others = [cache.get(wanted) for cache in self._caches]
        whole = [sha for sha in first if all(sha in rows for rows in others)]
        return {sha: np.concatenate([rows[sha] for rows in (first, *others)]) for sha in whole} if others else first

    def put(self, rows: Mapping[str, NDArray[np.floating]]) -> None:
        """Keep rows, (n_views * n_features,) each, by sha256, as `ShardCache.put` does."""
        if rows:
            by_view = np.split(np.stack(list(rows.values())), len(self._caches), axis=1)
            for cache, features in zip(self._caches, by_view, strict=True):
                cache.put(list(rows), features)


class ShardCache:
    """A folder of feature rows, found by the sha256 of the bytes that they were made from; one row of each.

    Any number of processes may use one folder. Reading takes no lock. A process that finds another one
    writing leaves its own rows out: the cache then holds less, it never holds anything up. Rows of
    different specs live side by side in folders named by fingerprint.

    Attributes
    ----------
    path : Path
        The folder of this spec's rows.
    """

    def __init__(self, path: Path, spec: FeatureSpec) -> None:
        self.path = path
        self._spec = spec
        self._journal = 0  # inode of the journal that was read; 0 = there was none
        self._shards = ShardFolder(path)
        self._stored = StoredRows(None, self._shards, n_views=1)
        self._place: dict[str, tuple[int, int]] = {}

    @classmethod
    def open(cls, folder: str | os.PathLike[str], spec: FeatureSpec) -> ShardCache:
        """Use the rows of `spec` in `folder`; nothing is made or read yet."""
        return cls(Path(folder) / spec.fingerprint[:16], spec)

    def get(self, shas: Iterable[str]) -> dict[str, NDArray[np.floating]]:
        """Return the rows that are there, (n_features,) each, by sha256; also those that others have written by now."""
        self._refresh()
        found = [sha for sha in dict.fromkeys(shas) if sha in self._place]
        try:
            features, _ = self._stored.read(np.array([self._place[sha] for sha in found]))
        except StoreError:  # a shard was damaged or removed since: computed again, and the folder read again
            self._journal = -1
            return {}
        return dict(zip(found, features, strict=True))

    def put(self, shas: Sequence[str], features: NDArray[np.floating]) -> None:
        """Keep rows, (n, n_features); does nothing where the folder cannot be written or another process writes it."""
        with contextlib.suppress(OSError):
            disk.make_folders(self.path)
            lock = WriterLock.take(self.path / "lock")
            if lock is None:
                return
            try:
                self._refresh()
                if not (self.path / _SPEC).exists():
                    disk.write_whole(self.path / _SPEC, json.dumps(self._spec.to_dict(), sort_keys=True).encode())
                new = [position for position, sha in enumerate(shas) if sha not in self._place]
                for start in range(0, len(new), _MAX_ROWS):
                    positions = new[start : start + _MAX_ROWS]
                    self._add([shas[position] for position in positions], features[positions])
            finally:
                lock.release()

    def _add(self, shas: Sequence[str], features: NDArray[np.floating]) -> None:
        accounts = Accounts.of([LedgerEntry(sha, OK, sha256=sha) for sha in shas])
        rows = np.asarray(features, self._spec.storage)
        self._shards.add(accounts, rows, fingerprint=self._spec.fingerprint)
        self._note(accounts)
        self._journal = self._shards.journal.stat().st_ino

    def _refresh(self) -> None:
        """Read what was written since the last look; from the start where somebody has emptied the folder."""
        with contextlib.suppress(OSError):
            inode = self._shards.journal.stat().st_ino if self._shards.has_journal else 0
            if inode != self._journal:
                self._journal = inode
                self._shards = ShardFolder(self.path)
                self._stored = StoredRows(None, self._shards, n_views=1)
                self._place = {}
            for shard, accounts in self._shards.read():
                if shard.fingerprint == self._spec.fingerprint:
                    self._note(accounts)

    def _note(self, accounts: Accounts) -> None:
        """Remember what the last shard holds."""
        source = len(self._shards.shards) - 1
        self._place.update((sha, (source, row)) for row, sha in enumerate(accounts.keys))


def read_cache_spec(folder: Path) -> FeatureSpec | None:
    """Return what made the rows of a `ShardCache`'s folder, for people; None where it does not say so."""
    try:
        return FeatureSpec.from_dict(json.loads((folder / _SPEC).read_bytes()))
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError):
        return None
