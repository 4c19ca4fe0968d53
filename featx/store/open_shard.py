"""The shard that is being filled: batches that a kill would still lose."""

from __future__ import annotations

import dataclasses
import time

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.spec import FeatureSpec
from featx.store.records import OK, FeatureBatch, LedgerEntry
from featx.store.stored import Rows

MAX_SAMPLES = 2048
MAX_SECONDS = 10.0
MAX_BYTES = 64 * 1024 * 1024


class OpenShard:
    """Whole batches, checked and converted to what is stored.

    Parameters
    ----------
    spec : FeatureSpec
        What the batches must fit.

    Attributes
    ----------
    entries : list of LedgerEntry
        Of all batches so far.
    """

    def __init__(self, spec: FeatureSpec) -> None:
        self.entries: list[LedgerEntry] = []
        self._spec = spec
        self._opened_at = time.monotonic()
        self._rows: list[Rows] = []
        self._n_bytes = 0
        self._rows_of_sha256: dict[str, Rows] = {}

    @property
    def is_full(self) -> bool:
        """Whether it is large or old enough to be closed."""
        return (
            len(self.entries) >= MAX_SAMPLES
            or self._n_bytes >= MAX_BYTES
            or time.monotonic() - self._opened_at >= MAX_SECONDS
        )

    def add(self, batch: FeatureBatch) -> None:
        """Take a batch.

        Raises
        ------
        UsageError
            If the rows do not fit the spec or the entries, or hold NaN or infinite values.
        """
        good = [entry for entry in batch.entries if entry.status == OK]
        n_views = self._spec.n_views
        features = self._matrix("features", batch.features, len(good), self._spec.storage)
        if features.shape[1] != self._spec.n_features:
            raise UsageError(f"a row has {features.shape[1]} features, the spec says {self._spec.n_features}")
        logits = self._matrix("logits", batch.logits, len(good), "float32") if self._spec.logits else None
        self.entries += [_storable(entry) for entry in batch.entries]
        self._rows.append((features, logits))
        self._n_bytes += features.nbytes
        for sample, entry in enumerate(good):
            here = slice(sample * n_views, (sample + 1) * n_views)
            self._rows_of_sha256[entry.sha256] = features[here], None if logits is None else logits[here]

    def of_sha256(self, sha256: str) -> Rows | None:
        """Return the rows of a sample of these bytes, one for each view; None if there is none."""
        return self._rows_of_sha256.get(sha256)

    def rows(self) -> Rows:
        """Return all rows, in the order of the good entries."""
        features, logits = zip(*self._rows, strict=True)
        return np.concatenate(features), np.concatenate(logits) if self._spec.logits else None

    def _matrix(self, name: str, values: NDArray[np.floating] | None, n_good: int, dtype: str) -> NDArray[np.floating]:
        n_rows = n_good * self._spec.n_views
        if values is None or values.ndim != 2 or len(values) != n_rows:
            got = None if values is None else values.shape
            raise UsageError(f"a batch of {n_good} good samples needs {n_rows} rows of {name}, got {got}")
        with np.errstate(over="ignore"):
            matrix = np.array(values, dtype, order="C")
        if not np.isfinite(matrix).all():
            raise UsageError(f"{name} hold NaN or infinite values as {dtype}; a sample that has them is a failed one")
        return matrix


def _storable(entry: LedgerEntry) -> LedgerEntry:
    """Escape what a decoder may have quoted from a damaged file and HDF5's strings cannot hold."""
    reason = entry.reason.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()
    return entry if reason == entry.reason else dataclasses.replace(entry, reason=reason)
