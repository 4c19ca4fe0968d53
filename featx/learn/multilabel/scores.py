"""The account of an evaluation on labels: scores with intervals, label by label, and what guessing would get."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from featx.learn.intervals import Interval, resampling_units
from featx.learn.multilabel.labels import LabelTable
from featx.learn.multilabel.metrics import (
    LABEL_SCORES,
    BoolArray,
    FloatArray,
    IntArray,
    LabelPredictions,
    average_precision,
    chance_precision,
    f1,
    label_influence,
    label_mistakes,
    label_value,
    roc_area,
)
from featx.learn.paired import Comparison, compare_rows
from featx.learn.score_intervals import cross_validated_intervals, fixed_intervals
from featx.learn.scores import FoldPredictions, are_single, describe_expected

MOST_UNKNOWN = 10
"""Labels that a head does not know which are named."""


@dataclass(frozen=True)
class LabelScores:
    """How one label fares; None where a score is not defined.

    Attributes
    ----------
    name : str
    support : int
        Samples that have it.
    frequency : float
        Their share.
    average_precision, roc_auc : float or None
        Mean over the folds, or of the fixed part.
    chance : float or None
        The average precision of a random order, which has the mean over the folds, too.
    precision, recall, f1 : float or None
        Of the calls of all folds together.
    """

    name: str
    support: int
    frequency: float
    average_precision: float | None
    roc_auc: float | None
    chance: float | None
    precision: float | None
    recall: float | None
    f1: float | None


@dataclass(frozen=True)
class LabelEvaluation:
    """The account of one evaluation on labels.

    Attributes
    ----------
    scores : dict of str to Interval
        In the order of `featx.learn.multilabel.metrics.LABEL_SCORES`.
    per_label : list of LabelScores
    baseline : dict of str to float or None, or None
        What the best constant answer would score, see `guess_labels`; None when the training part is not known.
    n_samples, n_repeats : int
        Samples scored, and how often each.
    estimand : str
        What the scores estimate, and the intervals are of, in words.
    unknown : list of str
        Labels of the scored samples that the head does not know.
    """

    scores: dict[str, Interval]
    per_label: list[LabelScores]
    baseline: dict[str, float | None] | None
    n_samples: int
    n_repeats: int = 1
    estimand: str = ""
    unknown: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """What the user must hear."""
        if not self.unknown:
            return []
        more = f" and {len(self.unknown) - MOST_UNKNOWN} more" if len(self.unknown) > MOST_UNKNOWN else ""
        listed = ", ".join(self.unknown[:MOST_UNKNOWN])
        return [f"Labels that the head does not know, left out of the scores: {listed}{more}."]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class LabelRows:
    """The predictions of some folds, one after the other; see `featx.learn.score_intervals.Tested`.

    Attributes
    ----------
    predictions : LabelPredictions
        A sample has one row for each repeat.
    folds : int array (n_rows,)
    units : int array (n_rows,)
        What is independent: 0 ... n_units - 1.
    n_units : int
    """

    predictions: LabelPredictions
    folds: IntArray
    units: IntArray
    n_units: int

    def parts(self) -> list[IntArray]:
        """List the rows of each fold."""
        return [np.flatnonzero(self.folds == fold) for fold in range(int(self.folds.max()) + 1)]

    def values(self) -> list[dict[str, float | None]]:
        """List the scores of each fold."""
        folds = [self.predictions.take(rows) for rows in self.parts()]
        return [{name: label_value(name, fold) for name in LABEL_SCORES} for fold in folds]

    def strata(self) -> IntArray:
        """Return the rarest label of each unit (n_units,): units with a rare one are few, however many others are."""
        counts = self.predictions.true.sum(axis=0)
        rank = np.empty(len(counts) + 1, dtype=np.int64)
        rank[np.argsort(counts, kind="stable")] = np.arange(len(counts))
        rank[-1] = len(counts)
        own = np.where(self.predictions.true, rank[:-1], len(counts)).min(axis=1)
        strata = np.full(self.n_units, len(counts), dtype=np.int64)
        np.minimum.at(strata, self.units, own)
        return strata

    def influence(self, name: str) -> FloatArray:
        """Return how far each row moves the mean of a score over the folds (n_rows,)."""
        influences, n_defined = np.zeros(len(self.folds)), 0
        for rows in self.parts():
            fold = self.predictions.take(rows)
            influences[rows] = label_influence(name, fold)
            n_defined += label_value(name, fold) is not None
        return influences / max(n_defined, 1)

    def mistakes(self, name: str) -> FloatArray:
        """Return what one more unit that goes wrong costs a score, by kind."""
        return label_mistakes(name, self.predictions.true, self.units)

    def limits(self, _name: str, _value: float) -> tuple[float, float]:
        """Return the range of every score."""
        return 0.0, 1.0

    def right(self, name: str) -> BoolArray | None:
        """Return which rows are exactly right, where that is what a score counts."""
        exact: BoolArray = (self.predictions.true == self.predictions.called).all(axis=1)
        return exact if name == "exact_match" else None


def label_rows(marks: BoolArray, parts: Sequence[FoldPredictions], groups: IntArray | None) -> LabelRows:
    """Lay the predictions of all folds behind one another; what is independent is a group, or else a sample."""
    rows = np.concatenate([part.fold.test for part in parts])
    units, n_units = resampling_units(rows if groups is None else groups[rows], len(rows))
    predictions = LabelPredictions(
        marks[rows],
        np.concatenate([part.predicted for part in parts]),
        np.concatenate([np.asarray(part.probabilities) for part in parts]),
    )
    folds = np.repeat(np.arange(len(parts)), [len(part.fold.test) for part in parts])
    return LabelRows(predictions, folds, units, n_units)


def evaluate_label_folds(
    table: LabelTable, parts: Sequence[FoldPredictions], *, groups: IntArray | None = None, unit: str = "samples"
) -> LabelEvaluation:
    """Account for a (repeated) cross-validation from its out-of-fold predictions.

    Parameters
    ----------
    table : LabelTable
        What the folds' positions point into.
    parts : sequence of FoldPredictions
        All folds of all repeats; ``predicted`` are calls, bool (n_test, n_labels).
    groups : int array (n_samples,), optional
        What is independent.
    unit : str
        What a sample is, for the words of the intervals.
    """
    tested = label_rows(table.marks, parts, groups)
    by_fold, n_repeats = tested.values(), len({part.fold.repeat for part in parts})
    guesses = [guess_labels(table.marks[part.fold.train], table.marks[part.fold.test]) for part in parts]
    scores = cross_validated_intervals(
        by_fold,
        tested,
        n_repeats=n_repeats,
        unit=unit if groups is None or are_single(groups) else "groups",
        factors=label_inflation(by_fold),
    )
    return LabelEvaluation(
        scores,
        _per_label(table.names, tested, n_repeats),
        {name: _mean([one[name] for one in guesses]) for name in LABEL_SCORES},
        len(tested.folds) // n_repeats,
        n_repeats,
        describe_expected(parts, unit),
    )


def evaluate_label_part(
    table: LabelTable,
    called: BoolArray,
    probabilities: FloatArray,
    *,
    groups: IntArray | None = None,
    train: BoolArray | None = None,
    unit: str = "samples",
    unknown: Sequence[str] = (),
) -> LabelEvaluation:
    """Account for one fixed part that the head has not seen.

    Parameters
    ----------
    table : LabelTable
        Of the part.
    called, probabilities : bool and float64 array (n_samples, n_labels)
    groups : int array (n_samples,), optional
    train : bool array (n_train, n_labels), optional
        Labels of the training part, for the baseline.
    unit : str
        What a sample is, for the words of the intervals.
    unknown : sequence of str
        Labels of the samples that the head does not know.
    """
    units, n_units = resampling_units(groups, len(table))
    predictions = LabelPredictions(table.marks, called, probabilities)
    tested = LabelRows(predictions, np.zeros(len(units), dtype=np.int64), units, n_units)
    (values,) = tested.values()
    return LabelEvaluation(
        fixed_intervals(values, tested, unit=unit if n_units == len(units) else "groups"),
        _per_label(table.names, tested, 1),
        None if train is None else guess_labels(train, table.marks),
        len(table),
        estimand=f"the score of this one classifier on new {unit} like these",
        unknown=list(unknown),
    )


def compare_label_rows(
    names: tuple[str, str],
    first: LabelRows,
    second: LabelRows,
    scoring: str,
    *,
    expected: Sequence[float | None] | None = None,
    n_repeats: int | None,
    random_state: int = 0,
) -> Comparison:
    """Compare two series of predictions for the same test parts; see `featx.learn.paired.compare_rows`.

    `expected` is what the second scores in each fold, where that is not the score of its predictions.
    """
    both = [first.values(), second.values()]
    one, two = ([fold[scoring] for fold in own] for own in both)
    return compare_rows(
        names,
        scoring,
        [one, two if expected is None else expected],
        [first, second],
        n_repeats=n_repeats,
        factor=label_inflation([*both[0], *both[1]])[scoring],
        random_state=random_state,
    )


def label_inflation(by_fold: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """By how much the variance of a cross-validation is above that of as many independent predictions.

    ``2 - s^2`` as in `featx.learn.score_intervals.inflation`, where s is the way from guessing to perfect of the macro
    ROC AUC.
    """
    defined = [area for one in by_fold if (area := one["roc_auc_macro"]) is not None]
    reached = float(np.clip(2 * np.mean(defined or [0.5]) - 1, 0, 1))
    return dict.fromkeys(LABEL_SCORES, 2 - reached**2)


def constant_answer(name: str, train: BoolArray) -> tuple[BoolArray, FloatArray]:
    """Return what guessing calls (n_labels,), the same for all samples, and its probabilities.

    The probabilities are the labels' frequencies. What is called are the most frequent k labels for some k, or the most
    frequent set of labels, whichever a score likes best on the training part.

    Parameters
    ----------
    name : str
        One of `featx.learn.multilabel.metrics.LABEL_SCORES`.
    train : bool array (n_train, n_labels)
    """
    frequencies = train.mean(axis=0)
    rank = np.argsort(np.argsort(-frequencies, kind="stable"))
    sets, counts = np.unique(train, axis=0, return_counts=True)
    answers = [*(rank < k for k in range(train.shape[1] + 1)), sets[np.argmax(counts)]]
    best = max(answers, key=lambda answer: _of_constant(name, train, answer, frequencies) or 0.0)
    return best, frequencies


def guess_labels(train: BoolArray, true: BoolArray) -> dict[str, float | None]:
    """Score the best constant answer, for each score, on other samples; see `constant_answer`.

    For the average precision it is a random order: with few samples the expected one is above the label's share, which
    is what ties would have.

    Parameters
    ----------
    train, true : bool array (n_train, n_labels), (n_samples, n_labels)
    """
    scores = {name: _of_constant(name, true, *constant_answer(name, train)) for name in LABEL_SCORES}
    return {**scores, "average_precision_macro": _mean([chance_precision(own) for own in true.T])}


def _of_constant(name: str, true: BoolArray, called: BoolArray, probabilities: FloatArray) -> float | None:
    of_all = np.tile(called, (len(true), 1)), np.tile(probabilities, (len(true), 1))
    return label_value(name, LabelPredictions(true, *of_all))


def _per_label(names: Sequence[str], tested: LabelRows, n_repeats: int) -> list[LabelScores]:
    folds = [tested.predictions.take(rows) for rows in tested.parts()]
    found = []
    for k, name in enumerate(names):
        true, called = tested.predictions.true[:, k], tested.predictions.called[:, k]
        right, there, n_called = int((true & called).sum()), int(true.sum()), int(called.sum())
        found.append(
            LabelScores(
                name,
                there // n_repeats,
                there / len(true),
                _mean([average_precision(fold.true[:, k], fold.scores[:, k]) for fold in folds]),
                _mean([roc_area(fold.true[:, k], fold.scores[:, k]) for fold in folds]),
                _mean([chance_precision(fold.true[:, k]) for fold in folds]),
                right / n_called if n_called else None,
                right / there if there else None,
                f1(true, called) if there + n_called else None,
            )
        )
    return found


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None and not np.isnan(value)]
    return float(np.mean(defined)) if defined else None
