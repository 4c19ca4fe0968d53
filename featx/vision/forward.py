"""From the pixels of a batch to its rows: each content is computed once, and what is not finite is a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry

if TYPE_CHECKING:
    from featx.vision.decoder import Outcome
    from featx.vision.engine import Job, Row


class Forward:
    """Computes the batches of one job.

    Parameters
    ----------
    job : Job
        Its network, and what it knows already.
    """

    def __init__(self, job: Job) -> None:
        self._embedder = job.embedder
        self._lookup = job.lookup
        self._spec = job.embedder.backbone.spec

    def __call__(self, outcomes: Sequence[Outcome]) -> FeatureBatch:
        """Compute one batch: a row for each view of each good sample, or a failure."""
        rows: dict[str, Row] = {}
        new: dict[str, NDArray[np.uint8]] = {}
        for outcome in outcomes:
            sha256 = outcome.entry.sha256
            if outcome.pixels is None or sha256 in rows or sha256 in new:
                continue
            known = self._lookup(sha256) if self._lookup is not None else None
            if known is not None:
                rows[sha256] = known
            else:
                new[sha256] = outcome.pixels
        if new:
            rows |= self._compute(new)
        return self._batch([outcome.entry for outcome in outcomes], rows)

    def _compute(self, new: dict[str, NDArray[np.uint8]]) -> dict[str, Row]:
        """Run the network once for each view: the plain view's rows are those of a spec without views, to the bit."""
        views = [self._embedder(np.stack([pixels[v] for pixels in new.values()])) for v in range(self._spec.n_views)]
        features = np.stack([features for features, _ in views], axis=1)
        logits = np.stack([scores for _, scores in views if scores is not None], axis=1) if self._spec.logits else None
        return {sha256: (features[i], None if logits is None else logits[i]) for i, sha256 in enumerate(new)}

    def _batch(self, entries: list[LedgerEntry], rows: dict[str, Row]) -> FeatureBatch:
        spec, n_classes = self._spec, self._embedder.backbone.n_classes or 0
        with np.errstate(over="ignore"):  # beyond float16's range is infinite, and that is a failure with a name
            stored = {sha256: row[0].reshape(spec.n_views, -1).astype(spec.storage) for sha256, row in rows.items()}
        good = {sha256 for sha256, row in rows.items() if _finite(stored[sha256], row[1])}
        entries = [
            replace(entry, status=FAILED, reason="not-finite")
            if entry.status == OK and entry.sha256 not in good
            else entry
            for entry in entries
        ]
        hashes = [entry.sha256 for entry in entries if entry.status == OK]
        features = np.zeros((len(hashes), spec.n_views, spec.n_features), spec.storage)
        for i, sha256 in enumerate(hashes):
            features[i] = stored[sha256]
        matrix = features.reshape(-1, spec.n_features)
        if not spec.logits:
            return FeatureBatch(entries, matrix)
        logits = np.zeros((len(hashes), spec.n_views, n_classes), np.float32)
        for i, sha256 in enumerate(hashes):
            scores = rows[sha256][1]
            assert scores is not None
            logits[i] = scores.reshape(spec.n_views, -1)
        return FeatureBatch(entries, matrix, logits.reshape(-1, n_classes))


def _finite(features: NDArray[np.floating], logits: NDArray[np.floating] | None) -> bool:
    return bool(np.isfinite(features).all() and (logits is None or np.isfinite(logits).all()))
