"""The account of an evaluation: scores with intervals, per class, confusion matrix, and what guessing would get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UnknownNameError, UsageError
from featx.learn.intervals import (
    N_BOOT,
    Interval,
    bootstrap_intervals,
    nadeau_bengio_interval,
    proportion_interval,
    resampling_units,
)
from featx.learn.metrics import (
    FloatArray,
    IntArray,
    Predictions,
    encode_predictions,
    metric_names,
    metric_range,
    score_predictions,
    statistic,
)
from featx.learn.splits import Fold


@dataclass(frozen=True, eq=False)
class FoldPredictions:
    """What the head fitted on one fold's training part says about its test part.

    Attributes
    ----------
    fold : Fold
    predicted : str array (n_test,)
        In the order of ``fold.test``.
    probabilities : float array (n_test, n_classes), or None
    """

    fold: Fold
    predicted: NDArray[Any]
    probabilities: FloatArray | None


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

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self)


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
    n_boot: int = N_BOOT,
    random_state: int = 0,
) -> Evaluation:
    """Account for a (repeated) cross-validation from its out-of-fold predictions.

    The five scores are computed fold by fold. Confusion matrix, per-class and binary scores are those of the
    predictions of all folds and repeats together. Binary intervals count each sample once, and take the predictions as
    independent: they hold the spread of the samples, not that of the training parts.

    Parameters
    ----------
    y : str array (n_samples,)
        What the folds' positions point into.
    parts : sequence of FoldPredictions
        All folds of all repeats.
    classes : sequence of str
        The classes of every training part, in the order of the probabilities.
    groups : int array (n_samples,), optional
        For the intervals of the binary scores.
    unit : str
        What a sample is, for the words of the intervals.
    positive : str, optional
        The positive one of two classes; the second by default.
    n_boot, random_state : int
    """
    y = np.asarray(y)
    n_repeats = len({part.fold.repeat for part in parts})
    by_fold = [score_predictions(y[part.fold.test], part.predicted, part.probabilities, classes) for part in parts]
    names = metric_names(len(classes))
    scores = {
        name: nadeau_bengio_interval(
            [one[name] for one in by_fold], len(parts) // n_repeats, n_repeats, limits=metric_range(name)
        )
        for name in names
    }
    guesses = [_guess(y[part.fold.train], y[part.fold.test], classes) for part in parts]
    baseline = Baseline(
        ", ".join(sorted({majority for majority, _ in guesses})),
        {name: _mean([values[name] for _, values in guesses]) for name in names},
    )
    tested = np.concatenate([part.fold.test for part in parts])
    predicted = np.concatenate([np.asarray(part.predicted) for part in parts])
    pooled = encode_predictions(y[tested], predicted, None, classes)
    return _account(
        pooled,
        scores,
        baseline,
        None if groups is None else groups[tested],
        unit=f"{unit}, out of fold",
        n_repeats=n_repeats,
        positive=positive,
        n_boot=n_boot,
        random_state=random_state,
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
    n_boot: int = N_BOOT,
    random_state: int = 0,
) -> Evaluation:
    """Account for one fixed part that the head has not seen.

    Accuracy has Wilson's interval, the others a percentile bootstrap of the samples. Where groups hold several samples
    these are not independent, and all, accuracy too, have a bootstrap of whole groups.

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
    n_boot, random_state : int
    """
    predictions = encode_predictions(y, predicted, probabilities, classes)
    units, n_units = resampling_units(groups, len(predictions.true))
    names = metric_names(len(predictions.classes))
    scores = bootstrap_intervals(
        {name: statistic(name, predictions, units, n_units) for name in names},
        n_units,
        unit=unit if n_units == len(predictions.true) else "groups",
        n_boot=n_boot,
        random_state=random_state,
    )
    everything = np.ones(len(predictions.true), dtype=np.bool_)
    scores["accuracy"] = proportion_interval(
        predictions.true == predictions.predicted,
        everything,
        groups,
        unit=unit,
        n_boot=n_boot,
        random_state=random_state,
    )
    baseline = None if y_train is None else Baseline(*_guess(np.asarray(y_train), np.asarray(y), classes))
    return _account(
        predictions,
        scores,
        baseline,
        groups,
        unit=unit,
        positive=positive,
        n_boot=n_boot,
        random_state=random_state,
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
    n_boot: int,
    random_state: int,
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
                proportion_interval(
                    right, among, groups, unit=unit, n_repeats=n_repeats, n_boot=n_boot, random_state=random_state
                )
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


def _guess(y_train: NDArray[Any], y: NDArray[Any], classes: Sequence[str]) -> tuple[str, dict[str, float | None]]:
    """Score the largest class of the training part, and its class shares, on the other part."""
    shares = np.array([np.sum(y_train == name) for name in classes]) / max(len(y_train), 1)
    majority = str(classes[int(np.argmax(shares))])
    return majority, score_predictions(y, [majority] * len(y), np.tile(shares, (len(y), 1)), classes)


def _mean(values: Sequence[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None
