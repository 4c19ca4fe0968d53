"""What a head on labels says about each sample of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.answers import Answers, Told
from featx.learn.judgement import Doorkeeper, Strangers
from featx.learn.multilabel.labels import LabelSyntax, LabelTable, mark_known
from featx.learn.multilabel.scores import LabelEvaluation, evaluate_label_part
from featx.store.records import OK

if TYPE_CHECKING:
    from featx.learn.bundle import Bundle
    from featx.learn.judgement import Caution

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


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
    unlike : bool array (n_samples,), or None
        What is unlike the training set; None where that is not known.
    distance : float64 array (n_samples,), or None
        From the training set.
    strangers : Strangers or None
        The account of that.
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
    unlike: BoolArray | None = field(default=None, repr=False)
    distance: FloatArray | None = field(default=None, repr=False)
    strangers: Strangers | None = None
    evaluation: LabelEvaluation | None = field(default=None, repr=False)
    evaluation_new: LabelEvaluation | None = field(default=None, repr=False)

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        strangers = [] if self.strangers is None else self.strangers.notes
        return [*super().notes, *([] if self.evaluation is None else self.evaluation.notes), *strangers]

    def counts(self) -> dict[str, int]:
        """Count the samples for which each label is called, and last those for which none is."""
        good = np.array([status == OK for status in self.status], dtype=np.bool_)
        counts = dict(zip(self.classes, self.called[good].sum(axis=0).tolist(), strict=True))
        return {**counts, self.syntax.none: int((~self.called[good].any(axis=1)).sum())}

    def _texts(self) -> list[str]:
        texts = LabelTable(self.classes, self.called).texts(self.syntax)
        return [text if status == OK else "" for text, status in zip(texts, self.status, strict=True)]

    def iter_csv_rows(self) -> Iterator[list[str]]:
        """Yield the header ``key, status, predicted, p_<label>...``, then one row for each sample.

        Where there is an answer, ``unlike`` comes last.
        """
        more = [] if self.unlike is None else ["unlike"]
        yield ["key", "status", "predicted", *(f"p_{name}" for name in self.classes), *more]
        columns = zip(self.keys, self.status, self._texts(), self.probabilities, strict=True)
        for place, (key, status, text, row) in enumerate(columns):
            cells = ("" if np.isnan(p) else repr(float(p)) for p in row)
            flag = ("yes" if self.unlike[place] else "no") if self.unlike is not None and status == OK else ""
            yield [key, status, text, *cells, *(flag for _ in more)]

    def iter_records(self) -> Iterator[dict[str, Any]]:
        """Yield one JSON-ready dict for each sample: ``key, status, reason, label, predicted, probabilities, seen``.

        ``label`` is the text of the source, and ``predicted`` a list. Where there is an answer, ``unlike, distance``.
        """
        columns = zip(self.keys, self.status, self.reasons, self.labels, self.seen, strict=True)
        names = np.array(self.classes, dtype=object)
        rows = zip(columns, self.called, self.probabilities.tolist(), strict=True)
        for place, ((key, status, reason, label, seen), called, row) in enumerate(rows):
            good = status == OK
            yield {
                "key": key,
                "status": status,
                "reason": reason,
                "label": label or None,
                "predicted": names[called].tolist() if good else None,
                "probabilities": dict(zip(self.classes, row, strict=True)) if good else None,
                "seen": seen,
                **self._strangeness(place, good=good),
            }

    def _strangeness(self, place: int, *, good: bool) -> dict[str, Any]:
        if self.unlike is None or self.distance is None:
            return {}
        return {
            "unlike": bool(self.unlike[place]) if good else None,
            "distance": float(self.distance[place]) if good else None,
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
            "evaluation": None if self.evaluation is None else self.evaluation.to_dict(),
            "evaluation_new": None if self.evaluation_new is None else self.evaluation_new.to_dict(),
            "unlike": None if self.strangers is None else asdict(self.strangers),
            "warnings": self.notes,
            "predictions": list(self.iter_records()),
        }


class LabelWitness:
    """Says which labels samples have, batch by batch, as they come, then sums up.

    Parameters
    ----------
    bundle : Bundle
        Of ``--task multilabel``.
    caution : Caution
    n_samples : int

    Raises
    ------
    BundleError
        If the bundle lacks what was asked for.
    """

    def __init__(self, bundle: Bundle, caution: Caution, n_samples: int) -> None:
        self._bundle = bundle
        self._door = Doorkeeper(bundle, caution, n_samples)
        self._called = np.zeros((n_samples, len(bundle.classes)), dtype=np.bool_)
        self._probabilities = np.full((n_samples, len(bundle.classes)), np.nan)

    def see(self, places: NDArray[np.int64], X: NDArray[Any]) -> None:
        """Take the features (n * n_views, n_features) of the samples at some places."""
        n_views = self._bundle.needed_spec.n_views
        called, probabilities = self._bundle.pipeline.call(np.asarray(X, dtype=np.float64), n_views)
        self._door.see(places, X[::n_views])
        self._called[places], self._probabilities[places] = called, probabilities

    def conclude(self, told: Told) -> LabelAnswers:
        """Sum up."""
        unlike, strangers = self._door.conclude(told.good, told.good & ~told.seen)
        evaluation = self._evaluate(told, told.known)
        return LabelAnswers(
            classes=self._bundle.classes,
            syntax=syntax_of(self._bundle),
            called=self._called,
            probabilities=self._probabilities,
            unlike=unlike,
            distance=None if unlike is None else self._door.distance,
            strangers=strangers,
            evaluation=evaluation,
            evaluation_new=self._evaluate(told, told.new) if told.seen.any() else evaluation,
            **told.columns(),
        )

    def _evaluate(self, told: Told, rows: BoolArray) -> LabelEvaluation | None:
        if not rows.any():
            return None
        texts = np.array(told.labels, dtype=object)[rows].tolist()
        return evaluate_texts(
            self._bundle, texts, self._called[rows], self._probabilities[rows], groups=told.groups_of(rows)
        )


def evaluate_texts(
    bundle: Bundle,
    texts: Sequence[str],
    called: BoolArray,
    probabilities: FloatArray,
    *,
    groups: IntArray | None = None,
    train: Sequence[str] | None = None,
) -> LabelEvaluation:
    """Account for what a bundle says of samples whose labels are written as those of its training table.

    Parameters
    ----------
    bundle : Bundle
    texts : sequence of str (n_samples,)
    called, probabilities : bool and float64 array (n_samples, n_labels)
    groups : int array (n_samples,), optional
    train : sequence of str, optional
        Labels of other samples, for the baseline.
    """
    syntax = syntax_of(bundle)
    marks, unknown = mark_known(texts, bundle.classes, syntax)
    return evaluate_label_part(
        LabelTable(bundle.classes, marks),
        called,
        probabilities,
        groups=groups,
        train=None if train is None else mark_known(train, bundle.classes, syntax)[0],
        unknown=unknown,
    )


def syntax_of(bundle: Bundle) -> LabelSyntax:
    """Return how the labels of a bundle's training table were written."""
    options = bundle.facts.get("options")
    found = options if isinstance(options, dict) else {}
    return LabelSyntax(str(found.get("label_separator", ";")), str(found.get("none_label", "none")))
