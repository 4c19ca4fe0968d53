"""The stage behind ``featx predict``: a saved bundle on new images, or on a feature file of the same spec."""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, SpecMismatchError, UsageError
from featx.learn.bundle import Bundle, load_bundle
from featx.learn.groups import resolve_groups
from featx.learn.judgement import Caution, Judge, Judgement
from featx.learn.scores import Evaluation, evaluate_fixed
from featx.learn.threshold import Threshold
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import FeatureSpec
from featx.store.file import FeatureFile
from featx.store.records import FAILED, OK, FeatureBatch, LedgerEntry
from featx.store.target import check_target, save_text
from featx.vision.engine import EngineOptions, Job, Notify, iter_batches

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with images."""

FORMATS = (".csv", ".jsonl")
_HDF5_NAMES = (".h5", ".hdf5")
_HDF5_START = b"\x89HDF\r\n\x1a\n"
_BLOCK = 4096  # rows of a feature file that are in memory at a time


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a bundle says about each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    classes : list of str
        The head's classes, in the order of the columns of `probabilities`.
    keys : list of str
        Name of each sample.
    status, reasons : list of str
        ``"ok"`` or ``"failed"``, and why (see `featx.store.records.REASONS`).
    labels : list of str
        What the source says each sample is; ``""`` = unknown.
    predicted : list of str
        The head's own decision, or that by its threshold; ``""`` where the sample failed, or the head was told to
        abstain and is not sure.
    probabilities : float64 array (n_samples, n_classes)
        NaN where the sample failed.
    seen : list of bool
        Whether the head was fitted on the same bytes.
    evaluation : Evaluation or None
        Scores over the good samples with a label; None without any.
    evaluation_new : Evaluation or None
        The same over those that the head was not fitted on: the scores that say something about new images. Both count
        all decisions, those too that were then held back.
    judgement : Judgement
        Prediction sets, abstaining, and what is unlike the training set.
    threshold : Threshold or None
        From which probability on the positive class is called; None where the head decides by itself.
    n_locked : int
        Samples that are kept for the last test: their labels are left empty here, and nothing is scored on them.
    """

    classes: list[str]
    keys: list[str]
    status: list[str]
    reasons: list[str]
    labels: list[str]
    predicted: list[str]
    probabilities: NDArray[np.float64] = field(repr=False)
    seen: list[bool] = field(repr=False)
    evaluation: Evaluation | None = field(default=None, repr=False)
    evaluation_new: Evaluation | None = field(default=None, repr=False)
    judgement: Judgement = field(default_factory=Judgement, repr=False)
    threshold: Threshold | None = None
    n_locked: int = 0

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def failures(self) -> dict[str, str]:
        """Key to reason of every sample without a prediction."""
        return {key: why for key, status, why in zip(self.keys, self.status, self.reasons, strict=True) if status != OK}

    @property
    def failures_by_reason(self) -> dict[str, int]:
        """Count the failures by the code before the colon."""
        return dict(Counter(reason.partition(":")[0] for reason in self.failures.values()))

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = []
        if any(self.seen):
            notes.append(
                f"{sum(self.seen):,} of {len(self):,} images were in the training set; the scores on them say nothing "
                "about new images."
            )
        if self.n_locked:
            notes.append(
                f"{self.n_locked:,} of {len(self):,} images are of the locked test set: nothing is scored on them "
                "here. `featx lock FILE.h5 --open BUNDLE.featx` does that, and counts it."
            )
        if self.evaluation_new is not None:
            notes += self.evaluation_new.notes
        notes += self.judgement.notes
        return notes

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header ``key, status, predicted, p_<class>...``, then one row for each sample.

        What caution adds comes last: ``set, abstained, unlike``, each only where there is an answer.
        """
        good = np.array([status == OK for status in self.status], dtype=np.bool_)
        more = self.judgement.columns(self.classes, good)
        yield ["key", "status", "predicted", *(f"p_{name}" for name in self.classes), *more]
        columns = zip(self.keys, self.status, self.predicted, self.probabilities, strict=True)
        for place, (key, status, predicted, row) in enumerate(columns):
            cells = ("" if np.isnan(p) else repr(float(p)) for p in row)
            yield [key, status, predicted, *cells, *(column[place] for column in more.values())]

    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample: ``key, status, reason, label, predicted, probabilities, seen``.

        And where there is an answer ``set, abstained, unlike, distance``.
        """
        columns = zip(self.keys, self.status, self.reasons, self.labels, self.predicted, self.seen, strict=True)
        for place, ((key, status, reason, label, predicted, seen), row) in enumerate(
            zip(columns, self.probabilities.tolist(), strict=True)
        ):
            good = status == OK
            yield {
                "key": key,
                "status": status,
                "reason": reason,
                "label": label or None,
                "predicted": (predicted or None) if good else None,
                "probabilities": dict(zip(self.classes, row, strict=True)) if good else None,
                "seen": seen,
                **self.judgement.record(place, self.classes, good=good),
            }

    def write_csv(self, file: TextIO) -> None:
        """Write `iter_csv_rows` to a text file."""
        csv.writer(file, lineterminator="\n").writerows(self.iter_csv_rows())

    def write_jsonl(self, file: TextIO) -> None:
        """Write `iter_records` to a text file, one JSON object a line."""
        for record in self.iter_records():
            file.write(json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a ``.csv`` or ``.jsonl`` file (UTF-8), all of it or nothing.

        Raises
        ------
        UsageError
            If the name ends otherwise, or its folder is not there.
        StoreWriteError
            If the file system refuses.
        """
        path = os.fspath(path)
        check_target(path, FORMATS, what="predictions")
        text = io.StringIO()
        (self.write_jsonl if path.lower().endswith(".jsonl") else self.write_csv)(text)
        save_text(path, text.getvalue(), what="predictions")

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        return {
            "classes": self.classes,
            "n_samples": len(self),
            "n_failed": len(self.failures),
            "failures_by_reason": self.failures_by_reason,
            "n_seen": sum(self.seen),
            "n_locked": self.n_locked,
            "threshold": None
            if self.threshold is None
            else {"positive": self.threshold.positive, "value": self.threshold.value},
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "evaluation_new": None if self.evaluation_new is None else self.evaluation_new.to_dict(),
            **self.judgement.to_dict(),
            "warnings": self.notes,
            "predictions": list(self.iter_records()),
        }


def predict(
    bundle: Bundle | str | os.PathLike[str],
    source: str | os.PathLike[str] | Manifest | Sequence[Any],
    *,
    source_options: SourceOptions = SourceOptions(),
    engine: EngineOptions = EngineOptions(),
    caution: Caution = Caution(),  # noqa: B008  frozen
    allow_code: str | None = None,
    progress: Progress | None = None,
    on_download: Callable[[str, int, int | None], None] | None = None,
    notify: Notify | None = None,
) -> Predictions:
    """Classify images with a saved head, their features made as those were that it was fitted on.

    Parameters
    ----------
    bundle : Bundle or path
        What `featx fit` wrote.
    source : path, Manifest, or sequence
        A folder, a table or an image; a feature file (``.h5``: no torch is loaded then); or paths, PIL images and
        uint8 arrays (height, width[, channels]).
    source_options : SourceOptions
        How a folder or table is read.
    engine : EngineOptions
        Batch size, workers, device.
    caution : Caution
        Prediction sets, abstaining, and which images count as unlike the training set.
    allow_code : str, optional
        The ``package.module:function`` that may be imported, where the bundle's network is the user's own code.
    progress : callable, optional
        See `Progress`.
    on_download : callable, optional
        ``on_download(file name, bytes received, bytes in total or None)``, while weights are fetched.
    notify : callable, optional
        ``notify(sentence)`` tells what the user should know meanwhile; without it, a warning.

    Returns
    -------
    Predictions
        One for each sample of the source. Images are read in batches; only the results are held in memory.

    Raises
    ------
    BundleError
        If the bundle cannot be loaded, or lacks what `caution` asks for.
    ManifestError, UsageError
        If the source cannot be read.
    InputError
        If a feature file has features that are not finite.
    SpecMismatchError
        If a feature file was made in another way than the bundle's features.
    WeightsError
        If the network's weights cannot be had.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    if isinstance(source, (str, os.PathLike)) and _is_feature_file(source):
        if source_options != SourceOptions():
            raise UsageError("options on how a folder or table is read have no meaning for a feature file")
        return _predict_file(loaded, source, caution, progress)
    manifest = sources.as_manifest(source, source_options)
    judge = Judge(loaded, caution, len(manifest))
    from featx.vision.backbones import restore_backbone
    from featx.vision.multi_device import make_embedder

    backbone = restore_backbone(loaded.needed_spec, loaded.weights, allow_code=allow_code, progress=on_download)
    embedder = make_embedder(backbone, device=engine.device, runtime=engine.runtime, n_images=len(manifest))
    job = Job(embedder, range(len(manifest)))
    batches = (batch for _, batch in iter_batches(manifest, [job], engine, notify=notify))
    return _predict(loaded, judge, batches, manifest.labels, manifest.groups, manifest.group_source, progress)


def _predict_file(
    bundle: Bundle, path: str | os.PathLike[str], caution: Caution, progress: Progress | None
) -> Predictions:
    needed = bundle.needed_spec
    with FeatureFile.open(path) as file:
        # More views than needed do no harm: those that count come first, one row after the other.
        differences = replace(file.spec, views=file.spec.views[: needed.n_views]).differences(needed)
        if differences:
            raise SpecMismatchError(
                differences,
                path=os.fspath(path),
                hint=_hint(bundle.spec),
            )
        ledger = file.ledger()
        batches = _iter_blocks(file, ledger.entries(), ledger.row, needed.n_views)
        judge = Judge(bundle, caution, len(ledger))
        locked = file.locked()
        return _predict(
            bundle,
            judge,
            batches,
            list(ledger.label),
            list(ledger.group),
            file.group_source,
            progress,
            locked_keys=frozenset() if locked is None else locked.keys,
        )


def _hint(spec: FeatureSpec) -> str:
    if spec.is_foreign:
        return "the bundle needs features that were imported in the same words: featx cache import --made-by WORDS"
    return "the bundle needs features made in its own way: give it the images instead of this file"


def _iter_blocks(
    file: FeatureFile, entries: Sequence[LedgerEntry], first_rows: NDArray[np.int64], n_views: int
) -> Iterator[FeatureBatch]:
    for start in range(0, len(entries), _BLOCK):
        first = first_rows[start : start + _BLOCK]
        rows = (first[first >= 0, None] + np.arange(n_views)).ravel()
        some, features = list(entries[start : start + _BLOCK]), file.features(rows)
        bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
        if len(bad):
            key = [entry.key for entry in some if entry.status == OK][bad[0] // n_views]
            raise InputError(
                f"{key!r} has NaN or infinite features, which `featx extract` never writes: the file is damaged. "
                "`featx cache verify` says how far; extract again with --replace"
            )
        yield FeatureBatch(some, features)


def _predict(
    bundle: Bundle,
    judge: Judge,
    batches: Iterator[FeatureBatch],
    labels: list[str],
    groups: list[str],
    group_source: str,
    progress: Progress | None,
    *,
    locked_keys: frozenset[str] = frozenset(),
) -> Predictions:
    n_samples = len(labels)
    entries: list[LedgerEntry] = []
    predicted = np.full(n_samples, "", dtype=object)
    probabilities = np.full((n_samples, len(bundle.classes)), np.nan)
    for batch in batches:
        places = len(entries) + np.flatnonzero([entry.status == OK for entry in batch.entries])
        entries += batch.entries
        if len(places):
            predicted[places], probabilities[places] = bundle.classify(batch.features)
            judge.see(places, batch.features)
        if progress is not None:
            progress(len(entries), n_samples)
    good = np.array([entry.status == OK for entry in entries], dtype=np.bool_)
    is_locked = [entry.key in locked_keys or bundle.is_locked_away(entry.sha256) for entry in entries]
    labels = ["" if hidden else label for hidden, label in zip(is_locked, labels, strict=True)]
    seen = good & [bundle.was_fitted_on(entry.sha256) for entry in entries]
    known = good & (np.array(labels, dtype=object) != "")

    def groups_of(places: NDArray[np.int64]) -> NDArray[np.int64] | None:
        return resolve_groups([groups[i] for i in places], [entries[i].sha256 for i in places], group_source).ids

    def evaluate(rows: NDArray[np.bool_]) -> Evaluation | None:
        places = np.flatnonzero(rows)
        if not len(places):
            return None
        return evaluate_fixed(
            [labels[i] for i in places],
            predicted[places],
            probabilities[places],
            bundle.classes,
            groups=groups_of(places),
            positive=bundle.positive,
        )

    evaluation = evaluate(known)
    new = known & ~seen
    judgement = judge.conclude(
        predicted, probabilities, labels, good=good, seen=seen, scored=new, groups=groups_of(np.flatnonzero(new))
    )
    called = predicted if judgement.abstained is None else np.where(judgement.abstained, "", predicted)
    return Predictions(
        classes=bundle.classes,
        keys=[entry.key for entry in entries],
        status=[entry.status for entry in entries],
        reasons=[entry.reason if entry.status == FAILED else "" for entry in entries],
        labels=labels,
        predicted=[str(name) for name in called],
        probabilities=probabilities,
        seen=seen.tolist(),
        evaluation=evaluation,
        evaluation_new=evaluate(new) if seen.any() else evaluation,
        judgement=judgement,
        threshold=bundle.threshold,
        n_locked=sum(is_locked),
    )


def _is_feature_file(path: str | os.PathLike[str]) -> bool:
    if os.fspath(path).lower().endswith(_HDF5_NAMES):
        return True
    if not Path(path).is_file():
        return False
    try:
        with Path(path).open("rb") as file:
            return file.read(len(_HDF5_START)) == _HDF5_START
    except OSError:  # the reader of sources says what is wrong with it
        return False
