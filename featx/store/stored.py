"""The rows that a finished file and the shards beside it hold."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.store.file import FeatureFile, reading
from featx.store.shards import ShardFolder

Rows = tuple[NDArray[Any], NDArray[Any] | None]
"""Features (n, n_features), and logits (n, n_source_classes) or None."""

FILE = -1
"""The source of rows that are in the finished file; the others are positions in `ShardFolder.shards`."""

_KEPT_BYTES = 8 * 1024 * 1024


class StoredRows:
    """Reads rows from where they are; a place is (source, first row of a sample).

    Parameters
    ----------
    file : FeatureFile or None
        The finished file whose rows may be used.
    folder : ShardFolder
        The shards that came after it.
    n_views : int
        Rows of one sample, in the file and in the shards.
    """

    def __init__(self, file: FeatureFile | None, folder: ShardFolder, *, n_views: int) -> None:
        self._file = file
        self._folder = folder
        self._n_views = n_views
        self._kept: dict[tuple[int, int], Rows] = {}  # read last, the oldest first

    def read_one(self, place: tuple[int, int]) -> Rows:
        """Read the rows of one sample; those that are asked for again and again are kept in memory."""
        rows = self._kept.pop(place, None) or self.read(np.array([place]))
        self._kept[place] = rows
        if len(self._kept) * rows[0].nbytes > _KEPT_BYTES:
            del self._kept[next(iter(self._kept))]
        return rows

    def read(self, places: NDArray[np.int64]) -> Rows:
        """Read the rows of the samples at these places, in this order: (n_samples * n_views, n_features)."""
        if not len(places):
            return np.empty((0, 0)), None
        views = np.array([(0, view) for view in range(self._n_views)])
        places = (places[:, None] + views).reshape(-1, 2)
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
        if source != FILE:
            shard = self._folder.shards[source]
            with reading(self._folder.path / shard.name):
                return self._folder.rows(shard, rows)
        assert self._file is not None
        return self._file.features(rows), self._file.logits(rows)
