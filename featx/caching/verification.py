"""Reading every byte of a feature file, or of an unfinished run, and saying what is wrong and where."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from featx.caching.comparison import SampleCheck
from featx.caching.listing import PARTS, is_row_cache
from featx.errors import StoreError, StoreFormatError
from featx.store.file import FeatureFile
from featx.store.inspection import inspect_shards
from featx.store.ledger import Ledger
from featx.store.records import FAILED, OK

ReadRows = Callable[[slice], Any]
"""Reads rows of features or logits."""

BLOCK_BYTES = 8 * 1024 * 1024
_CLASSES = 1000  # of a network, as a guess at the length of a row of logits
_NAMED = 5  # keys of damaged rows in a message

_AGAIN = "extract again with --replace"
_IMPORT_AGAIN = "import it again with --replace"
_RESUME = "the same featx extract again computes these samples anew"
_COLUMNS_OF_ROWS = {"keys": "key", "labels": "label", "groups": "group", "splits": "split", "folds": "fold"}


@dataclass(frozen=True)
class VerifyReport:
    """What was found in a feature file, an unfinished run or a folder of kept rows.

    Attributes
    ----------
    path : str
        As it was given.
    samples, rows : int
        Entries of the ledger and rows of features that were read.
    problems : list of str
        What is wrong, where, and what to do; empty: all is as it was written.
    notes : list of str
        What is worth a word and is not wrong.
    sample : SampleCheck or None
        Rows that were computed again, where that was asked for.
    """

    path: str
    samples: int = 0
    rows: int = 0
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    sample: SampleCheck | None = None

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def with_sample(self, check: SampleCheck) -> VerifyReport:
        """Return the report with what `featx.caching.comparison.compare_sample` found."""
        problems, notes = list(self.problems), list(self.notes)
        if check.deviating:
            problems.append(
                f"features: {len(check.deviating):,} of {check.compared:,} samples computed again differ "
                f"({_some(check.deviating)}) by more than {check.tolerance.deviation:g} standard deviations or a "
                f"cosine of {check.tolerance.cosine:g}; {_AGAIN}"
            )
        if check.changed:
            notes.append(
                f"{len(check.changed):,} of the samples drawn have changed since ({_some(check.changed)}) and were not "
                "compared; the same featx extract brings the file up to date"
            )
        if check.missing:
            notes.append(f"{len(check.missing):,} of the samples drawn are not in SOURCE ({_some(check.missing)})")
        return dataclasses.replace(self, problems=problems, notes=notes, sample=check)

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON-ready builtins."""
        return {**dataclasses.asdict(self), "good": self.is_good}


def verify_features(path: str | os.PathLike[str]) -> VerifyReport:
    """Check a feature file and the unfinished run beside it, or a folder of `ImageFeatures(cache=...)`.

    Parameters
    ----------
    path : path
        ``NAME.h5``, whether it is finished or not yet; ``NAME.h5.parts``; or a folder named by a fingerprint.

    Returns
    -------
    VerifyReport
        With every problem; damage does not raise.

    Raises
    ------
    StoreError
        If there is nothing of this name.
    """
    target = Path(path)
    if target.name.endswith(PARTS):
        target = target.with_name(target.name.removesuffix(PARTS))
    report = VerifyReport(os.fspath(path))
    if is_row_cache(target):
        return _with_shards(report, target, "these rows are computed again when they are needed")
    run = target.with_name(target.name + PARTS)
    has_run = (run / "journal").is_file()
    if target.exists() or not has_run:
        report = _verify_file(report, target)
    return _with_shards(report, run, _RESUME) if has_run else report


def _verify_file(report: VerifyReport, path: Path) -> VerifyReport:
    try:
        file = FeatureFile.open(path)
    except StoreFormatError as error:
        report.problems.append(str(error).removeprefix(f"{path}: "))
        return report
    with file:
        again = _IMPORT_AGAIN if file.spec.is_foreign else _AGAIN
        report.problems.extend(f"{problem}; {again}" for problem in _problems(file))
        return dataclasses.replace(report, samples=file.n_samples, rows=file.n_rows)


def _with_shards(report: VerifyReport, folder: Path, advice: str) -> VerifyReport:
    try:
        state = inspect_shards(folder)
    except OSError as error:
        report.problems.append(f"{folder.name}/journal cannot be read ({error.strerror})")
        return report
    report.problems.extend(f"{folder.name}: {problem}; {advice}" for problem in state.problems)
    report.notes.extend(f"{folder.name}: {note}" for note in state.notes)
    return dataclasses.replace(
        report,
        samples=report.samples + sum(shard.samples for shard in state.shards),
        rows=report.rows + sum(shard.rows for shard in state.shards),
    )


def _problems(file: FeatureFile) -> Iterator[str]:
    columns: dict[str, Any] = {}
    readers: dict[str, Callable[[], Any]] = {
        "keys": file.keys,
        "labels": file.labels,
        "groups": file.groups,
        "splits": file.splits,
        "folds": file.folds,
        "views": file.views,
        "classes": file.classes,
        "ledger": file.ledger,
        "meta": file.meta,
        "weights": file.weights,
    }
    for name, read in readers.items():
        try:
            columns[name] = read()
        except StoreFormatError as error:
            yield f"{name}: {_cause(error)}"
    if "ledger" in columns:
        yield from _inconsistencies(file, columns["ledger"], columns)
    for name, read in (("features", file.features), ("logits", file.logits)):
        if file.sha256_of(name) is not None:
            yield from _row_problems(file, name, read, columns.get("keys"))


def _inconsistencies(file: FeatureFile, ledger: Ledger, columns: dict[str, Any]) -> Iterator[str]:
    """Yield where the ledger, the rows and the spec do not say the same."""
    n_views = file.spec.n_views
    good = np.flatnonzero(ledger.row >= 0)
    is_ok = np.array([status == OK for status in ledger.status], np.bool_)
    if not np.array_equal(is_ok, ledger.row >= 0) or set(ledger.status) - {OK, FAILED}:
        bad = [ledger.key[i] for i in np.flatnonzero(is_ok != (ledger.row >= 0)).tolist()]
        yield f"ledger/status: {_some(bad)} have a row and failed, or neither"
    if not np.array_equal(ledger.row[good], np.arange(len(good)) * n_views):
        yield "ledger/row: the rows are not in the order of the ledger"
        return
    if len(set(ledger.key)) != len(ledger):
        yield "ledger/key: a key is there twice"
    if not all(ledger.reason[i] for i in np.flatnonzero(~is_ok).tolist()):
        yield "ledger/reason: a failed sample has no reason"
    sample_of_row = np.repeat(good, n_views).tolist()
    for name, of_sample in _COLUMNS_OF_ROWS.items():
        if name in columns and columns[name] != [getattr(ledger, of_sample)[i] for i in sample_of_row]:
            yield f"{name}: not what the ledger says of these samples"
    if "views" in columns and not np.array_equal(columns["views"], np.tile(np.arange(n_views), len(good))):
        yield f"views: not 0 to {n_views - 1} for each sample"
    if "classes" in columns and columns["classes"] != sorted(set(ledger.label) - {""}):
        yield "classes: not the labels of the ledger"
    for name, values in columns.get("meta", {}).items():
        if len(values) != len(ledger):
            yield f"meta/{name}: {len(values):,} values for {len(ledger):,} samples"


def _row_problems(file: FeatureFile, name: str, read: ReadRows, keys: list[str] | None) -> Iterator[str]:
    """Read all rows of a dataset in blocks; name those that cannot be read."""
    digest, bad = hashlib.sha256(), list[int]()
    step = max(1, BLOCK_BYTES // (4 * max(file.spec.n_features, _CLASSES)))
    for start in range(0, file.n_rows, step):
        rows = slice(start, min(start + step, file.n_rows))
        try:
            digest.update(np.ascontiguousarray(read(rows)).data)
        except StoreFormatError:
            bad += _unreadable(read, rows.start, rows.stop)
    if bad:
        runs = [[row for _, row in run] for _, run in groupby(enumerate(bad), lambda pair: pair[1] - pair[0])]
        spans = ", ".join(f"{run[0]:,} to {run[-1]:,}" if len(run) > 1 else f"{run[0]:,}" for run in runs)
        names = f" ({_some([keys[row] for row in bad])})" if keys is not None else ""
        yield f"{name}: rows {spans}{names} cannot be read"
    elif digest.hexdigest() != file.sha256_of(name):
        yield f"{name}: they do not match their sha256"


def _unreadable(read: ReadRows, start: int, stop: int) -> list[int]:
    try:
        read(slice(start, stop))
    except StoreFormatError:
        if stop - start == 1:
            return [start]
        middle = (start + stop) // 2
        return _unreadable(read, start, middle) + _unreadable(read, middle, stop)
    return []


def _some(keys: list[str]) -> str:
    names = list(dict.fromkeys(keys))
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else "")


def _cause(error: StoreError) -> str:
    return str(error.__cause__ if error.__cause__ is not None else error).removeprefix(f"{error.path}: ")
