"""What a bundle says about each sample of a source, whatever its task: accounts, warnings, files."""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from featx.learn.groups import resolve_groups
from featx.store.records import FAILED, OK, LedgerEntry
from featx.store.target import check_target, save_text

FORMATS = (".csv", ".jsonl")
BoolArray = NDArray[np.bool_]
IntArray = NDArray[np.int64]


class Evaluated(Protocol):
    """Scores of some samples, whatever the task."""

    def to_dict(self) -> dict[str, Any]: ...  # noqa: D102


E = TypeVar("E", bound=Evaluated)


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

    def of_answers(self, evaluate: Callable[[BoolArray], E], *, scorable: BoolArray | None = None) -> dict[str, Any]:
        """Return what `Answers` have of it, by name; what `evaluate` says of some samples is their scores.

        `scorable` (n_samples,) are those whose label can be scored; None: all whose label is known.
        """

        def score(rows: BoolArray) -> E | None:
            return self._owning_up(evaluate(rows), rows) if rows.any() else None

        known = self.known if scorable is None else self.known & scorable
        evaluation = score(known)
        return {
            "keys": [entry.key for entry in self.entries],
            "status": [entry.status for entry in self.entries],
            "reasons": [entry.reason if entry.status == FAILED else "" for entry in self.entries],
            "labels": self.labels,
            "seen": self.seen.tolist(),
            "n_locked": self.n_locked,
            "evaluation": evaluation,
            "evaluation_new": score(known & ~self.seen) if self.seen.any() else evaluation,
        }

    def _owning_up(self, evaluation: Any, rows: BoolArray) -> Any:
        """Return an evaluation of some samples, whose estimand says where the head was fitted on them."""
        n_seen, n = int(np.count_nonzero(rows & self.seen)), int(np.count_nonzero(rows))
        if not n_seen:
            return evaluation
        return replace(
            evaluation,
            estimand=f"nothing that holds for new samples: the head was fitted on {n_seen:,} of these {n:,}",
        )


def write_number(number: float) -> str:
    """Return a number with all its digits; nothing where there is none, or where it is infinite."""
    return repr(float(number)) if np.isfinite(number) else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers(ABC, Generic[E]):
    """The answers about all samples of a source, in its order; failed ones included.

    Attributes
    ----------
    keys : list of str
        Name of each sample.
    status, reasons : list of str
        ``"ok"`` or ``"failed"``, and why (see `featx.store.records.REASONS`).
    labels : list of str
        What the source says each sample is; ``""`` = unknown.
    seen : list of bool
        Whether the head was fitted on the same bytes.
    n_locked : int
        Samples that are kept for the last test: their labels are left empty here, and nothing is scored on them.
    evaluation : evaluation of the task, or None
        Scores over the good samples with a label; None without any.
    evaluation_new : evaluation of the task, or None
        The same over those that the head was not fitted on: the scores that say something about new images.
    """

    keys: list[str]
    status: list[str]
    reasons: list[str]
    labels: list[str]
    seen: list[bool] = field(repr=False)
    n_locked: int = 0
    evaluation: E | None = field(default=None, repr=False)
    evaluation_new: E | None = field(default=None, repr=False)

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header, then one row for each sample."""

    @abstractmethod
    def answer(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return what is said of one sample for JSON: `predicted` first."""

    def caution(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return what is said of how far that can be trusted; nothing where nobody asked."""
        del place, good
        return {}

    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample: ``key, status, reason, label``, what is said of it, ``seen``.

        What caution adds comes last, only where there is an answer.
        """
        columns = zip(self.keys, self.status, self.reasons, self.labels, self.seen, strict=True)
        for place, (key, status, reason, label, seen) in enumerate(columns):
            yield {
                "key": key,
                "status": status,
                "reason": reason,
                "label": label or None,
                **self.answer(place, good=status == OK),
                "seen": seen,
                **self.caution(place, good=status == OK),
            }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        return {
            "n_samples": len(self),
            "n_failed": len(self.failures),
            "failures_by_reason": self.failures_by_reason,
            "n_seen": sum(self.seen),
            "n_locked": self.n_locked,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "evaluation_new": None if self.evaluation_new is None else self.evaluation_new.to_dict(),
            "warnings": self.notes,
            "predictions": list(self.iter_records()),
        }

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
