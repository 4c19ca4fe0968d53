"""From samples to batches of features: threads read and decode ahead, the network runs in the caller's thread.

The promise: every position comes back exactly once and in order, as a row or as a failure.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featx.errors import ImageDecodeError, UsageError
from featx.manifest import source
from featx.manifest.record import Manifest
from featx.spec import Preprocess
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.vision.images import array_to_rgb, extension_note, open_rgb, preprocess_pixels
from featx.vision.reading import Reading

if TYPE_CHECKING:  # a type only: the options above the loop must not cost a torch import
    from featx.vision.embed import Embedder

Row = tuple[NDArray[np.floating], NDArray[np.floating] | None]
Lookup = Callable[[str], Row | None]
"""From a sample's SHA-256 to its row of features and its logits, where they are known already."""

_BATCHES_AHEAD = 2


@dataclass(frozen=True)
class EngineOptions:
    """How features are computed; none of it changes them beyond rounding.

    Attributes
    ----------
    batch_size : int
        Images in one forward pass.
    num_workers : int or None
        Threads that read and decode; None: one for each core that this process may use; 0 counts as 1.
    device : str
        See `featx.vision.embed.choose_device`.
    """

    batch_size: int = 32
    num_workers: int | None = None
    device: str = "auto"

    @property
    def n_threads(self) -> int:
        """How many threads decode."""
        if self.num_workers is not None:
            return max(1, self.num_workers)
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class _Sample:
    entry: LedgerEntry
    pixels: NDArray[np.uint8] | None = None


def iter_batches(
    manifest: Manifest,
    positions: Sequence[int],
    embedder: Embedder,
    options: EngineOptions = EngineOptions(),
    *,
    lookup: Lookup | None = None,
) -> Iterator[FeatureBatch]:
    """Compute the features of some of a manifest's samples, batch by batch.

    Batch i holds ``positions[i * B : (i + 1) * B]``, whatever fails in it. Identical bytes in one batch are computed
    once; those that `lookup` knows are copied. `lookup` is asked right before a batch is computed, in the caller's
    thread: rows of earlier batches may be known to it by then. Memory does not grow with the number of samples.

    Parameters
    ----------
    manifest : Manifest
        The samples.
    positions : sequence of int
        Which of them, in which order.
    embedder : Embedder
        The network on its device.
    options : EngineOptions
        Its `device` is not looked at: the embedder has one.
    lookup : callable, optional
        See `Lookup`.

    Yields
    ------
    FeatureBatch
        Features in the spec's storage dtype, all finite; logits in float32.

    Raises
    ------
    UsageError
        If batch size or number of workers are out of range.
    """
    if options.batch_size < 1:
        raise UsageError(f"the batch size must be at least 1, got {options.batch_size}")
    if options.num_workers is not None and options.num_workers < 0:
        raise UsageError(f"the number of workers must be at least 0, got {options.num_workers}")
    preprocess, size, n_threads = embedder.backbone.spec.preprocess, options.batch_size, options.n_threads
    ahead = max(_BATCHES_AHEAD, -(-2 * n_threads // size))
    return _batches(manifest, positions, embedder, lookup, preprocess, size, n_threads, ahead)


def _batches(
    manifest: Manifest,
    positions: Sequence[int],
    embedder: Embedder,
    lookup: Lookup | None,
    preprocess: Preprocess,
    size: int,
    n_threads: int,
    ahead: int,
) -> Iterator[FeatureBatch]:
    threads = ThreadPoolExecutor(n_threads, thread_name_prefix="featx-decode")
    waiting: deque[list[Future[_Sample]]] = deque()
    try:
        for start in range(0, len(positions), size):
            batch = positions[start : start + size]
            waiting.append([threads.submit(_read, manifest, position, preprocess) for position in batch])
            if len(waiting) > ahead:
                yield _compute([future.result() for future in waiting.popleft()], embedder, lookup)
        while waiting:
            yield _compute([future.result() for future in waiting.popleft()], embedder, lookup)
    finally:
        # Also when the caller stops early or Ctrl-C comes: what has not begun is not begun.
        threads.shutdown(wait=True, cancel_futures=True)


def _read(manifest: Manifest, position: int, preprocess: Preprocess) -> _Sample:
    """Read, hash and decode one sample; runs in a thread."""
    key = manifest.keys[position]
    entry = LedgerEntry(key, FAILED)
    known: tuple[int, int] | None = None
    try:
        if manifest.arrays is not None and not manifest.paths[position]:
            entry = replace(entry, sha256=source.sample_sha256(manifest, position))
            image = array_to_rgb(manifest.arrays[position], Reading.of(preprocess))
            entry = replace(entry, status=OK, width=image.width, height=image.height)
            return _Sample(entry, preprocess_pixels(image, preprocess))
        # The time before the bytes: a file that changes in between looks changed the next time.
        known = source.stat(manifest, position)
        data = source.read_bytes(manifest, position)
        entry = replace(
            entry,
            sha256=source.sample_sha256(manifest, position, data),
            bytes=len(data),
            mtime_ns=known[1] if known is not None else 0,
        )
        image, facts = open_rgb(data, Reading.of(preprocess), frame=source.frame_of(manifest, position))
        entry = replace(entry, format=facts.format, width=facts.width, height=facts.height, mode=facts.mode)
        pixels = preprocess_pixels(image, preprocess)
        return _Sample(replace(entry, status=OK, reason=extension_note(key, facts.format)), pixels)
    except ImageDecodeError as error:
        if error.reason == "empty" and known is not None:
            entry = replace(entry, mtime_ns=known[1])  # an empty file that did not change is not read again
        if error.missing:
            entry = LedgerEntry(key, FAILED)  # as if never read, so that it is tried again
        reason = f"{error.reason}: {error.detail}" if error.detail else error.reason
        return _Sample(replace(entry, status=FAILED, reason=reason))


def _compute(samples: list[_Sample], embedder: Embedder, lookup: Lookup | None) -> FeatureBatch:
    rows: dict[str, Row] = {}
    new: dict[str, NDArray[np.uint8]] = {}
    for sample in samples:
        sha256 = sample.entry.sha256
        if sample.pixels is None or sha256 in rows or sha256 in new:
            continue
        known = lookup(sha256) if lookup is not None else None
        if known is not None:
            rows[sha256] = known
        else:
            new[sha256] = sample.pixels
    if new:
        features, logits = embedder(np.stack(list(new.values())))
        for i, sha256 in enumerate(new):
            rows[sha256] = features[i], None if logits is None else logits[i]
    return _batch_of([sample.entry for sample in samples], rows, embedder)


def _batch_of(entries: list[LedgerEntry], rows: dict[str, Row], embedder: Embedder) -> FeatureBatch:
    spec = embedder.backbone.spec
    with np.errstate(over="ignore"):  # beyond float16's range is infinite, and that is a failure with a name
        stored = {sha256: row[0].astype(spec.storage) for sha256, row in rows.items()}
    good = {sha256 for sha256, row in rows.items() if _finite(stored[sha256], row[1])}
    entries = [
        replace(entry, status=FAILED, reason="not-finite") if entry.status == OK and entry.sha256 not in good else entry
        for entry in entries
    ]
    hashes = [entry.sha256 for entry in entries if entry.status == OK]
    features = np.zeros((len(hashes), spec.n_features), spec.storage)
    for i, sha256 in enumerate(hashes):
        features[i] = stored[sha256]
    if not spec.logits:
        return FeatureBatch(entries, features)
    logits = np.zeros((len(hashes), embedder.backbone.n_classes or 0), np.float32)
    for i, sha256 in enumerate(hashes):
        logits[i] = rows[sha256][1]
    return FeatureBatch(entries, features, logits)


def _finite(features: NDArray[np.floating], logits: NDArray[np.floating] | None) -> bool:
    return bool(np.isfinite(features).all() and (logits is None or np.isfinite(logits).all()))
