"""How far each prediction moves a score: the sampling error of a score, without resampling.

Near its value a score is a sum over predictions; the addends are its influence values (Hampel, The influence curve and
its role in robust estimation, JASA 69, 1974), and their squares, summed over what is independent, estimate its variance
(the infinitesimal jackknife: Jaeckel, 1972). For accuracy that is the binomial variance, for ROC AUC the one of DeLong,
DeLong and Clarke-Pearson (Biometrics 44, 1988). Added up within groups first, they carry whatever the samples of a
group have in common.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.metrics import FloatArray, IntArray, Predictions

MISPLACED = 0.4
"""Share of the other class that a unit which went wrong is taken to be on the wrong side of, in a ROC curve."""


@dataclass(frozen=True, eq=False)
class FoldRows:
    """The predictions of some folds, one after the other; a fixed part is one fold.

    Attributes
    ----------
    predictions : Predictions
        A sample has one row for each repeat.
    folds : int array (n_rows,)
        0 ... n_folds - 1, over all repeats.
    n_folds : int
    units : int array (n_rows,)
        What is independent, a sample or a group: 0 ... n_units - 1.
    n_units : int
    """

    predictions: Predictions
    folds: IntArray
    n_folds: int
    units: IntArray
    n_units: int

    @property
    def n_classes(self) -> int:
        """How many classes there are, unseen ones included."""
        return len(self.predictions.classes)

    @property
    def curves(self) -> range:
        """The classes whose ROC curves, each against the rest, make the AUC: the second of two, or all."""
        return range(1, 2) if self.n_classes == 2 else range(self.n_classes)

    def by_fold(self, codes: IntArray, where: NDArray[Any] | slice = slice(None)) -> FloatArray:
        """Count rows (n_classes, n_folds) by a class, and the fold."""
        places = (codes * self.n_folds + self.folds)[where]
        counts = np.bincount(places, minlength=self.n_classes * self.n_folds)
        return counts.reshape(self.n_classes, self.n_folds).astype(np.float64)

    def units_of(self, rows: NDArray[np.bool_]) -> int:
        """Count the units with at least one of some rows."""
        return len(np.unique(self.units[rows]))

    def strata(self) -> IntArray:
        """Return the class of each unit (n_units,); of several, the first of its rows."""
        _, first = np.unique(self.units, return_index=True)
        return self.predictions.true[first]

    # What `featx.learn.score_intervals` asks of the predictions of any task.

    def influence(self, name: str) -> FloatArray:
        """Return `influence` of a score (n_rows,)."""
        return influence(name, self)

    def mistakes(self, name: str) -> FloatArray:
        """Return `mistakes` of a score (n_kinds,)."""
        return mistakes(name, self)

    def limits(self, name: str, value: float) -> tuple[float, float]:
        """Return the range of a score, which for the log loss ends where every sample is called wrongly."""
        return (min(lowest_log_gain(self.predictions), value), 0.0) if name == "neg_log_loss" else (0.0, 1.0)

    def right(self, name: str) -> NDArray[np.bool_] | None:
        """Return which rows are right, where that is all that a score counts."""
        return self.predictions.true == self.predictions.predicted if name == "accuracy" else None


def influence(name: str, tested: FoldRows) -> FloatArray:
    """Return how far each row moves the mean of a score over the folds.

    Parameters
    ----------
    name : str
        One of `featx.learn.metrics.SCORINGS`.
    tested : FoldRows

    Returns
    -------
    float array (n_rows,)
        Each class (for accuracy and log loss: all rows) adds up to 0; 0 in folds in which the score is undefined, and
        everywhere without the probabilities that it needs.
    """
    if name in ("roc_auc", "roc_auc_ovr"):
        return _roc_auc(tested)
    if name == "neg_log_loss":
        return _mean(tested, log_gain(tested.predictions))
    if name == "accuracy":
        return _mean(tested, (tested.predictions.true == tested.predictions.predicted).astype(np.float64))
    return {"balanced_accuracy": _balanced_accuracy, "f1_macro": _f1_macro}[name](tested)


def mistakes(name: str, tested: FoldRows) -> FloatArray:
    """Return what it would cost the score if one more unit went wrong, for each kind of unit that counts apart.

    Parameters
    ----------
    name, tested
        As in `influence`.

    Returns
    -------
    float array (n_kinds,)
        In parts of the range of the score.
    """
    true = tested.predictions.true
    if name in ("accuracy", "neg_log_loss"):
        return np.array([1 / tested.n_units])
    if name in ("balanced_accuracy", "f1_macro"):
        present = np.unique(true)
        return np.array([1 / (len(present) * tested.units_of(true == code)) for code in present])
    sides = [side for code in tested.curves for side in (true == code, true != code) if side.any()]
    return np.array([MISPLACED / (len(tested.curves) * tested.units_of(side)) for side in sides])


def log_gain(predictions: Predictions) -> FloatArray:
    """Return the log probability of the true class (n_rows,), clipped as in the log loss; 0 without probabilities."""
    if predictions.scores is None:
        return np.zeros(len(predictions.true))
    return _log(predictions.scores[np.arange(len(predictions.true)), predictions.true])


def lowest_log_gain(predictions: Predictions) -> float:
    """Return the mean log probability if the least probable class were always the true one."""
    known = predictions.scores
    if known is None:
        return 0.0
    return float(np.mean(_log(known[:, : predictions.n_known].min(axis=1))))


def _log(probabilities: FloatArray) -> FloatArray:
    gains: FloatArray = np.log(np.clip(probabilities, np.finfo(np.float64).eps, 1.0))
    return gains


def _ratio(numerator: NDArray[Any], denominator: NDArray[Any]) -> FloatArray:
    """Divide, with 0 where there is nothing to divide by."""
    ratio: FloatArray = np.divide(numerator, denominator, out=np.zeros(len(denominator)), where=denominator > 0)
    return ratio


def _mean(tested: FoldRows, values: FloatArray) -> FloatArray:
    sizes = np.bincount(tested.folds, minlength=tested.n_folds)
    weights = 1 / (np.sum(sizes > 0) * sizes[tested.folds])
    influences: FloatArray = weights * (values - weights @ values)
    return influences


def _balanced_accuracy(tested: FoldRows) -> FloatArray:
    true, folds = tested.predictions.true, tested.folds
    sizes = tested.by_fold(true)
    n_present = (sizes > 0).sum(axis=0)
    weights = 1 / (np.sum(n_present > 0) * n_present[folds] * sizes[true, folds])
    return _about_means(weights, (true == tested.predictions.predicted).astype(np.float64), true, tested.n_classes)


def _about_means(weights: FloatArray, values: FloatArray, codes: IntArray, n_codes: int) -> FloatArray:
    """Weigh the distances of values from the weighted mean of their kind."""
    totals = np.bincount(codes, weights=weights, minlength=n_codes)
    means = _ratio(np.bincount(codes, weights=weights * values, minlength=n_codes), totals)
    influences: FloatArray = weights * (values - means[codes])
    return influences


def _f1_macro(tested: FoldRows) -> FloatArray:
    true, predicted, folds = tested.predictions.true, tested.predictions.predicted, tested.folds
    right = true == predicted
    both = tested.by_fold(true) + tested.by_fold(predicted)
    n_counted = (both > 0).sum(axis=0)
    by_fold = 1 / (np.sum(n_counted > 0) * np.maximum(n_counted, 1))
    weights = by_fold * (both > 0)
    f1 = _ratio((weights * 2 * tested.by_fold(true, right) / np.maximum(both, 1)).sum(axis=1), weights.sum(axis=1))
    # F1 = 2 right / (true + predicted): a row counts below for its true class and for the predicted one.
    own = np.where(right, 2 - 2 * f1[true], -f1[true]) / both[true, folds]
    other = np.where(right, 0.0, -f1[predicted]) / both[predicted, folds]
    influences: FloatArray = by_fold[folds] * (own + other)
    return influences


def _roc_auc(tested: FoldRows) -> FloatArray:
    influences = np.zeros(len(tested.folds))
    if tested.predictions.scores is None:
        return influences
    true, n_curves = tested.predictions.true, len(tested.curves)
    sizes = tested.by_fold(true)
    n_rows = sizes.sum(axis=0)
    defined = np.flatnonzero(((sizes > 0) & (sizes < n_rows))[tested.curves].all(axis=0))
    rows = np.isin(tested.folds, defined)
    for code in tested.curves:
        positive = true == code
        placements = np.zeros(len(true))
        for fold in defined:
            here = tested.folds == fold
            inside, outside = np.flatnonzero(here & positive), np.flatnonzero(here & ~positive)
            placements[inside] = _share_below(tested.predictions.scores[:, code], inside, outside)
            placements[outside] = 1 - _share_below(tested.predictions.scores[:, code], outside, inside)
        for side in (positive & rows, ~positive & rows):
            in_fold = np.bincount(tested.folds[side], minlength=tested.n_folds)[tested.folds[side]]
            weights = 1 / (n_curves * len(defined) * in_fold)
            influences[side] += _about_means(weights, placements[side], np.zeros(len(weights), dtype=np.int64), 1)
    return influences


def _share_below(scores: FloatArray, rows: IntArray, others: IntArray) -> FloatArray:
    """Share of the other rows with a smaller score, equal ones by half."""
    order = np.sort(scores[others])
    return (np.searchsorted(order, scores[rows], "left") + np.searchsorted(order, scores[rows], "right")) / (
        2 * len(order)
    )
