"""What a head on labels says about each sample of a source."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.answers import Answers, Told
from featx.learn.multilabel.labels import LabelSyntax, LabelTable, mark_known
from featx.learn.multilabel.scores import LabelEvaluation, evaluate_label_part
from featx.store.records import OK

if TYPE_CHECKING:
    from featx.learn.bundle import Bundle
    from featx.learn.judgement import Caution

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LabelAnswers(Answers):
    """What a bundle says about each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels : list of str
        ``labels`` are as the source has them; ``""`` = unknown.
    seen : list of bool
        Whether the head was fitted on the same bytes.
    n_locked : int
        Samples that are kept for the last test: their labels are left empty here, and nothing is scored on them.
    classes : list of str
        The labels that the head knows, in the order of the columns.
    syntax : LabelSyntax
        As the head's training table was written.
    called : bool array (n_samples, n_labels)
        Of failed samples none is.
    probabilities : float64 array (n_samples, n_labels)
        NaN where the sample failed.
    unknown : list of str
        Labels of the source that the head does not know.
    evaluation, evaluation_new : LabelEvaluation or None
        Scores over the good samples with a label, and over those that the head was not fitted on; None without any.
    """

    keys: list[str]
    status: list[str]
    reasons: list[str]
    labels: list[str]
    seen: list[bool] = field(repr=False)
    n_locked: int
    classes: list[str]
    syntax: LabelSyntax
    called: BoolArray = field(repr=False)
    probabilities: FloatArray = field(repr=False)
    unknown: list[str]
    evaluation: LabelEvaluation | None = field(default=None, repr=False)
    evaluation_new: LabelEvaluation | None = field(default=None, repr=False)

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        notes = super().notes
        if self.unknown:
            notes.append(
                f"Labels that the head does not know, left out of the scores: {', '.join(self.unknown[:10])}"
                f"{' ...' if len(self.unknown) > 10 else ''}. (It divides labels at {self.syntax.separator!r}.)"
            )
        return notes

    def counts(self) -> dict[str, int]:
        """Count the samples for which each label is called, and last those for which none is."""
        good = np.array([status == OK for status in self.status], dtype=np.bool_)
        counts = dict(zip(self.classes, self.called[good].sum(axis=0).tolist(), strict=True))
        return {**counts, self.syntax.none: int((~self.called[good].any(axis=1)).sum())}

    def to_quote(self) -> tuple[LabelEvaluation | None, str]:
        """Return the scores that say most about new images, and on which images they are."""
        if self.evaluation_new is None or not any(self.seen):
            return self.evaluation, "whose labels are known"
        return self.evaluation_new, "that are new to the classifier and whose labels are known"

    def _texts(self) -> list[str]:
        texts = LabelTable(self.classes, self.called).texts(self.syntax)
        return [text if status == OK else "" for text, status in zip(texts, self.status, strict=True)]

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header ``key, status, predicted, p_<label>...``, then one row for each sample."""
        yield ["key", "status", "predicted", *(f"p_{name}" for name in self.classes)]
        for key, status, text, row in zip(self.keys, self.status, self._texts(), self.probabilities, strict=True):
            yield [key, status, text, *("" if np.isnan(p) else repr(float(p)) for p in row)]

    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample: ``key, status, reason, label, predicted, probabilities, seen``.

        ``label`` is the text of the source, and ``predicted`` a list.
        """
        columns = zip(self.keys, self.status, self.reasons, self.labels, self.seen, strict=True)
        names = np.array(self.classes, dtype=object)
        for (key, status, reason, label, seen), called, row in zip(
            columns, self.called, self.probabilities.tolist(), strict=True
        ):
            good = status == OK
            yield {
                "key": key,
                "status": status,
                "reason": reason,
                "label": label or None,
                "predicted": names[called].tolist() if good else None,
                "probabilities": dict(zip(self.classes, row, strict=True)) if good else None,
                "seen": seen,
            }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        return {
            "classes": self.classes,
            "n_samples": len(self),
            "n_failed": len(self.failures),
            "failures_by_reason": self.failures_by_reason,
            "n_seen": sum(self.seen),
            "n_locked": self.n_locked,
            "unknown_labels": self.unknown,
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "evaluation_new": None if self.evaluation_new is None else self.evaluation_new.to_dict(),
            "warnings": self.notes,
            "predictions": list(self.iter_records()),
        }


class LabelWitness:
    """Says which labels samples have, as they come."""

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:  # noqa: ARG002  as of other tasks
        self._bundle = bundle
        self._called = np.zeros((n_samples, len(bundle.classes)), dtype=np.bool_)
        self._probabilities = np.full((n_samples, len(bundle.classes)), np.nan)

    def see(self, places: NDArray[np.int64], X: NDArray[Any]) -> None:
        """Take the features (n * n_views, n_features) of the samples at some places."""
        rows = np.asarray(X, dtype=np.float64)
        called, probabilities = self._bundle.pipeline.call(rows, self._bundle.needed_spec.n_views)
        self._called[places], self._probabilities[places] = called, probabilities

    def conclude(self, told: Told) -> LabelAnswers:
        """Sum up."""
        syntax = syntax_of(self._bundle)
        marks, unknown = mark_known(told.labels, self._bundle.classes, syntax)
        answers = LabelAnswers(
            classes=self._bundle.classes,
            syntax=syntax,
            called=self._called,
            probabilities=self._probabilities,
            unknown=unknown,
            **told.columns(),
        )
        evaluation = self._evaluate(told, told.known, marks)
        new = self._evaluate(told, told.new, marks) if told.seen.any() else evaluation
        return replace(answers, evaluation=evaluation, evaluation_new=new)

    def _evaluate(self, told: Told, rows: BoolArray, marks: BoolArray) -> LabelEvaluation | None:
        if not rows.any():
            return None
        return evaluate_label_part(
            LabelTable(self._bundle.classes, marks[rows]),
            self._called[rows],
            self._probabilities[rows],
            groups=told.groups_of(rows),
        )


def syntax_of(bundle: Bundle) -> LabelSyntax:
    """Return how the labels of a bundle's training table were written."""
    options = bundle.facts.get("options")
    found = options if isinstance(options, dict) else {}
    return LabelSyntax(str(found.get("label_separator", ";")), str(found.get("none_label", "none")))
