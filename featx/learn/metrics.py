"""The five scores, each as a function of how often every unit (a sample, or a group) is counted.

A score and its bootstrap are one formula here: all units counted once give the score, a matrix of counts gives the
scores of as many resamples at once. Each formula equals scikit-learn's metric of that name on the repeated samples.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from featx.errors import UnknownNameError

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]
Statistic = Callable[[FloatArray], FloatArray]
"""Counts (n_units, n_resamples) to values (n_resamples,); NaN where undefined."""

METRICS = ("balanced_accuracy", "accuracy", "f1_macro", "roc_auc", "neg_log_loss")
"""For two classes; with more, ``roc_auc_ovr`` is in the place of ``roc_auc``."""

SCORINGS = (*METRICS, "roc_auc_ovr")
"""What a head may be chosen by; ``roc_auc`` with more than two classes means ``roc_auc_ovr``."""


def metric_names(n_classes: int) -> tuple[str, ...]:
    """Names of the five scores for so many classes, in the order in which they are shown."""
    return tuple("roc_auc_ovr" if name == "roc_auc" and n_classes > 2 else name for name in METRICS)


def metric_range(name: str) -> tuple[float, float]:
    """Lowest and highest value that a score can take."""
    return (-np.inf, 0.0) if name == "neg_log_loss" else (0.0, 1.0)


def check_scoring(name: str) -> None:
    """Raise UnknownNameError for a score that is not in `SCORINGS`."""
    if name not in SCORINGS:
        raise UnknownNameError("scoring", name, SCORINGS)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Labels, predictions and class scores of the same samples, as numbers.

    Attributes
    ----------
    classes : list of str
        The head's classes in its order, then the labels that it does not know, sorted.
    n_known : int
        How many of `classes` the head knows.
    true, predicted : int array (n_samples,)
        Positions in `classes`.
    scores : float array (n_samples, n_classes), or None
        Probabilities or decision values; 0 in the columns of classes that the head does not know.
    """

    classes: list[str]
    n_known: int
    true: IntArray
    predicted: IntArray
    scores: FloatArray | None


def encode_predictions(
    y: ArrayLike, predicted: ArrayLike, scores: ArrayLike | None, classes: Sequence[str]
) -> Predictions:
    """Turn labels into numbers.

    A label that the head does not know is a class of its own: always predicted wrongly, with probability 0.

    Parameters
    ----------
    y, predicted : str array (n_samples,)
    scores : float array (n_samples, n_classes), or (n_samples,) for two classes, or None
        Probabilities or decision values in the order of `classes`; with one column, the second class's.
    classes : sequence of str
        The classes that the head knows, in its order.
    """
    labels = [str(label) for label in np.asarray(y).tolist()]
    known = [str(name) for name in classes]
    names = known + sorted(set(labels) - set(known))
    code = {name: number for number, name in enumerate(names)}
    columns = None
    if scores is not None:
        columns = np.asarray(scores, dtype=np.float64)
        if columns.ndim == 1:
            columns = np.stack([-columns, columns], axis=1)
        columns = np.pad(columns, ((0, 0), (0, len(names) - columns.shape[1])))
    return Predictions(
        names,
        len(known),
        np.array([code[label] for label in labels], dtype=np.int64),
        np.array([code[str(label)] for label in np.asarray(predicted).tolist()], dtype=np.int64),
        columns,
    )


def score_predictions(
    y: ArrayLike, predicted: ArrayLike, probabilities: ArrayLike | None, classes: Sequence[str]
) -> dict[str, float | None]:
    """Score predictions by the five metrics.

    Parameters
    ----------
    y, predicted : str array (n_samples,)
    probabilities : float array (n_samples, n_classes), or None
    classes : sequence of str
        The classes that the head knows, in the order of the columns.

    Returns
    -------
    dict of str to float or None
        In the order of `METRICS`. None where undefined: all five without samples; ROC AUC without probabilities or
        when a class has no sample, or nothing but samples; log loss without probabilities. Balanced accuracy is the
        mean over the classes that occur in `y`, macro F1 over those in `y` or `predicted`, as in scikit-learn. Log
        loss clips probabilities at 2.2e-16, as scikit-learn does.
    """
    predictions = encode_predictions(y, predicted, probabilities, classes)
    return {name: _value(name, predictions) for name in metric_names(len(predictions.classes))}


def scoring_value(
    name: str, y: ArrayLike, predicted: ArrayLike, scores: ArrayLike | None, classes: Sequence[str]
) -> float | None:
    """Score predictions by one metric, larger is better.

    Parameters
    ----------
    name : str
        One of `SCORINGS`.
    y, predicted : str array (n_samples,)
    scores : float array (n_samples, n_classes), or (n_samples,) for two classes, or None
        Probabilities; for ROC AUC decision values will do.
    classes : sequence of str

    Returns
    -------
    float or None
        None where undefined, see `score_predictions`.

    Raises
    ------
    UnknownNameError
        No such scoring.
    """
    check_scoring(name)
    return _value(name, encode_predictions(y, predicted, scores, classes))


def scoring_values(name: str, y: ArrayLike, codes: IntArray, scores: FloatArray, classes: Sequence[str]) -> FloatArray:
    """Score several predictions of the same samples by one metric; see `scoring_value`.

    Parameters
    ----------
    name : str
        One of `SCORINGS`.
    y : str array (n_samples,)
    codes : int array (n_predictions, n_samples)
        Predictions, as places among the classes.
    scores : float array (n_predictions, n_samples, n_classes), or (n_predictions, n_samples) for two classes
    classes : sequence of str

    Returns
    -------
    float64 array (n_predictions,)
        NaN where undefined.
    """
    check_scoring(name)
    one = encode_predictions(y, np.asarray(classes)[codes[0]], scores[0], classes)
    n_predictions = len(codes)
    columns = np.zeros((*codes.shape, len(one.classes)))
    if scores.ndim == 2:
        columns[:, :, 0], columns[:, :, 1] = -scores, scores
    else:
        columns[:, :, : scores.shape[2]] = scores
    # Each prediction is one unit of a larger set, which counts alone.
    together = Predictions(
        one.classes, one.n_known, np.tile(one.true, n_predictions), codes.ravel(), columns.reshape(codes.size, -1)
    )
    units = np.repeat(np.arange(n_predictions), codes.shape[1])
    return statistic(name, together, units, n_predictions)(np.eye(n_predictions))


def _value(name: str, predictions: Predictions) -> float | None:
    value = float(statistic(name, predictions, np.zeros(len(predictions.true), dtype=np.int64), 1)(np.ones((1, 1)))[0])
    return None if np.isnan(value) else value


def statistic(name: str, predictions: Predictions, units: IntArray, n_units: int) -> Statistic:
    """Make a score a function of how often each unit counts.

    Parameters
    ----------
    name : str
        One of `SCORINGS`.
    predictions : Predictions
    units : int array (n_samples,)
        The unit of each sample, 0 ... n_units - 1.
    n_units : int
    """
    tally = _Tally(units, n_units)
    if name == "neg_log_loss":
        return _neg_log_loss(predictions, tally)
    if name in ("roc_auc", "roc_auc_ovr"):
        return _roc_auc(predictions, tally)
    return {"balanced_accuracy": _balanced_accuracy, "accuracy": _accuracy, "f1_macro": _f1_macro}[name](
        predictions, tally
    )


class _Tally:
    """Sums over samples as a matrix that takes counts of units."""

    def __init__(self, units: IntArray, n_units: int) -> None:
        self.units = units
        self.n_units = n_units

    def by(self, rows: IntArray, n_rows: int, where: NDArray[np.bool_] | slice = slice(None)) -> Any:
        """Sparse (n_rows, n_units): how many of each unit's samples, among `where`, are in each row."""
        from scipy.sparse import csr_array

        ones = np.ones(len(rows), dtype=np.float64)
        return csr_array((ones, (rows, self.units[where])), shape=(n_rows, self.n_units))

    def total(self, values: FloatArray | NDArray[np.bool_]) -> FloatArray:
        """Sum of a value over each unit's samples, (n_units,)."""
        return np.bincount(self.units, weights=values, minlength=self.n_units).astype(np.float64)


def _ratio(numerator: FloatArray, denominator: FloatArray) -> FloatArray:
    """Divide, with NaN where the denominator is zero."""
    return np.divide(numerator, denominator, out=np.full_like(denominator, np.nan), where=denominator > 0)


def _mean_defined(values: FloatArray) -> FloatArray:
    """Mean over the first axis of what is not NaN; NaN where nothing is."""
    defined = ~np.isnan(values)
    return _ratio(np.where(defined, values, 0.0).sum(axis=0), defined.sum(axis=0).astype(np.float64))


def _accuracy(p: Predictions, tally: _Tally) -> Statistic:
    right, all_ = tally.total(p.true == p.predicted), tally.total(np.ones(len(p.true)))
    return lambda counts: _ratio(right @ counts, all_ @ counts)


def _by_class(p: Predictions, tally: _Tally) -> tuple[Any, Any, Any]:
    """Per class: samples of it, predictions of it, and right ones."""
    right = p.true == p.predicted
    n_classes = len(p.classes)
    return tally.by(p.true, n_classes), tally.by(p.predicted, n_classes), tally.by(p.true[right], n_classes, right)


def _balanced_accuracy(p: Predictions, tally: _Tally) -> Statistic:
    true, _, right = _by_class(p, tally)
    return lambda counts: _mean_defined(_ratio(right @ counts, true @ counts))


def _f1_macro(p: Predictions, tally: _Tally) -> Statistic:
    true, predicted, right = _by_class(p, tally)
    both = true + predicted
    return lambda counts: _mean_defined(_ratio(2 * (right @ counts), both @ counts))


def _neg_log_loss(p: Predictions, tally: _Tally) -> Statistic:
    if p.scores is None:
        return _undefined
    of_true = p.scores[np.arange(len(p.true)), p.true]
    gain = tally.total(np.log(np.clip(of_true, np.finfo(np.float64).eps, 1.0)))
    all_ = tally.total(np.ones(len(p.true)))
    return lambda counts: _ratio(gain @ counts, all_ @ counts)


def _roc_auc(p: Predictions, tally: _Tally) -> Statistic:
    """Area under the ROC curve: of the second of two classes, else the plain mean of each class against the rest."""
    if p.scores is None:
        return _undefined
    n_classes = len(p.classes)
    areas = [
        _area(p.scores[:, number], p.true == number, tally) for number in (range(n_classes) if n_classes > 2 else [1])
    ]
    return lambda counts: np.mean([area(counts) for area in areas], axis=0)


def _area(scores: FloatArray, positive: NDArray[np.bool_], tally: _Tally) -> Statistic:
    """Share of (positive, negative) pairs in the right order, ties one half (Mann-Whitney).

    Positives lie at m thresholds; the negatives fall on them or into the gaps between, which makes 2 m + 1 bins.
    """
    thresholds = np.unique(scores[positive])
    m = len(thresholds)
    of_negative = scores[~positive]
    bins = np.searchsorted(thresholds, of_negative, "left") + np.searchsorted(thresholds, of_negative, "right")
    negatives = tally.by(bins, 2 * m + 1, ~positive)
    positives = tally.by(np.searchsorted(thresholds, scores[positive]), m, positive)

    def area(counts: FloatArray) -> FloatArray:
        at, among = positives @ counts, negatives @ counts
        below = np.cumsum(among, axis=0)[0 : 2 * m : 2]
        ordered = np.sum(at * (below + among[1::2] / 2), axis=0)
        return _ratio(ordered, at.sum(axis=0) * among.sum(axis=0))

    return area


def _undefined(counts: FloatArray) -> FloatArray:
    return np.full(counts.shape[1], np.nan)
