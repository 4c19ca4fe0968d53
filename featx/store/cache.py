"""Rows kept by content, for transformers that see the same images again and again."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featx.errors import StoreError
from featx.spec import FeatureSpec
from featx.store import disk
from featx.store.lock import WriterLock
from featx.store.records import OK, LedgerEntry
from featx.store.shards import ShardFolder
from featx.store.stored import StoredRows

_MAX_ROWS = 2048


class ShardCache:
    """A folder of feature rows, found by the sha256 of the bytes that they were made from.

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
        self._shards = ShardFolder(path)
        self._stored = StoredRows(None, self._shards)

    @classmethod
    def open(cls, folder: str | os.PathLike[str], spec: FeatureSpec) -> ShardCache:
        """Use the rows of `spec` in `folder`; nothing is made or read yet."""
        return cls(Path(folder) / spec.fingerprint[:16], spec)

    def get(self, shas: Iterable[str]) -> dict[str, NDArray[np.floating]]:
        """Return the rows that are there, (n_features,) each, by sha256; also those that others have written by now."""
        self._refresh()
        rows = {}
        for sha in shas:
            with contextlib.suppress(StoreError):  # a shard that was damaged or removed: computed again
                found = self._stored.of_sha256(sha)
                if found is not None:
                    rows[sha] = found[0][0]
        return rows

    def put(self, shas: Sequence[str], features: NDArray[np.floating]) -> None:
        """Keep rows, (n, n_features); does nothing where the folder cannot be written or another process writes it."""
        with contextlib.suppress(OSError):
            disk.make_folders(self.path)
            lock = WriterLock.take(self.path / "lock")
            if lock is None:
                return
            try:
                self._refresh()
                for start in range(0, len(shas), _MAX_ROWS):
                    self._add(shas[start : start + _MAX_ROWS], features[start : start + _MAX_ROWS])
            finally:
                lock.release()

    def _add(self, shas: Sequence[str], features: NDArray[np.floating]) -> None:
        entries = [LedgerEntry(sha, OK, sha256=sha) for sha in shas]
        rows = np.asarray(features, self._spec.storage)
        self._stored.add(self._shards.add(entries, rows, fingerprint=self._spec.fingerprint), entries)

    def _refresh(self) -> None:
        for shard, entries in self._shards.read():
            if shard.fingerprint == self._spec.fingerprint:
                self._stored.add(shard, entries)
