"""Scores of predicted labels, and how far each sample moves them.

Near its value a score is a sum over samples, whose addends are its influence values (see `featx.learn.influence`). Here
each is the derivative of the score by the weight of the sample, in closed form; they add up to 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError
from featx.learn.influence import MISPLACED

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]

LABEL_SCORES = ("average_precision_macro", "roc_auc_macro", "f1_macro", "f1_micro", "label_accuracy", "exact_match")
"""In the order in which they are shown. All of them are from 0 to 1, and larger is better.

As scikit-learn's ``average_precision_score``, ``roc_auc_score`` and ``f1_score`` with that average, ``1 -
hamming_loss``, and ``accuracy_score``, of which the last counts samples with exactly the right labels. A label that is
not there, or for the area is everywhere, has no precision and no area; macro scores are the mean over the others, and
macro F1 over those that are there or called.
"""


@dataclass(frozen=True, eq=False)
class LabelPredictions:
    """Labels of some samples, and what a head says about them.

    Attributes
    ----------
    true, called : bool array (n_samples, n_labels)
    scores : float64 array (n_samples, n_labels)
        Probabilities, or decision values.
    """

    true: BoolArray
    called: BoolArray
    scores: FloatArray

    def __len__(self) -> int:
        return len(self.true)

    def take(self, rows: IntArray | BoolArray) -> LabelPredictions:
        """Return some of the samples."""
        return LabelPredictions(self.true[rows], self.called[rows], self.scores[rows])

    def labels(self) -> Iterator[LabelPredictions]:
        """Yield each label alone."""
        for k in range(self.true.shape[1]):
            yield LabelPredictions(self.true[:, [k]], self.called[:, [k]], self.scores[:, [k]])


def check_label_scoring(name: str) -> None:
    """Raise UnknownNameError for a score that is not in `LABEL_SCORES`."""
    if name not in LABEL_SCORES:
        raise UnknownNameError("scoring of --task multilabel", name, LABEL_SCORES)


def label_value(name: str, predictions: LabelPredictions) -> float | None:
    """Score predictions by one of `LABEL_SCORES`; None where undefined."""
    value = _SCORES[name].value(predictions) if len(predictions) else np.nan
    return None if np.isnan(value) else float(value)


def label_influence(name: str, predictions: LabelPredictions) -> FloatArray:
    """Return how far each sample (n_samples,) moves a score: its derivative by the sample's weight, for equal ones."""
    if label_value(name, predictions) is None:
        return np.zeros(len(predictions))
    return _SCORES[name].influence(predictions)


def label_mistakes(name: str, true: BoolArray, units: IntArray) -> FloatArray:
    """Return what it would cost a score if one more unit went wrong, for each kind of unit that counts apart.

    Parameters
    ----------
    name : str
        One of `LABEL_SCORES`.
    true : bool array (n_samples, n_labels)
    units : int array (n_samples,)
        What is independent.
    """

    def n_units(rows: BoolArray | np.bool_) -> int:
        return len(np.unique(units[rows]))

    everyone = n_units(np.ones(len(true), dtype=np.bool_))
    if name == "exact_match":
        return np.array([1 / everyone])
    if name == "label_accuracy":
        return np.full(true.shape[1], 1 / (true.shape[1] * everyone))
    if name == "f1_micro":
        return np.array([1 / max(n_units(true.any(axis=1)), 1)])
    there = [own for own in true.T if own.any()]
    if name == "roc_auc_macro":
        return np.array(
            [MISPLACED / (len(there) * n_units(side)) for own in there for side in (own, ~own) if side.any()]
        )
    return np.array([1 / (len(there) * n_units(own)) for own in there])


@dataclass(frozen=True)
class _Score:
    value: Callable[[LabelPredictions], float]
    influence: Callable[[LabelPredictions], FloatArray]


def average_precision(true: BoolArray, scores: FloatArray) -> float:
    """Mean over the samples with a label of the precision where they are called; NaN where there are none."""
    if not true.any():
        return float("nan")
    above, among = _at_least(true, scores)
    return float(np.mean((among / above)[true]))


def chance_precision(true: BoolArray) -> float:
    """Return the expected average precision of a random order: above the share of the label, the more so with few rows.

    Bestgen, Exact expected average precision of the random baseline for system evaluation, Prague Bulletin of
    Mathematical Linguistics 103, 2015. NaN where no row has the label.
    """
    n, n_with = len(true), int(true.sum())
    if not n_with:
        return float("nan")
    others = (n_with - 1) / max(n - 1, 1)
    harmonic = float(np.sum(1 / np.arange(1, n + 1)))
    return others + (1 - others) * harmonic / n


def _at_least(true: BoolArray, scores: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Count for each sample those that score as high or higher: all, and those with the label."""
    every, own = np.sort(scores), np.sort(scores[true])
    above = len(every) - np.searchsorted(every, scores, "left")
    among = len(own) - np.searchsorted(own, scores, "left")
    return above.astype(np.float64), among.astype(np.float64)


def _influence_of_average_precision(true: BoolArray, scores: FloatArray) -> FloatArray:
    """Differentiate the weighted mean of A / B over positives, A and B being the weights at or above each."""
    above, among = _at_least(true, scores)
    precision = (among / above)[true]
    n = len(precision)
    order = np.argsort(scores[true])
    sorted_scores, sorted_precision, sorted_above = scores[true][order], precision[order], above[true][order]
    # A sample is among those at or above every positive that scores no higher than it.
    places = np.searchsorted(sorted_scores, scores, "right")
    of_positive = np.concatenate([[0.0], np.cumsum((1 - sorted_precision) / sorted_above)])[places]
    of_negative = np.concatenate([[0.0], np.cumsum(-sorted_precision / sorted_above)])[places]
    own = np.zeros(len(true))
    own[true] = precision - precision.mean()
    influence: FloatArray = (own + np.where(true, of_positive, of_negative)) / n
    return influence


def roc_area(true: BoolArray, scores: FloatArray) -> float:
    """Share of pairs of a sample with and one without the label in the right order, ties one half (Mann-Whitney)."""
    if true.all() or not true.any():
        return float("nan")
    return float(_placements(true, scores)[true].mean())


def _placements(true: BoolArray, scores: FloatArray) -> FloatArray:
    """Share of the other side of each sample that it is on the right side of, ties one half."""
    placements = np.empty(len(true))
    for side, sign in ((true, 1.0), (~true, -1.0)):
        others = np.sort(sign * scores[~side])
        own = sign * scores[side]
        below = np.searchsorted(others, own, "left") + np.searchsorted(others, own, "right")
        placements[side] = below / (2 * len(others))
    return placements


def _influence_of_area(true: BoolArray, scores: FloatArray) -> FloatArray:
    placements = _placements(true, scores)
    sizes = np.where(true, true.sum(), (~true).sum())
    influence: FloatArray = (placements - placements[true].mean()) / sizes
    return influence


def f1(true: BoolArray, called: BoolArray) -> float:
    """``2 right / (true + called)``, over all entries; NaN where there is nothing to divide by."""
    both = int(true.sum()) + int(called.sum())
    return 2 * int((true & called).sum()) / both if both else float("nan")


def _influence_of_f1(true: BoolArray, called: BoolArray) -> FloatArray:
    """Of rows of entries (n_samples, n_entries)."""
    both = true.sum(axis=1) + called.sum(axis=1)
    influence: FloatArray = (2 * (true & called).sum(axis=1) - f1(true, called) * both) / max(int(both.sum()), 1)
    return influence


def _macro(value: Callable[[LabelPredictions], float]) -> Callable[[LabelPredictions], float]:
    """Mean over the labels for which a score is defined."""

    def mean(predictions: LabelPredictions) -> float:
        values = [value(one) for one in predictions.labels()]
        defined = [one for one in values if not np.isnan(one)]
        return float(np.mean(defined)) if defined else float("nan")

    return mean


def _macro_influence(score: _Score) -> Callable[[LabelPredictions], FloatArray]:
    def mean(predictions: LabelPredictions) -> FloatArray:
        defined = [one for one in predictions.labels() if not np.isnan(score.value(one))]
        influence: FloatArray = np.mean([score.influence(one) for one in defined], axis=0)
        return influence

    return mean


def _macro_score(score: _Score) -> _Score:
    return _Score(_macro(score.value), _macro_influence(score))


def _mean_score(right: Callable[[LabelPredictions], FloatArray]) -> _Score:
    """Make a score that is the mean over the samples of how right each is."""

    def influence(predictions: LabelPredictions) -> FloatArray:
        values = right(predictions)
        influences: FloatArray = (values - values.mean()) / len(values)
        return influences

    return _Score(lambda predictions: float(right(predictions).mean()), influence)


_PRECISION = _Score(
    lambda one: average_precision(one.true[:, 0], one.scores[:, 0]),
    lambda one: _influence_of_average_precision(one.true[:, 0], one.scores[:, 0]),
)
_AREA = _Score(
    lambda one: roc_area(one.true[:, 0], one.scores[:, 0]),
    lambda one: _influence_of_area(one.true[:, 0], one.scores[:, 0]),
)
_F1 = _Score(lambda p: f1(p.true, p.called), lambda p: _influence_of_f1(p.true, p.called))
_SCORES = {
    "average_precision_macro": _macro_score(_PRECISION),
    "roc_auc_macro": _macro_score(_AREA),
    "f1_macro": _macro_score(_F1),
    "f1_micro": _F1,
    "label_accuracy": _mean_score(lambda p: (p.true == p.called).mean(axis=1)),
    "exact_match": _mean_score(lambda p: (p.true == p.called).all(axis=1).astype(np.float64)),
}
