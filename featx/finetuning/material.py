"""What a fine-tune needs: images, the network, and the frozen features of these images."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from featx.errors import BundleError, ImageDecodeError, InputError, SpecMismatchError
from featx.finetuning.options import FinetuneOptions, Keep, Start
from featx.learn.bundle import Bundle, load_bundle
from featx.learn.dataset import Features, LockedPart, load_features
from featx.learn.racing import Progress
from featx.learn.tasks import CLASSIFICATION
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.spec import FeatureSpec
from featx.store.file import FeatureFile
from featx.store.records import OK, LedgerEntry
from featx.vision.engine import EngineOptions, Job, iter_batches
from featx.vision.tuning.ranks import Ranks

if TYPE_CHECKING:
    from featx.vision.backbones import Backbone

IntArray = NDArray[np.int64]
FEATURES = "features.h5"


@dataclass(frozen=True, eq=False)
class Material:
    """What a fine-tune is made of.

    Attributes
    ----------
    manifest : Manifest
    backbone : Backbone
        Its network as it starts.
    weights : bytes or None
        As a bundle keeps them, where they are the user's own.
    data : Features
        Of the plain images; locked ones are not among them.
    notes : list of str
        What the user should know of it.
    """

    manifest: Manifest
    backbone: Backbone
    weights: bytes | None
    data: Features
    notes: list[str]

    def positions(self, keys: NDArray[np.object_]) -> IntArray:
        """Return where samples (n,) are in the manifest."""
        place = {key: position for position, key in enumerate(self.manifest.keys)}
        return np.array([place[key] for key in keys], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Gathering:
    """How material is had.

    Attributes
    ----------
    manifest : Manifest
    options : FinetuneOptions
    engine : EngineOptions
    keep : Keep
    progress : callable
        See `featx.learn.racing.Progress`.
    """

    manifest: Manifest
    options: FinetuneOptions
    engine: EngineOptions
    keep: Keep
    progress: Progress

    def gather(self, start: Start, bundle: Bundle | None) -> Material:
        """Have network and features.

        Raises
        ------
        SpecMismatchError, StoreError, WeightsError
            Bundle and feature file of different networks; a file that cannot be used; weights that are others now.
        InputError
            Images that the source lacks, that cannot be read or that are not those of the features.
        """
        code = start.request.backbone
        if start.features is not None:
            return self._from_file(start.features, bundle, code)
        if bundle is not None:
            return self._from_bundle(bundle, code)
        with tempfile.TemporaryDirectory(prefix="featx-") as scratch:
            path = (self.keep.folder or Path(scratch)) / FEATURES
            return self._extracted(path, start)

    def _extracted(self, path: Path, start: Start) -> Material:
        from featx.extract import UpdateOptions, extract

        path.parent.mkdir(parents=True, exist_ok=True)
        with self.progress("extract", "images") as advance, Ranks.here().in_turn():
            extract(
                self.manifest,
                path,
                request=start.request,
                engine=self.engine,
                update=UpdateOptions(replace=True),  # a file of this stage's own: nothing that the user has made
                progress=advance,
            )
        return self._from_file(path, None, start.request.backbone)

    def _from_file(self, path: str | os.PathLike[str], bundle: Bundle | None, code: str) -> Material:
        from featx.vision.backbones import restore_backbone

        with FeatureFile.open(path) as file:
            spec, weights = _plain(file.spec), file.weights()
        if bundle is not None and (differences := spec.differences(_plain(bundle.spec))):
            raise SpecMismatchError(
                differences,
                path=os.fspath(path),
                hint=f"they are not what {bundle.path} was fitted on: give its own feature file, or leave one of the "
                "two out",
            )
        data = load_features(path, allow_missing=self.options.fit.allow_missing)
        check_images(self.manifest, data, self.progress)
        backbone = restore_backbone(spec, weights, allow_code=code)
        return Material(self.manifest, backbone, weights, data, self._note_others(path, data))

    def _note_others(self, path: str | os.PathLike[str], data: Features) -> list[str]:
        n_locked = 0 if data.locked is None else data.locked.n_samples
        n_others = len(self.manifest) - len(data) - data.n_missing - n_locked
        if n_others <= 0:
            return []
        return [
            f"Images of the source that are not in {os.fspath(path)}: {n_others}. They take no part; featx extract "
            "brings the file up to date."
        ]

    def _from_bundle(self, bundle: Bundle, code: str) -> Material:
        from featx.vision.backbones import restore_backbone

        backbone = restore_backbone(_plain(bundle.spec), bundle.weights, allow_code=code)
        data = self._compute(backbone)
        hidden = np.array([bundle.is_locked_away(sha256) for sha256 in data.sha256], dtype=np.bool_)
        if not hidden.any():
            return Material(self.manifest, backbone, bundle.weights, data, [])
        locked = LockedPart(int(hidden.sum()), "", (), tuple(data.sha256[hidden]))
        note = f"Images that are locked for a last test, and take no part: {locked.n_samples}."
        return Material(self.manifest, backbone, bundle.weights, replace(data.take(~hidden), locked=locked), [note])

    def _compute(self, backbone: Backbone) -> Features:
        """Compute features for this run alone."""
        from featx.vision.multi_device import make_embedder

        manifest, engine = self.manifest, self.engine
        embedder = make_embedder(backbone, device=engine.device, runtime=engine.runtime, n_images=len(manifest))
        entries: list[LedgerEntry] = []
        rows = []
        with self.progress("extract", "images") as advance:
            for _, batch in iter_batches(manifest, [Job(embedder, range(len(manifest)))], engine):
                entries += batch.entries
                rows.append(batch.features)
                advance(len(entries), len(manifest))
        good = np.flatnonzero([entry.status == OK for entry in entries])
        if len(good) < len(entries) and not self.options.fit.allow_missing:
            raise _not_readable([entry for entry in entries if entry.status != OK], len(entries))
        return _features_of(manifest, good, np.concatenate(rows), entries, backbone.spec)


def _features_of(
    manifest: Manifest, good: IntArray, X: NDArray[np.floating], entries: Sequence[LedgerEntry], spec: FeatureSpec
) -> Features:
    def column(values: Sequence[str]) -> NDArray[np.object_]:
        return np.array([values[int(place)] for place in good], dtype=object)

    return Features(
        X=X.astype(np.float32),
        y=column(manifest.labels).astype(str),
        groups=column(manifest.groups),
        keys=column(manifest.keys),
        splits=column(manifest.splits),
        folds=column(manifest.folds),
        sha256=column([entry.sha256 for entry in entries]),
        group_source=manifest.group_source,
        spec=spec,
        n_missing=len(entries) - len(good),
    )


def _not_readable(failed: Sequence[LedgerEntry], n_all: int) -> InputError:
    first = failed[0]
    return InputError(
        f"{len(failed)} of {n_all} images cannot be read, the first {first.key!r} ({first.reason}); nothing was "
        "trained. Mend them, or leave them out with --allow-missing"
    )


def read_start(start: Start) -> Bundle | None:
    """Load the bundle, if there is one.

    Raises
    ------
    BundleError
        If it cannot be used; if it does not tell classes apart.
    """
    bundle = load_bundle(start.bundle) if isinstance(start.bundle, str | os.PathLike) else start.bundle
    if bundle is not None and bundle.task != CLASSIFICATION:
        raise BundleError(
            f"is for the task {bundle.task}; a fine-tune tells classes apart, one for each image", path=bundle.path
        )
    return bundle


def check_images(manifest: Manifest, data: Features, progress: Progress) -> None:
    """Look at all images before any is trained on: that they are there, and are those of the features.

    Identical bytes could be read when the features were made, so they can be read again.

    Raises
    ------
    InputError
        If the source lacks a sample that has features, or its bytes are others now.
    ImageDecodeError
        If a file cannot be read; names it.
    """
    place = {key: position for position, key in enumerate(manifest.keys)}
    missing = [str(key) for key in data.keys if key not in place]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(data)} samples with features are not in the source, the first {missing[0]!r}; "
            "give the images from which the features were made"
        )
    changed = []
    with progress("check", "images") as advance:
        for done, (key, sha256) in enumerate(zip(data.keys, data.sha256, strict=True), start=1):
            if place[key] in manifest.refused:
                raise ImageDecodeError(manifest.refused[place[key]], key=str(key))
            if sha256 and sources.sample_sha256(manifest, place[key]) != sha256:
                changed.append(str(key))
            advance(done, len(data))
    if changed:
        raise InputError(
            f"{len(changed)} of {len(data)} images are not those from which the features were made, the first "
            f"{changed[0]!r}; run featx extract again"
        )


def _plain(spec: FeatureSpec) -> FeatureSpec:
    """Return what makes the plain image's features: the network is trained on views of its own."""
    return replace(spec, views=spec.views[:1])
