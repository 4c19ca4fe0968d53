"""Scores of a regression with their intervals, beside what a guess would get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import LEVEL, Interval, resampling_units
from featx.learn.paired import Comparison, flip_signs
from featx.learn.regression.metrics import METRICS, FloatArray, IntArray, Metric, Tested
from featx.learn.scores import FoldPredictions, describe_expected

SHARED = 2.0
"""By which the variance of independent predictions is multiplied in a cross-validation; see `_interval`."""
FEWEST_DEGREES = 4.0
"""Of freedom that a variance has at least: the quantile of t grows beyond all use below (2.8 here, 12.7 at one)."""
COMPARED = "neg_mean_absolute_error"
"""The score of which differences are tested."""


@dataclass(frozen=True)
class Spread:
    """The true numbers of what was scored, for a sense of scale.

    Attributes
    ----------
    mean, deviation, lowest, highest : float
    """

    mean: float
    deviation: float
    lowest: float
    highest: float


@dataclass(frozen=True)
class NumberEvaluation:
    """What the predictions for some samples are worth.

    Attributes
    ----------
    scores : dict of str to Interval
        Of `featx.learn.regression.metrics.METRICS`.
    guessing : dict of str to float or None
        What the mean of the training part gets, for `mae` its median, which is the best guess there; None where
        undefined.
    spread : Spread
    n_samples, n_units, n_repeats : int
    unit : str
        What is independent: ``"samples"`` or ``"groups"``.
    estimand : str
        What the scores estimate, in words.
    """

    scores: dict[str, Interval]
    guessing: dict[str, float | None]
    spread: Spread
    n_samples: int
    n_units: int
    n_repeats: int
    unit: str
    estimand: str

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self)


def evaluate_folds(y: FloatArray, parts: Sequence[FoldPredictions], groups: IntArray | None) -> NumberEvaluation:
    """Score a (repeated) cross-validation.

    Parameters
    ----------
    y : float64 array (n_samples,)
        What the folds' positions point into.
    parts : sequence of FoldPredictions
    groups : int array (n_samples,), or None
        Whole in every test part.
    """
    tested = of_folds(y, parts, groups)
    n_repeats = len({part.fold.repeat for part in parts})
    n_splits = len(parts) // n_repeats
    unit = tested.unit(n_repeats)
    design = f"{tested.n_units} {unit} in {n_splits} folds" + (f" x {n_repeats} repeats" if n_repeats > 1 else "")
    return _evaluate(tested, n_repeats, unit, design, describe_expected(parts, "samples"), len(parts))


def evaluate_fixed(
    y: FloatArray, predicted: FloatArray, groups: IntArray | None, *, y_train: FloatArray | None = None
) -> NumberEvaluation:
    """Score one regression on one part.

    Parameters
    ----------
    y, predicted : float64 array (n_samples,)
    groups : int array (n_samples,), or None
    y_train : float64 array (n_train,), optional
        The numbers of the training part, for the guess; without it there is none.
    """
    tested = of_fixed(y, predicted, groups, y_train=y_train)
    unit = tested.unit()
    estimand = f"the score of this one regression on new {unit} like these"
    evaluation = _evaluate(tested, 1, unit, f"{tested.n_units} {unit}", estimand, 0)
    if y_train is not None:
        return evaluation
    return NumberEvaluation(**{**vars(evaluation), "guessing": dict.fromkeys(METRICS)})


def of_folds(y: FloatArray, parts: Sequence[FoldPredictions], groups: IntArray | None) -> Tested:
    """Lay the predictions of all folds behind one another."""
    rows = np.concatenate([part.fold.test for part in parts])
    sizes = [len(part.fold.test) for part in parts]
    units, _ = resampling_units(rows if groups is None else groups[rows], len(rows))
    return Tested(
        true=y[rows],
        predicted=np.concatenate([part.predicted for part in parts]).astype(np.float64),
        level=np.repeat([y[part.fold.train].mean() for part in parts], sizes),
        middle=np.repeat([np.median(y[part.fold.train]) for part in parts], sizes),
        folds=np.repeat(np.arange(len(parts)), sizes),
        units=units,
    )


def of_fixed(
    y: FloatArray, predicted: FloatArray, groups: IntArray | None, *, y_train: FloatArray | None = None
) -> Tested:
    """Lay out the predictions for one part; see `evaluate_fixed`."""
    units, _ = resampling_units(groups, len(y))
    guess = y if y_train is None else y_train
    level, middle = np.full(len(y), guess.mean()), np.full(len(y), np.median(guess))
    return Tested(y, predicted, level, middle, np.zeros(len(y), dtype=np.int64), units)


def compare(
    names: tuple[str, str], first: Tested, second: Tested, *, unit: str, is_fixed: bool, random_state: int = 0
) -> Comparison:
    """Compare the absolute errors of two series of predictions for the same samples.

    The signs of what each sample, or each whole group, adds to the difference are flipped; see
    `featx.learn.paired.flip_signs`. Out of fold the flipped sums are stretched by `SHARED`.
    """
    sizes = [np.abs(one.errors) for one in (first, second)]
    parts = np.bincount(first.units, weights=(sizes[1] - sizes[0]) / len(sizes[0]), minlength=first.n_units)
    p_value = flip_signs(parts.astype(np.float64), stretch=1.0 if is_fixed else SHARED, random_state=random_state)
    scores = -float(sizes[0].mean()), -float(sizes[1].mean())
    return Comparison(*names, COMPARED, scores, scores[0] - scores[1], p_value, first.n_units, unit)


def _evaluate(tested: Tested, n_repeats: int, unit: str, design: str, estimand: str, n_folds: int) -> NumberEvaluation:
    scores = {name: _score(metric, tested, n_folds, unit, design) for name, metric in METRICS.items()}
    true = tested.true
    return NumberEvaluation(
        scores=scores,
        guessing={
            name: _defined(metric.of(tested.guessed(tested.middle if name == "mae" else tested.level)))
            for name, metric in METRICS.items()
        },
        spread=Spread(float(true.mean()), float(true.std()), float(true.min()), float(true.max())),
        n_samples=len(true) // n_repeats,
        n_units=tested.n_units,
        n_repeats=n_repeats,
        unit=unit,
        estimand=estimand,
    )


def _score(metric: Metric, tested: Tested, n_folds: int, unit: str, design: str) -> Interval:
    folds = [_defined(metric.of(tested.take(tested.folds == fold))) for fold in range(n_folds)]
    value = _defined(metric.of(tested))
    if value is None:
        return Interval(None, None, None, folds, f"undefined ({design})")
    if tested.n_units < 2:
        return Interval(value, None, None, folds, f"no interval: fewer than two {unit}")
    ends = _ends(metric, value, tested, inflation=SHARED if n_folds else 1.0)
    if ends is None:
        return Interval(value, None, None, folds, f"no interval: no errors that vary ({design})")
    return Interval(value, *ends, folds, f"t from the influence of each prediction ({design})")


def _ends(metric: Metric, value: float, tested: Tested, *, inflation: float) -> tuple[float, float] | None:
    """Find the ends of a score's interval, symmetric on the scale of its link; None where that has no end.

    What is independent is a unit: influences are added up in each, and their squares make the variance. In a
    cross-validation it is multiplied by `SHARED`: two samples that test each other's head agree in chance hits, as in
    `featx.learn.score_intervals.inflation`, and the size of errors depends on the training part however much is
    learnt, so that the allowance does not fade with the score. The quantile is that of t. A few large errors may carry
    most of the variance, which is then known as badly as if there were only them: the degrees of freedom are the number
    of units that would carry it if all carried the same, ``(sum of b^2)^2 / sum of b^4``, less one, and
    `FEWEST_DEGREES` at least.
    """
    from scipy.special import stdtrit

    with np.errstate(divide="ignore", invalid="ignore"):
        centre, influences = float(metric.link(value)), metric.influence(tested)
    if not (np.isfinite(centre) and np.isfinite(influences).all()):
        return None
    squares = np.bincount(tested.units, weights=influences, minlength=tested.n_units) ** 2
    if squares.sum() == 0:
        return None
    carrying = float(squares.sum() ** 2 / np.sum(squares**2))
    degrees = min(max(carrying - 1, FEWEST_DEGREES), tested.n_units - 1)
    variance = inflation * float(squares.sum()) * tested.n_units / (tested.n_units - 1)
    half = float(stdtrit(degrees, (1 + LEVEL) / 2)) * variance**0.5
    ends = sorted((float(metric.back(centre - half)), float(metric.back(centre + half))))
    return ends[0], ends[1]


def _defined(value: NDArray[Any] | float) -> float | None:
    return float(value) if np.isfinite(value) else None
