"""Scores of predicted numbers: what a choice maximises, what is reported, and how far each prediction moves it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from featx.errors import UnknownNameError

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


# What a choice maximises: larger is better


def _r2(true: FloatArray, predicted: FloatArray) -> FloatArray:
    spread = float(np.sum((true - true.mean()) ** 2))
    return _each(1 - np.sum((true - predicted) ** 2, axis=-1) / spread if spread > 0 else np.nan, predicted)


def _spearman(true: FloatArray, predicted: FloatArray) -> FloatArray:
    if np.ptp(true) == 0:
        return _each(np.nan, predicted)
    # One number for all says nothing about their order: 0, so that it is never chosen for being undefined.
    return np.nan_to_num(rank_correlation(true, predicted))


def _each(value: FloatArray | float, predicted: FloatArray) -> FloatArray:
    return np.broadcast_to(np.asarray(value, dtype=np.float64), predicted.shape[:-1])


SCORINGS: dict[str, Callable[[FloatArray, FloatArray], FloatArray]] = {
    "neg_mean_absolute_error": lambda true, predicted: -np.mean(np.abs(true - predicted), axis=-1),
    "neg_root_mean_squared_error": lambda true, predicted: -np.sqrt(np.mean((true - predicted) ** 2, axis=-1)),
    "r2": _r2,
    "spearman": _spearman,
}
"""Of true numbers (n,) and predicted ones (..., n), as scikit-learn and scipy define them; NaN where undefined."""


def check_scoring(name: str) -> None:
    """Raise UnknownNameError for a scoring that a regression does not take."""
    if name not in SCORINGS:
        raise UnknownNameError("scoring for --task regression", name, SCORINGS)


def rank_correlation(true: FloatArray, predicted: FloatArray) -> FloatArray:
    """Return Spearman's correlation (...) of true numbers (n,) and predicted ones (..., n); NaN where one is constant.

    Tied numbers have their mean rank.
    """
    one, two = _ranks(true), _ranks(predicted)
    with np.errstate(invalid="ignore"):
        found: FloatArray = np.sum(one * two, axis=-1) / np.sqrt(np.sum(one**2) * np.sum(two**2, axis=-1))
    return found


def _ranks(values: FloatArray) -> FloatArray:
    """Return ranks (..., n), less their mean."""
    from scipy.stats import rankdata

    ranks: FloatArray = rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2
    return ranks


# What is reported


@dataclass(frozen=True, eq=False)
class Tested:
    """Predictions for test parts, those of all folds and repeats one after the other; a fixed part is one fold.

    Attributes
    ----------
    true, predicted : float64 array (n_rows,)
    level : float64 array (n_rows,)
        Mean of the training part behind each prediction.
    middle : float64 array (n_rows,)
        Its median.
    folds : int array (n_rows,)
        0 ... n_folds - 1, over all repeats.
    units : int array (n_rows,)
        What is independent, a sample or a group: 0 ... n_units - 1.
    """

    true: FloatArray
    predicted: FloatArray
    level: FloatArray
    middle: FloatArray
    folds: IntArray
    units: IntArray

    @property
    def n_units(self) -> int:
        """How many units there are."""
        return int(self.units.max()) + 1

    def unit(self, n_repeats: int = 1) -> str:
        """Return what a unit is, in so many repeats of the same samples."""
        return "samples" if self.n_units * n_repeats == len(self.true) else "groups"

    @property
    def errors(self) -> FloatArray:
        """True less predicted, (n_rows,)."""
        return self.true - self.predicted

    def take(self, rows: NDArray[np.bool_]) -> Tested:
        """Return some of the rows."""
        columns = ("true", "predicted", "level", "middle", "folds", "units")
        return Tested(**{name: getattr(self, name)[rows] for name in columns})

    def guessed(self, guess: FloatArray) -> Tested:
        """Return the same with other predictions (n_rows,)."""
        return Tested(self.true, guess, self.level, self.middle, self.folds, self.units)


def of_new(true: FloatArray, predicted: FloatArray, units: IntArray | None = None) -> Tested:
    """Lay out predictions (n,) of one head whose training part is not known; each sample is a unit without `units`."""
    nothing, own = np.zeros(len(true)), np.arange(len(true))
    return Tested(true, predicted, nothing, nothing, own * 0, own if units is None else units)


@dataclass(frozen=True)
class Metric:
    """A score, the scale on which its error is nearly normal, and its influence values on that scale.

    Attributes
    ----------
    of : callable (Tested) -> float
        NaN where undefined.
    link, back : callable (float) -> float
        To that scale, and from it.
    influence : callable (Tested) -> float64 array (n_rows,)
        How far each prediction moves the score on that scale; adds up to 0.
    larger_is_better : bool
    """

    of: Callable[[Tested], float]
    link: Callable[[float], float]
    back: Callable[[float], float]
    influence: Callable[[Tested], FloatArray]
    larger_is_better: bool = False


def _mean_square(tested: Tested) -> float:
    return float(np.mean(tested.errors**2))


def _r2_of(tested: Tested) -> float:
    return float(_r2(tested.true, tested.predicted))


def _spearman_of(tested: Tested) -> float:
    # Folds differ in their level, and a fold's level is low where its test part is high: left in, that alone would
    # order samples wrongly. Each prediction counts by how far it is above the mean of its training part.
    return float(rank_correlation(tested.true, tested.predicted - tested.level))


def _mae_influence(tested: Tested) -> FloatArray:
    sizes = np.abs(tested.errors)
    return np.asarray((sizes / sizes.mean() - 1) / len(sizes))


def _rmse_influence(tested: Tested) -> FloatArray:
    squares = tested.errors**2
    return np.asarray((squares / squares.mean() - 1) / (2 * len(squares)))


def _r2_influence(tested: Tested) -> FloatArray:
    """Of log(1 - R2) = log of the mean square error - log of the variance."""
    squares, spread = tested.errors**2, (tested.true - tested.true.mean()) ** 2
    return np.asarray((squares / squares.mean() - spread / spread.mean()) / len(squares))


def _spearman_influence(tested: Tested) -> FloatArray:
    """Of arctanh of the rank correlation (Croux and Dehon, Statistical Methods and Applications 19, 2010)."""
    one, two = tested.true, tested.predicted - tested.level
    R, S = (_ranks(column) / len(column) for column in (one, two))
    scale = np.sqrt(np.mean(R**2) * np.mean(S**2))
    own = R * S + _mean_above(one, S) + _mean_above(two, R)
    rho = float(np.mean(R * S) / scale)
    found: FloatArray = (own - own.mean()) / scale / (1 - rho**2) / len(own)
    return found


def _mean_above(values: FloatArray, others: FloatArray) -> FloatArray:
    """Return for each of `values` (n,) the sum of `others` (n,) at larger values, and half of those at it, over n."""
    order = np.argsort(values, kind="stable")
    ordered, sums = values[order], np.concatenate([[0.0], np.cumsum(others[order])])
    up_to, below = (sums[np.searchsorted(ordered, values, side=side)] for side in ("right", "left"))
    above: FloatArray = (sums[-1] - (up_to + below) / 2) / len(values)
    return above


METRICS = {
    "r2": Metric(_r2_of, lambda r2: np.log1p(-r2), lambda t: -np.expm1(t), _r2_influence, larger_is_better=True),
    "rmse": Metric(lambda tested: _mean_square(tested) ** 0.5, np.log, np.exp, _rmse_influence),
    "mae": Metric(lambda tested: float(np.mean(np.abs(tested.errors))), np.log, np.exp, _mae_influence),
    "spearman": Metric(_spearman_of, np.arctanh, np.tanh, _spearman_influence, larger_is_better=True),
}
"""By name, in the order of reports."""
