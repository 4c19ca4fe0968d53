"""What a bundle says about each sample of a source, whatever its task: accounts, warnings, files."""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray

from featx.learn.groups import resolve_groups
from featx.store.records import FAILED, OK, LedgerEntry
from featx.store.target import check_target, save_text

FORMATS = (".csv", ".jsonl")
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Told:
    """What is known of the samples of a source when all of them have been seen.

    Attributes
    ----------
    entries : sequence of LedgerEntry
    labels : list of str
        ``""`` = unknown, or kept for the last test.
    groups : list of str
    group_source : str
    good, seen : bool array (n_samples,)
        Samples with features; of them, those with the bytes of a training image.
    n_locked : int
        Samples that are kept for the last test.
    """

    entries: Sequence[LedgerEntry]
    labels: list[str]
    groups: list[str]
    group_source: str
    good: BoolArray
    seen: BoolArray
    n_locked: int

    @property
    def known(self) -> BoolArray:
        """Good samples whose label is known, (n_samples,)."""
        return self.good & [label != "" for label in self.labels]

    @property
    def new(self) -> BoolArray:
        """Of them, those that are new to the head, (n_samples,)."""
        return self.known & ~self.seen

    def groups_of(self, rows: BoolArray) -> IntArray | None:
        """Return the groups of some samples, identical bytes joined; None where nothing is grouped."""
        places = np.flatnonzero(rows).tolist()
        sha256 = [self.entries[i].sha256 for i in places]
        return resolve_groups([self.groups[i] for i in places], sha256, self.group_source).ids

    def columns(self) -> dict[str, Any]:
        """Return what `Answers` have of it, by name."""
        return {
            "keys": [entry.key for entry in self.entries],
            "status": [entry.status for entry in self.entries],
            "reasons": [entry.reason if entry.status == FAILED else "" for entry in self.entries],
            "labels": self.labels,
            "seen": self.seen.tolist(),
            "n_locked": self.n_locked,
        }


class Answers(ABC):
    """The answers about all samples of a source, in its order; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels : list of str
    seen : list of bool
    n_locked : int
        See `featx.predict.Predictions`.
    """

    keys: list[str]
    status: list[str]
    reasons: list[str]
    labels: list[str]
    seen: list[bool]
    n_locked: int

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header, then one row for each sample."""

    @abstractmethod
    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample."""

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""

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
        return notes

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
