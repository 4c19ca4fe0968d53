"""What a head on labels says about each sample of a source."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.answers import Answers, Told, write_number
from featx.learn.multilabel.labels import LabelSyntax, LabelTable, mark_known
from featx.learn.multilabel.scores import LabelEvaluation, evaluate_label_part
from featx.learn.strangers import Doorkeeper, Strangers
from featx.store.records import OK

if TYPE_CHECKING:
    from featx.learn.bundle import Bundle
    from featx.learn.judgement import Caution

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelAnswers(Answers[LabelEvaluation]):
    """What a bundle says about each sample, in the order of the source; failed ones included.

    Attributes
    ----------
    keys, status, reasons, labels, seen, n_locked, evaluation, evaluation_new
        As in `featx.learn.answers.Answers`; ``labels`` are texts as the source has them.
    classes : list of str
        The labels that the head knows, in the order of the columns.
    syntax : LabelSyntax
        As the head's training table was written.
    called : bool array (n_samples, n_labels)
        Of failed samples none is.
    probabilities : float64 array (n_samples, n_labels)
        NaN where the sample failed.
    strangers : Strangers or None
        What is unlike the training set; None where that is not known.
    """

    classes: list[str]
    syntax: LabelSyntax
    called: BoolArray = field(repr=False)
    probabilities: FloatArray = field(repr=False)
    strangers: Strangers | None = None

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
        more = [] if self.strangers is None else ["unlike"]
        yield ["key", "status", "predicted", *(f"p_{name}" for name in self.classes), *more]
        columns = zip(self.keys, self.status, self._texts(), self.probabilities, strict=True)
        for place, (key, status, text, row) in enumerate(columns):
            unlike = [] if self.strangers is None else [self.strangers.text(place, good=status == OK)]
            yield [key, status, text, *map(write_number, row), *unlike]

    def answer(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{predicted, probabilities}``, the first a list."""
        if not good:
            return {"predicted": None, "probabilities": None}
        return {
            "predicted": [name for name, is_called in zip(self.classes, self.called[place], strict=True) if is_called],
            "probabilities": dict(zip(self.classes, self.probabilities[place].tolist(), strict=True)),
        }

    def caution(self, place: int, *, good: bool) -> dict[str, Any]:
        """Return ``{unlike, distance}``, where there is an answer."""
        return {} if self.strangers is None else self.strangers.record(place, good=good)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON-ready builtins."""
        unlike = None if self.strangers is None else self.strangers.to_dict()
        return {"classes": self.classes, "unlike": unlike, **super().to_dict()}


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
        return LabelAnswers(
            classes=self._bundle.classes,
            syntax=syntax_of(self._bundle),
            called=self._called,
            probabilities=self._probabilities,
            strangers=self._door.conclude(told.good, told.good & ~told.seen),
            **told.of_answers(lambda rows: self._evaluate(told, rows)),
        )

    def _evaluate(self, told: Told, rows: BoolArray) -> LabelEvaluation:
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
