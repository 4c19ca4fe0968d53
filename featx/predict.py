"""The stage behind ``featx predict``: a saved bundle on new images, or on a feature file of the same spec."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from featx.errors import InputError, SpecMismatchError, UsageError
from featx.learn.answers import FORMATS, Answers, Told, write_number
from featx.learn.bundle import Bundle, load_bundle
from featx.learn.judgement import Caution, Judge, Judgement
from featx.learn.scores import Evaluation, evaluate_fixed
from featx.learn.tasks import CLASSIFICATION, MULTILABEL, REGRESSION, find_task
from featx.learn.threshold import Threshold
from featx.manifest import source as sources
from featx.manifest.record import Manifest
from featx.manifest.source import SourceOptions
from featx.spec import FeatureSpec
from featx.store.file import FeatureFile
from featx.store.records import OK, FeatureBatch, LedgerEntry
from featx.vision.engine import EngineOptions, Job, Notify, iter_batches

if TYPE_CHECKING:
    from featx.learn.multilabel.predictions import LabelAnswers
    from featx.learn.regression.predictions import NumberPredictions

__all__ = ["FORMATS", "Predictions", "predict"]

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with images."""

_HDF5_NAMES = (".h5", ".hdf5")
_HDF5_START = b"\x89HDF\r\n\x1a\n"
_BLOCK = 4096  # rows of a feature file that are in memory at a time


@dataclass(frozen=True, kw_only=True, eq=False)
class Predictions(Answers[Evaluation]):
    """What a classifier says about each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels, seen, n_locked, evaluation, evaluation_new
        As in `featx.learn.answers.Answers`; scores count all decisions, those too that were then held back.
    classes : list of str
        The head's classes, in the order of the columns of `probabilities`.
    predicted : list of str
        The head's own decision, or that by its threshold; ``""`` where the sample failed, or the head was told to
        abstain and is not sure.
    probabilities : float64 array (n_samples, n_classes)
        NaN where the sample failed.
    judgement : Judgement
        Prediction sets, abstaining, and what is unlike the training set.
    threshold : Threshold or None
        From which probability on the positive class is called; None where the head decides by itself.
    """

    classes: list[str]
    predicted: list[str]
    probabilities: NDArray[np.float64] = field(repr=False)
    judgement: Judgement = field(default_factory=Judgement, repr=False)
    threshold: Threshold | None = None

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = super().notes
        if self.evaluation_new is not None:
            notes += self.evaluation_new.notes
        return notes + self.judgement.notes

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header ``key, status, predicted, p_<class>...``, then one row for each sample.

        What caution adds comes last: ``set, abstained, unlike``, each only where there is an answer.
        """
        good = np.array([status == OK for status in self.status], dtype=np.bool_)
        more = self.judgement.columns(self.classes, good)
        yield ["key", "status", "predicted", *(f"p_{name}" for name in self.classes), *more]
        columns = zip(self.keys, self.status, self.predicted, self.probabilities, strict=True)
        for place, (key, status, predicted, row) in enumerate(columns):
            yield [key, status, predicted, *map(write_number, row), *(column[place] for column in more.values())]

    def answer(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{predicted, probabilities}``."""
        if not good:
            return {"predicted": None, "probabilities": None}
        probabilities = dict(zip(self.classes, self.probabilities[place].tolist(), strict=True))
        return {"predicted": self.predicted[place] or None, "probabilities": probabilities}

    def caution(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{set, abstained, unlike, distance}``, each where there is an answer."""
        return self.judgement.record(place, self.classes, good=good)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        threshold = self.threshold
        return {
            "classes": self.classes,
            "threshold": None if threshold is None else {"positive": threshold.positive, "value": threshold.value},
            **self.judgement.to_dict(),
            **super().to_dict(),
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
) -> Predictions | LabelAnswers | NumberPredictions:
    """Ask a saved head about images, their features made as those were that it was fitted on.

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
    Predictions, or what the task of the bundle gives instead
        One for each sample of the source. Images are read in batches; only the results are held in memory.

    Raises
    ------
    BundleError
        If the bundle cannot be loaded, or lacks what `caution` asks for.
    ManifestError, UsageError
        If the source cannot be read; a caution that has no meaning for the bundle's task.
    InputError
        If a feature file has features that are not finite.
    SpecMismatchError
        If a feature file was made in another way than the bundle's features.
    WeightsError
        If the network's weights cannot be had.
    """
    loaded = bundle if isinstance(bundle, Bundle) else load_bundle(bundle)
    task = find_task(loaded.task)
    task.check(caution, task.careless)
    if isinstance(source, (str, os.PathLike)) and _is_feature_file(source):
        if source_options != SourceOptions():
            raise UsageError("options on how a folder or table is read have no meaning for a feature file")
        return _predict_file(loaded, source, caution, progress)
    manifest = sources.as_manifest(source, source_options)
    witness = _witness(loaded, caution, len(manifest))
    from featx.vision.backbones import restore_backbone
    from featx.vision.multi_device import make_embedder

    backbone = restore_backbone(loaded.needed_spec, loaded.weights, allow_code=allow_code, progress=on_download)
    embedder = make_embedder(backbone, device=engine.device, runtime=engine.runtime, n_images=len(manifest))
    job = Job(embedder, range(len(manifest)))
    batches = (batch for _, batch in iter_batches(manifest, [job], engine, notify=notify))
    return _predict(loaded, witness, batches, manifest.labels, manifest.groups, manifest.group_source, progress)


def _predict_file(
    bundle: Bundle, path: str | os.PathLike[str], caution: Caution, progress: Progress | None
) -> Predictions | LabelAnswers | NumberPredictions:
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
        witness = _witness(bundle, caution, len(ledger))
        locked = file.locked()
        return _predict(
            bundle,
            witness,
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


class Witness(Protocol):
    """What says something of samples batch by batch, as they come, then sums up; one kind for each task."""

    def see(self, places: NDArray[np.int64], X: NDArray[Any]) -> None:
        """Take the features (n * n_views, n_features) of the samples at some places."""

    def conclude(self, told: Told) -> Predictions | LabelAnswers | NumberPredictions:
        """Sum up."""


class _ClassWitness:
    """Says which class a sample is of."""

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:
        self._bundle = bundle
        self._judge = Judge(bundle, caution, n_samples)
        self._predicted = np.full(n_samples, "", dtype=object)
        self._probabilities = np.full((n_samples, len(bundle.classes)), np.nan)

    def see(self, places: NDArray[np.int64], X: NDArray[Any]) -> None:
        self._predicted[places], self._probabilities[places] = self._bundle.classify(X)
        self._judge.see(places, X)

    def conclude(self, told: Told) -> Predictions:
        judgement = self._judge.conclude(
            self._predicted,
            self._probabilities,
            told.labels,
            good=told.good,
            seen=told.seen,
            scored=told.new,
            groups=told.groups_of(told.new),
        )
        held_back = judgement.abstained
        called = self._predicted if held_back is None else np.where(held_back, "", self._predicted)
        return Predictions(
            classes=self._bundle.classes,
            predicted=[str(name) for name in called],
            probabilities=self._probabilities,
            judgement=judgement,
            threshold=self._bundle.threshold,
            **told.of_answers(lambda rows: self._evaluate(told, rows)),
        )

    def _evaluate(self, told: Told, rows: NDArray[np.bool_]) -> Evaluation:
        return evaluate_fixed(
            np.array(told.labels, dtype=object)[rows].tolist(),
            self._predicted[rows],
            self._probabilities[rows],
            self._bundle.classes,
            groups=told.groups_of(rows),
            positive=self._bundle.positive,
        )


def _label_witness(bundle: Bundle, caution: Caution, n_samples: int) -> Witness:
    from featx.learn.multilabel.predictions import LabelWitness

    return LabelWitness(bundle, caution, n_samples)


def _number_witness(bundle: Bundle, caution: Caution, n_samples: int) -> Witness:
    from featx.learn.regression.predictions import NumberWitness

    return NumberWitness(bundle, caution, n_samples)


_WITNESSES: dict[str, Callable[[Bundle, Caution, int], Witness]] = {
    CLASSIFICATION: _ClassWitness,
    MULTILABEL: _label_witness,
    REGRESSION: _number_witness,
}
"""What says something of samples, by task."""


def _witness(bundle: Bundle, caution: Caution, n_samples: int) -> Witness:
    return _WITNESSES[bundle.task](bundle, caution, n_samples)


def _predict(
    bundle: Bundle,
    witness: Witness,
    batches: Iterator[FeatureBatch],
    labels: list[str],
    groups: list[str],
    group_source: str,
    progress: Progress | None,
    *,
    locked_keys: frozenset[str] = frozenset(),
) -> Predictions | LabelAnswers | NumberPredictions:
    entries: list[LedgerEntry] = []
    for batch in batches:
        places = len(entries) + np.flatnonzero([entry.status == OK for entry in batch.entries])
        entries += batch.entries
        if len(places):
            witness.see(places, batch.features)
        if progress is not None:
            progress(len(entries), len(labels))
    good = np.array([entry.status == OK for entry in entries], dtype=np.bool_)
    is_locked = [entry.key in locked_keys or bundle.is_locked_away(entry.sha256) for entry in entries]
    labels = ["" if hidden else label for hidden, label in zip(is_locked, labels, strict=True)]
    seen = good & [bundle.was_fitted_on(entry.sha256) for entry in entries]
    return witness.conclude(Told(entries, labels, groups, group_source, good, seen, sum(is_locked)))


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
