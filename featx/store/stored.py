"""What a finished file and the shards beside it hold, found by key and by content."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.store.file import FeatureFile, reading
from featx.store.records import OK, LedgerEntry
from featx.store.shards import Shard, ShardFolder

Rows = tuple[NDArray[Any], NDArray[Any] | None]
"""Features (n, n_features), and logits (n, n_source_classes) or None."""

_FILE = -1  # the source of rows that are in the finished file; the others are positions in ShardFolder.shards


class StoredRows:
    """The last outcome of every sample, and the place of its row.

    Parameters
    ----------
    file : FeatureFile or None
        The finished file whose rows may be used.
    folder : ShardFolder
        The shards that came after it.
    n_views : int
        Rows of one sample, in the file and in the shards.

    Attributes
    ----------
    entries : dict of str to LedgerEntry
        By key.
    """

    def __init__(self, file: FeatureFile | None, folder: ShardFolder, *, n_views: int) -> None:
        self.entries: dict[str, LedgerEntry] = {}
        self._file = file
        self._folder = folder
        self._n_views = n_views
        self._place_of_key: dict[str, tuple[int, int]] = {}
        self._place_of_sha256: dict[str, tuple[int, int]] = {}
        if file is not None:
            self._add(_FILE, file.ledger().entries())

    def add(self, shard: Shard, entries: Sequence[LedgerEntry]) -> None:
        """Take in a shard of the folder; what it holds wins over what was known."""
        self._add(self._folder.shards.index(shard), entries)

    def of_sha256(self, sha256: str) -> Rows | None:
        """Read the rows of a sample of these bytes, under whatever key: one for each view; None if there is none."""
        place = self._place_of_sha256.get(sha256)
        return None if place is None else self.read(np.array([place]))

    def places(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return where the rows of these samples are: int64 (n_samples, 2), for `read`."""
        return np.array([self._place_of_key[key] for key in keys], np.int64).reshape(-1, 2)

    def read(self, places: NDArray[np.int64]) -> Rows:
        """Read the rows of the samples at these places, in this order: (n_samples * n_views, n_features)."""
        if not len(places):
            return np.empty((0, 0)), None
        places = (places[:, None] + np.array([(0, view) for view in range(self._n_views)])).reshape(-1, 2)
        parts: list[tuple[NDArray[np.bool_], Rows]] = []
        for source in np.unique(places[:, 0]).tolist():
            here = places[:, 0] == source
            parts.append((here, self._read(source, places[here, 1])))
        features, logits = parts[0][1]
        if len(parts) == 1:
            return features, logits
        features = np.empty((len(places), features.shape[1]), features.dtype)
        logits = None if logits is None else np.empty((len(places), logits.shape[1]), logits.dtype)
        for here, (some_features, some_logits) in parts:
            features[here] = some_features
            if logits is not None:
                logits[here] = some_logits
        return features, logits

    def _read(self, source: int, rows: NDArray[np.int64]) -> Rows:
        if source != _FILE:
            shard = self._folder.shards[source]
            with reading(self._folder.path / shard.name):
                return self._folder.rows(shard, rows)
        assert self._file is not None
        return self._file.features(rows), self._file.logits(rows)

    def _add(self, source: int, entries: Sequence[LedgerEntry]) -> None:
        row = 0
        for entry in entries:
            self.entries[entry.key] = entry
            if entry.status == OK:
                self._place_of_key[entry.key] = self._place_of_sha256[entry.sha256] = (source, row)
                row += self._n_views
