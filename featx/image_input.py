"""What the scikit-learn face takes as images, and their rows of features."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import ImageDecodeError, InputError, UsageError
from featx.manifest import source
from featx.manifest.record import Manifest
from featx.store.records import OK
from featx.vision.engine import EngineOptions, Job, iter_batches

if TYPE_CHECKING:
    from featx.vision.embed import Embedder


def column(X: Any) -> list[Any]:
    """Return the items of a sequence, or of a table with one column.

    Raises
    ------
    UsageError, InputError
        One path, or a table with several columns.
    """
    if isinstance(X, (str, bytes, os.PathLike)):
        raise UsageError(f"expected a sequence, got the one {X!r}; write [{X!r}]")
    shape: Any = getattr(X, "shape", ())
    if len(shape) == 2 and getattr(X, "dtype", None) != np.uint8:
        if shape[1] != 1:
            raise InputError(f"expected one column, got a table of shape {shape}")
        return list(np.asarray(X)[:, 0])
    return list(X)


def image_manifest(X: Any) -> Manifest:
    """Return images as a manifest.

    Parameters
    ----------
    X : sequence of path, PIL.Image.Image, or uint8 array (height, width[, channels]); or one array of n of them

    Raises
    ------
    InputError
        If `X` is empty or holds something else.
    """
    items = column(X)
    # A position makes every key unique, though an image may be there twice; and it says which one is meant.
    names = [f", {os.fsdecode(item)}" if isinstance(item, (str, os.PathLike)) else "" for item in items]
    return source.manifest_of(items, keys=[f"item {i}{name}" for i, name in enumerate(names)])


def iter_rows(
    manifest: Manifest, positions: Sequence[int], embedder: Embedder, options: EngineOptions
) -> Iterator[tuple[list[str], NDArray[np.floating]]]:
    """Yield the SHA-256 and the rows of one batch after the other, (n, n_views * n_features); a failure is an error.

    Raises
    ------
    ImageDecodeError
        If an image cannot be read; names it.
    """
    if not positions:
        return
    for _, batch in iter_batches(manifest, [Job(embedder, positions)], options):
        for entry in batch.entries:
            if entry.status != OK:
                reason, _, detail = entry.reason.partition(": ")
                raise ImageDecodeError(reason, detail, key=entry.key)
        yield [entry.sha256 for entry in batch.entries], batch.features.reshape(len(batch.entries), -1)


def read_rows(manifest: Manifest, embedder: Embedder, options: EngineOptions) -> tuple[list[str], NDArray[np.float32]]:
    """Return the SHA-256 of all images of a manifest, and their rows (n, n_views * n_features), in its order.

    Raises
    ------
    ImageDecodeError
        As `iter_rows`.
    """
    spec = embedder.backbone.spec
    features = np.empty((len(manifest), spec.n_views * spec.n_features), dtype=np.float32)
    shas: list[str] = []
    for names, rows in iter_rows(manifest, range(len(manifest)), embedder, options):
        features[len(shas) : len(shas) + len(rows)] = rows
        shas += names
    return shas, features
