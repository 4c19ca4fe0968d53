"""The account of an evaluation: scores with intervals, per class, confusion matrix, and what guessing would get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UnknownNameError, UsageError
from featx.learn.influence import FoldRows
from featx.learn.intervals import Interval, proportion_interval, resampling_units
from featx.learn.metrics import (
    FloatArray,
    IntArray,
    Predictions,
    encode_predictions,
    metric_names,
    score_predictions,
)
from featx.learn.score_intervals import cross_validated_intervals, fixed_intervals, inflation
from featx.learn.splits import Fold
from featx.learn.threshold import Threshold

MOST_NAMED = 10
"""Classes that a message names."""


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What the head fitted on one fold's training part says about its test part.

    Attributes
    ----------
    fold : Fold
    predicted : str array (n_test,)
        In the order of ``fold.test``.
    probabilities : float array (n_test, n_classes), or None
    threshold : Threshold or None
        By which it decided; None: by itself.
    """

    fold: Fold
    predicted: NDArray[Any]
    probabilities: FloatArray | None
    threshold: Threshold | None = None


@dataclass(frozen=True)
class ClassScores:
    """How one class fares.

    Attributes
    ----------
    name : str
    precision, recall, f1 : float or None
        None where there is nothing to divide by: never predicted, never there, neither.
    support : int
        Samples of the class.
    """

    name: str
    precision: float | None
    recall: float | None
    f1: float | None
    support: int


@dataclass(frozen=True)
class BinaryScores:
    """The four proportions of a test for one of two classes; None where there is nothing to divide by.

    Attributes
    ----------
    positive : str
        The class that counts as positive.
    sensitivity, specificity, ppv, npv : Interval
        Right among the truly positive, among the truly negative, among those called positive, and called negative.
    """

    positive: str
    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval


@dataclass(frozen=True)
class Baseline:
    """What always naming the largest class of the training part would score, on the same samples.

    Attributes
    ----------
    majority : str
        That class (the first by name among equals); several, with commas, where folds differ.
    scores : dict of str to float or None
        The five scores, with the class shares of the training part as probabilities; for folds their mean. As
        scikit-learn's ``DummyClassifier(strategy="prior")``.
    """

    majority: str
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Evaluation:
    """The account of one evaluation.

    Attributes
    ----------
    scores : dict of str to Interval
        In the order of `featx.learn.metrics.METRICS`.
    classes : list of str
        Rows and columns of `confusion`: the head's classes, then `unseen`.
    per_class : list of ClassScores
    confusion : list of list of int
        ``confusion[i][j]``: predictions of class j for samples of class i, pooled over all folds and repeats.
    baseline : Baseline or None
        None when the training part is not known.
    binary : BinaryScores or None
        For exactly two classes.
    unseen : list of str
        Classes of scored samples that the training part lacks: counted as wrong, with probability 0.
    n_samples : int
        Samples scored; with r repeats `confusion` counts each r times.
    n_repeats : int
    estimand : str
        What the scores estimate, and the intervals are of, in words.
    """

    scores: dict[str, Interval]
    classes: list[str]
    per_class: list[ClassScores]
    confusion: list[list[int]]
    baseline: Baseline | None
    binary: BinaryScores | None
    unseen: list[str]
    n_samples: int
    n_repeats: int = 1
    estimand: str = ""

    @property
    def notes(self) -> list[str]:
        """What the user must hear of the samples that were scored."""
        notes = []
        if self.unseen:
            notes.append(f"Classes that the head has never seen, counted as wrong: {_listed(self.unseen)}.")
        absent = [one.name for one in self.per_class if not one.support]
        if absent:
            notes.append(
                f"No sample that was scored is of these classes, and no score says how they fare: {_listed(absent)}."
            )
        return notes

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self)


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(name if name == name.strip() else repr(name) for name in names[:MOST_NAMED]) + more


def check_positive(positive: str | None, classes: Sequence[str]) -> None:
    """Raise when `positive` cannot be the positive one of two classes.

    Raises
    ------
    UsageError
        There are not two classes.
    UnknownNameError
        No such class.
    """
    if positive is None:
        return
    if positive not in classes:
        raise UnknownNameError("class", positive, classes)
    if len(classes) != 2:
        raise UsageError(f"--positive {positive} needs exactly two classes; there are {len(classes)}")


def evaluate_folds(
    y: ArrayLike,
    parts: Sequence[FoldPredictions],
    classes: Sequence[str],
    *,
    groups: IntArray | None = None,
    unit: str = "samples",
    positive: str | None = None,
) -> Evaluation:
    """Account for a (repeated) cross-validation from its out-of-fold predictions.

    The five scores are computed fold by fold. Confusion matrix, per-class and binary scores are those of the
    predictions of all folds and repeats together. Intervals are for the expected score of the procedure at the size of
    the training parts, see `featx.learn.score_intervals`; they count each sample once.

    Parameters
    ----------
    y : str array (n_samples,)
        What the folds' positions point into.
    parts : sequence of FoldPredictions
        All folds of all repeats.
    classes : sequence of str
        The classes of every training part, in the order of the probabilities.
    groups : int array (n_samples,), optional
        For the intervals: what is independent.
    unit : str
        What a sample is, for the words of the intervals.
    positive : str, optional
        The positive one of two classes; the second by default.
    """
    y = np.asarray(y)
    n_repeats = len({part.fold.repeat for part in parts})
    by_fold = [score_predictions(y[part.fold.test], part.predicted, part.probabilities, classes) for part in parts]
    guesses = [_guess(y[part.fold.train], y[part.fold.test], classes) for part in parts]
    baseline = Baseline(
        ", ".join(sorted({majority for majority, _ in guesses})),
        {name: _mean([values[name] for _, values in guesses]) for name in metric_names(len(classes))},
    )
    rows = np.concatenate([part.fold.test for part in parts])
    tested = fold_rows(y, parts, classes, groups)
    factors = inflation(by_fold, len(tested.predictions.classes))
    scores = cross_validated_intervals(
        by_fold,
        tested,
        n_repeats=n_repeats,
        unit=unit if groups is None or are_single(groups) else "groups",
        factors=factors,
    )
    return _account(
        tested.predictions,
        scores,
        baseline,
        None if groups is None else groups[rows],
        unit=f"{unit}, out of fold",
        n_repeats=n_repeats,
        positive=positive,
        inflation=factors["balanced_accuracy"],
        estimand=describe_expected(parts, unit),
    )


def fold_rows(
    y: NDArray[Any], parts: Sequence[FoldPredictions], classes: Sequence[str], groups: IntArray | None
) -> FoldRows:
    """Lay the predictions of all folds behind one another; what is independent is a group, or else a sample."""
    rows = np.concatenate([part.fold.test for part in parts])
    probabilities = [part.probabilities for part in parts if part.probabilities is not None]
    units, n_units = resampling_units(rows if groups is None else groups[rows], len(rows))
    return FoldRows(
        encode_predictions(
            y[rows],
            np.concatenate([np.asarray(part.predicted) for part in parts]),
            np.concatenate(probabilities) if len(probabilities) == len(parts) else None,
            classes,
        ),
        np.repeat(np.arange(len(parts)), [len(part.fold.test) for part in parts]),
        len(parts),
        units,
        n_units,
    )


def are_single(groups: IntArray) -> bool:
    """Whether every sample is a group of its own."""
    return len(np.unique(groups)) == len(groups)


def describe_expected(parts: Sequence[FoldPredictions], unit: str) -> str:
    """Say what the scores of a cross-validation estimate; `unit` is what a sample is, in words."""
    sizes = sorted({len(part.fold.train) for part in parts})
    of_sizes = f"{sizes[0]}" if len(sizes) == 1 else f"{sizes[0]} to {sizes[-1]}"
    return (
        f"the expected score on new {unit} of the whole procedure, choices included, when it learns from as many "
        f"{unit} as in a fold ({of_sizes}); over training sets as well as over new {unit}"
    )


def evaluate_fixed(
    y: ArrayLike,
    predicted: ArrayLike,
    probabilities: ArrayLike | None,
    classes: Sequence[str],
    *,
    groups: IntArray | None = None,
    y_train: ArrayLike | None = None,
    unit: str = "samples",
    positive: str | None = None,
) -> Evaluation:
    """Account for one fixed part that the head has not seen.

    Intervals are for the score of this head on new samples; accuracy of independent samples has Wilson's, see
    `featx.learn.score_intervals`. Where groups hold several samples, whole groups are what is independent.

    Parameters
    ----------
    y, predicted : str array (n_samples,)
        `y` may hold classes that the head does not know.
    probabilities : float array (n_samples, n_classes), or None
    classes : sequence of str
        The classes that the head knows, in the order of the probabilities.
    groups : int array (n_samples,), optional
    y_train : str array, optional
        Labels of the training part, for the baseline.
    unit : str
        What a sample is, for the words of the intervals.
    positive : str, optional
        The positive one of two classes; the second by default.
    """
    predictions = encode_predictions(y, predicted, probabilities, classes)
    units, n_units = resampling_units(groups, len(predictions.true))
    tested = FoldRows(predictions, np.zeros(len(units), dtype=np.int64), 1, units, n_units)
    values = score_predictions(y, predicted, probabilities, classes)
    scores = fixed_intervals(values, tested, unit=unit if n_units == len(units) else "groups")
    baseline = None if y_train is None else Baseline(*_guess(np.asarray(y_train), np.asarray(y), classes))
    return _account(
        predictions,
        scores,
        baseline,
        groups,
        unit=unit,
        positive=positive,
        estimand=f"the score of this one classifier on new {unit} like these",
    )


def _account(
    predictions: Predictions,
    scores: dict[str, Interval],
    baseline: Baseline | None,
    groups: IntArray | None,
    *,
    unit: str,
    n_repeats: int = 1,
    positive: str | None,
    inflation: float = 1.0,
    estimand: str,
) -> Evaluation:
    """Add what is counted from the predictions: confusion matrix, per-class and binary scores."""
    classes, true, predicted = predictions.classes, predictions.true, predictions.predicted
    confusion = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(confusion, (true, predicted), 1)
    binary = None
    if len(classes) == 2:
        name = classes[1] if positive is None else positive
        is_positive, called = true == classes.index(name), predicted == classes.index(name)
        pairs = [(called, is_positive), (~called, ~is_positive), (is_positive, called), (~is_positive, ~called)]
        binary = BinaryScores(
            name,
            *(
                proportion_interval(right, among, groups, unit=unit, n_repeats=n_repeats, inflation=inflation)
                for right, among in pairs
            ),
        )
    return Evaluation(
        scores=scores,
        classes=classes,
        per_class=[_class_scores(confusion, number, name, n_repeats) for number, name in enumerate(classes)],
        confusion=confusion.tolist(),
        baseline=baseline,
        binary=binary,
        unseen=classes[predictions.n_known :],
        n_samples=len(true) // n_repeats,
        n_repeats=n_repeats,
        estimand=estimand,
    )


def _class_scores(confusion: IntArray, number: int, name: str, n_repeats: int) -> ClassScores:
    right, there, called = int(confusion[number, number]), int(confusion[number].sum()), int(confusion[:, number].sum())
    return ClassScores(
        name,
        precision=right / called if called else None,
        recall=right / there if there else None,
        f1=2 * right / (there + called) if there + called else None,
        support=there // n_repeats,
    )


def guess(y_train: NDArray[Any], classes: Sequence[str]) -> tuple[str, FloatArray]:
    """Return the largest class of a training part, the first by name among equals, and the shares of the classes."""
    shares = np.array([np.sum(y_train == name) for name in classes]) / max(len(y_train), 1)
    return str(classes[int(np.argmax(shares))]), shares


def _guess(y_train: NDArray[Any], y: NDArray[Any], classes: Sequence[str]) -> tuple[str, dict[str, float | None]]:
    """Score the largest class of the training part, and its class shares, on the other part."""
    majority, shares = guess(y_train, classes)
    return majority, score_predictions(y, [majority] * len(y), np.tile(shares, (len(y), 1)), classes)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
