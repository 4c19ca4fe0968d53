"""Scores of whole groups (patients): each is called by the mean of its samples' probabilities.

Its class is that of the largest mean or, where there is a threshold, by the threshold of samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.learn.metrics import FloatArray, IntArray
from featx.learn.scores import Evaluation, FoldPredictions, evaluate_fixed, evaluate_folds
from featx.learn.splits import Fold
from featx.learn.threshold import Threshold


@dataclass(frozen=True)
class GroupEvaluation:
    """The account of an evaluation in which a sample is a group.

    Attributes
    ----------
    evaluation : Evaluation
    n_groups : int
        Groups scored.
    mixed : list of int
        Groups with samples of more than one class: they have no one label and are left out.
    """

    evaluation: Evaluation
    n_groups: int
    mixed: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Return the evaluation's dict with ``n_groups`` and ``n_mixed``, for JSON."""
        return {**self.evaluation.to_dict(), "n_groups": self.n_groups, "n_mixed": len(self.mixed)}


@dataclass(frozen=True, eq=False)
class _Groups:
    """Groups with one label each, in ascending order, and the mixed ones."""

    numbers: IntArray
    y: NDArray[Any]
    mixed: list[int]

    def places(self, groups: IntArray) -> IntArray:
        """Positions of the groups in `numbers`, each once, without the mixed."""
        return np.flatnonzero(np.isin(self.numbers, groups))


def by_group(
    y: ArrayLike,
    probabilities: FloatArray,
    groups: IntArray,
    classes: Sequence[str],
    *,
    y_train: ArrayLike | None = None,
    groups_train: IntArray | None = None,
    positive: str | None = None,
    threshold: Threshold | None = None,
) -> GroupEvaluation:
    """Score the groups of a fixed part.

    Parameters
    ----------
    y : str array (n_samples,)
    probabilities : float array (n_samples, n_classes)
    groups : int array (n_samples,)
    classes : sequence of str
        The classes that the head knows, in the order of the probabilities.
    y_train, groups_train : arrays, optional
        Labels and groups of the training part, for the baseline: its largest class in groups.
    positive : str, optional
        As in `featx.learn.scores.evaluate_fixed`.
    threshold : Threshold, optional
        By which samples are called.
    """
    labelled = _one_label(np.asarray(y), groups)
    mean = _mean_probabilities(probabilities, groups, labelled.numbers)
    predicted = _call(mean, classes, threshold)
    train = None
    if y_train is not None and groups_train is not None:
        train = _one_label(np.asarray(y_train), groups_train).y
    evaluation = evaluate_fixed(
        labelled.y,
        predicted,
        mean,
        classes,
        y_train=train,
        unit="groups",
        positive=positive,
    )
    return GroupEvaluation(evaluation, len(labelled.numbers), labelled.mixed)


def by_group_folds(
    y: ArrayLike,
    parts: Sequence[FoldPredictions],
    groups: IntArray,
    classes: Sequence[str],
    *,
    positive: str | None = None,
) -> GroupEvaluation:
    """Score the groups of a cross-validation, each in the fold that tests it.

    Parameters
    ----------
    y : str array (n_samples,)
    parts : sequence of FoldPredictions
        With probabilities, and with whole groups in every test part.
    groups : int array (n_samples,)
    classes : sequence of str
    positive : str, optional
    """
    labelled = _one_label(np.asarray(y), groups)
    pooled = []
    for part in parts:
        if part.probabilities is None:
            raise ValueError("scores by group are of mean probabilities, and these predictions have none")
        fold = part.fold
        test = labelled.places(groups[fold.test])
        mean = _mean_probabilities(part.probabilities, groups[fold.test], labelled.numbers[test])
        of_groups = Fold(fold.repeat, fold.number, labelled.places(groups[fold.train]), test, fold.name)
        pooled.append(FoldPredictions(of_groups, _call(mean, classes, part.threshold), mean))
    evaluation = evaluate_folds(labelled.y, pooled, classes, unit="groups", positive=positive)
    return GroupEvaluation(evaluation, evaluation.n_samples, labelled.mixed)


def _one_label(y: NDArray[Any], groups: IntArray) -> _Groups:
    numbers, first, inverse = np.unique(groups, return_index=True, return_inverse=True)
    is_mixed = np.zeros(len(numbers), dtype=np.bool_)
    is_mixed[inverse[y != y[first][inverse]]] = True
    return _Groups(numbers[~is_mixed], y[first][~is_mixed], numbers[is_mixed].tolist())


def _mean_probabilities(probabilities: FloatArray, groups: IntArray, numbers: IntArray) -> FloatArray:
    """Mean probabilities (n_groups, n_classes) of the groups in `numbers`."""
    keep = np.isin(groups, numbers)
    places = np.searchsorted(numbers, groups[keep])
    mean = np.zeros((len(numbers), probabilities.shape[1]))
    np.add.at(mean, places, probabilities[keep])
    mean /= np.bincount(places, minlength=len(numbers))[:, None]
    return mean


def _call(mean: FloatArray, classes: Sequence[str], threshold: Threshold | None) -> NDArray[Any]:
    names = np.asarray(classes, dtype=object)
    return names[np.argmax(mean, axis=1)] if threshold is None else threshold.decide(mean, names)
