"""Computing some rows of a feature file again, and comparing them with what it holds."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.errors import UsageError
from featx.manifest import source as sources
from featx.manifest.source import SourceOptions
from featx.store.file import FeatureFile
from featx.store.ledger import Ledger
from featx.store.records import OK

if TYPE_CHECKING:
    from featx.vision.engine import EngineOptions

Progress = Callable[[int, int], None]
"""Called as ``progress(done, total)`` with images."""

_MOST_CENTRED = 4096  # rows that the centre is the mean of
_NEAR_CENTRE = 1e-3  # standard deviations per feature


@dataclass(frozen=True)
class Tolerance:
    """What counts as the same row.

    Attributes
    ----------
    deviation : float
        Largest difference of a feature, in standard deviations of the features.
    cosine : float
        Lowest cosine between two readings of a row, after the mean row was taken off.
    why : str
        What it is for, in words.
    """

    deviation: float
    cosine: float
    why: str


SAME_RUNTIME = Tolerance(1e-4, 0.99999, "the same runtime and versions")
OTHER_RUNTIME = Tolerance(1e-3, 0.99999, "another runtime or version")
LOW_PRECISION = Tolerance(0.3, 0.98, "arithmetic of low precision, which rounds differently from batch to batch")


@dataclass(frozen=True)
class SampleCheck:
    """Rows that were computed again from their images.

    Attributes
    ----------
    compared : int
        How many samples.
    worst_deviation : float
        The largest difference of a feature, in standard deviations of the features.
    worst_key : str
        The sample that has it.
    lowest_cosine : float
        Of the rows of a sample, centred; see `Tolerance`.
    tolerance : Tolerance
        By which they were judged.
    deviating : list of str
        Keys of the samples beyond it, or that cannot be read any more.
    changed : list of str
        Keys whose image is another than the one that the row was made from; not compared.
    missing : list of str
        Keys that the source does not have; not compared.
    """

    compared: int
    worst_deviation: float
    worst_key: str
    lowest_cosine: float
    tolerance: Tolerance
    deviating: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class SampleSize:
    """How many samples are computed again: a number, or a part of all; exactly one of the two."""

    number: int | None = None
    fraction: float | None = None

    def of(self, n_samples: int) -> int:
        """Return how many of `n_samples` that is, at least one."""
        wanted = self.number if self.number is not None else round((self.fraction or 0.0) * n_samples)
        return min(n_samples, max(1, wanted))


def compare_sample(
    path: str | os.PathLike[str],
    source: Any,
    size: SampleSize,
    *,
    source_options: SourceOptions | None = None,
    engine: EngineOptions | None = None,
    allow_code: str | None = None,
    random_state: int = 0,
    progress: Progress | None = None,
) -> SampleCheck:
    """Compute some samples' rows again from the images and compare them with those in the file.

    Parameters
    ----------
    path : path
        A feature file.
    source : path, Manifest, or sequence
        Where the images are; their keys must be those of the file.
    size : SampleSize
        How many of the file's good samples, drawn at random.
    source_options, engine
        As for `featx.extract`.
    allow_code : str, optional
        The ``package.module:function`` that may be imported, where the network is the user's own code.
    random_state : int
        Seeds the draw.
    progress : callable, optional
        See `Progress`.

    Raises
    ------
    UsageError
        If the features were made elsewhere, or none of the samples drawn can be compared.
    """
    from featx.vision.backbones import restore_backbone
    from featx.vision.engine import EngineOptions, Job, iter_batches
    from featx.vision.multi_device import make_embedder

    engine = engine or EngineOptions()
    with FeatureFile.open(path) as file:
        ledger = file.ledger()
        good = np.flatnonzero(ledger.row >= 0)
        if not len(good):
            raise UsageError(f"{os.fspath(path)}: no sample has a row, so there is none to compute again")
        drawn = np.sort(np.random.default_rng(random_state).choice(good, size.of(len(good)), replace=False))
        backbone = restore_backbone(file.spec, file.weights(), allow_code=allow_code)
        manifest = sources.as_manifest(source, source_options or SourceOptions())
        place_of_key = {key: position for position, key in enumerate(manifest.keys)}
        there = [position for position in drawn.tolist() if ledger.key[position] in place_of_key]
        missing = [ledger.key[position] for position in drawn.tolist() if ledger.key[position] not in place_of_key]
        embedder = make_embedder(backbone, device=engine.device, runtime=engine.runtime)
        comparison = _Comparison(file, ledger, tolerance_of(file, runtime=embedder.runtime))
        positions = [place_of_key[ledger.key[position]] for position in there]
        done = 0
        for _, batch in iter_batches(manifest, [Job(embedder, positions)], engine):
            comparison.add(there[done : done + len(batch.entries)], batch)
            done += len(batch.entries)
            if progress is not None:
                progress(done, len(positions))
        return comparison.result(missing)


def tolerance_of(file: FeatureFile, *, runtime: str) -> Tolerance:
    """Return by what rows that a runtime computes here and now may differ from those in a file."""
    if file.spec.dtype != "float32":
        return LOW_PRECISION
    same = all(file.made_with.get(name) == importlib.metadata.version(name) for name in ("torch", "torchvision"))
    return SAME_RUNTIME if same and file.made_with.get("runtime") == runtime else OTHER_RUNTIME


class _Comparison:
    """Stored rows against computed ones, batch after batch."""

    def __init__(self, file: FeatureFile, ledger: Ledger, tolerance: Tolerance) -> None:
        self._file, self._ledger, self._tolerance = file, ledger, tolerance
        some = np.linspace(0, file.n_rows - 1, min(file.n_rows, _MOST_CENTRED)).astype(np.int64)
        rows = np.asarray(file.features(np.unique(some)), np.float64)
        self._std = float(rows.std()) or 1.0
        self._centre = rows.mean(axis=0) if len(rows) > 1 else np.zeros(rows.shape[1])
        self._check = SampleCheck(0, 0.0, "", 1.0, tolerance)

    def add(self, positions: list[int], batch: Any) -> None:
        n_views = self._file.spec.n_views
        row = 0
        for position, entry in zip(positions, batch.entries, strict=True):
            rows = batch.features[row : row + n_views] if entry.status == OK else None
            row += n_views if entry.status == OK else 0
            if entry.sha256 != self._ledger.sha256[position]:
                self._check.changed.append(entry.key)
            elif rows is None:
                self._check.deviating.append(entry.key)
            else:
                self._compare(entry.key, int(self._ledger.row[position]), rows)

    def _compare(self, key: str, row: int, rows: NDArray[np.floating]) -> None:
        stored = self._file.features(slice(row, row + len(rows)))
        was, now = np.asarray(stored, np.float64), np.asarray(rows, np.float64)
        difference = np.abs(now - was)
        if stored.dtype == np.float16:  # two readings of one number may be rounded to neighbours
            difference = np.maximum(0.0, difference - np.spacing(np.abs(stored)).astype(np.float64))
        deviation = float(difference.max(initial=0.0)) / self._std
        cosine = min(map(self._cosine, was - self._centre, now - self._centre))
        check = self._check
        if not (deviation <= self._tolerance.deviation and cosine >= self._tolerance.cosine):
            check.deviating.append(key)
        if deviation >= check.worst_deviation:
            check = dataclasses.replace(check, worst_deviation=deviation, worst_key=key)
        self._check = dataclasses.replace(
            check, compared=check.compared + 1, lowest_cosine=min(cosine, check.lowest_cosine)
        )

    def _cosine(self, was: NDArray[np.float64], now: NDArray[np.float64]) -> float:
        length, other = float(np.linalg.norm(was)), float(np.linalg.norm(now))
        if length <= _NEAR_CENTRE * self._std * np.sqrt(len(was)):
            return 1.0  # the mean row itself, which has no direction: its deviation alone judges it
        return float(was @ now) / (length * other) if other else 0.0

    def result(self, missing: list[str]) -> SampleCheck:
        check = dataclasses.replace(self._check, missing=missing)
        if not check.compared and not check.deviating:
            raise UsageError(
                f"none of the samples drawn can be compared: {len(check.missing):,} are not in SOURCE and "
                f"{len(check.changed):,} have changed; give the SOURCE that the file was made from"
            )
        return check
