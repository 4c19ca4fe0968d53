"""Whether probabilities come true as often as they say: Brier score, calibration error, and what waiting would gain.

All of it is counted on samples that took no part in fitting or calibrating: the test parts of the outer folds, or the
fixed part that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from featx.learn.intervals import (
    LEVEL,
    N_BOOT,
    Interval,
    bootstrap_intervals,
    nadeau_bengio_interval,
    proportion_interval,
    resampling_units,
)
from featx.learn.metrics import FloatArray, IntArray, Predictions, encode_predictions
from featx.learn.scores import FoldPredictions

MOST_BINS = 15
LEAST_IN_A_BIN = 20
"""Samples in a bin of the calibration error at least, so that its share of right ones means something."""
N_DRAWS = 1000
"""How often labels are drawn from the probabilities themselves."""
KEPT = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Shares of the surest samples for which the accuracy is listed."""


@dataclass(frozen=True)
class Expected:
    """What the calibration error would be if every probability were true: it is never 0 with so few samples.

    Attributes
    ----------
    mean, high : float
        Mean, and the value that 97.5 % of the draws stay below.
    """

    mean: float
    high: float


@dataclass(frozen=True)
class Bin:
    """Samples of similar confidence.

    Attributes
    ----------
    n : int
    confidence, right : float
        Mean probability of what was predicted, and the share of predictions that are right.
    """

    n: int
    confidence: float
    right: float


@dataclass(frozen=True)
class Kept:
    """What comes of calling the surest samples only.

    Attributes
    ----------
    share : float
        Of the samples that are called.
    threshold : float
        The least probability among them: ``featx predict --abstain-below``.
    accuracy : Interval
        Among them.
    """

    share: float
    threshold: float
    accuracy: Interval


@dataclass(frozen=True)
class Reliability:
    """The account of probabilities.

    Attributes
    ----------
    brier : Interval
        Brier score (1950): mean squared distance between the probabilities and what is true, 0 to 2; for two classes
        that of one of them, 0 to 1, as in scikit-learn.
    ece : Interval
        Expected calibration error of the predicted class: in bins of equal numbers of samples, the mean distance
        between the mean probability of what was predicted and the share that is right.
    expected : Expected or None
        The same for labels drawn from the probabilities.
    bins : list of Bin
        Of `ece`.
    kept : list of Kept
        For `KEPT`.
    """

    brier: Interval
    ece: Interval
    expected: Expected | None
    bins: list[Bin]
    kept: list[Kept]

    def to_dict(self) -> dict[str, Any]:
        """Return plain dicts, lists, numbers and None, for JSON."""
        return asdict(self)


def reliability_folds(
    y: NDArray[Any],
    parts: Sequence[FoldPredictions],
    classes: Sequence[str],
    *,
    groups: IntArray | None = None,
    random_state: int = 0,
) -> Reliability:
    """Account for the probabilities of a (repeated) cross-validation.

    The Brier score is taken fold by fold, as the other scores are. The calibration error needs more samples than a
    fold has: it is that of the out-of-fold predictions of all folds together, and its interval takes them as
    independent, samples or groups.

    Parameters
    ----------
    y : str array (n_samples,)
        What the folds' positions point into.
    parts : sequence of FoldPredictions
        With probabilities.
    classes : sequence of str
    groups : int array (n_samples,), optional
    random_state : int
    """
    n_repeats = len({part.fold.repeat for part in parts})
    values = [float(np.mean(_brier(_encode(y, part.fold.test, part, classes)))) for part in parts]
    tested = np.concatenate([part.fold.test for part in parts])
    pooled = encode_predictions(
        y[tested],
        np.concatenate([np.asarray(part.predicted) for part in parts]),
        np.concatenate([_probabilities(part) for part in parts]),
        classes,
    )
    brier = nadeau_bengio_interval(values, len(parts) // n_repeats, n_repeats, limits=(0.0, 2.0))
    # A sample's predictions of several repeats go together, as those of a group do.
    units = tested if groups is None else groups[tested]
    unit = "samples, out of fold" if groups is None else "groups"
    return _account(pooled, brier, units, unit, n_repeats, random_state)


def reliability_fixed(
    y: NDArray[Any],
    predicted: NDArray[Any],
    probabilities: FloatArray,
    classes: Sequence[str],
    *,
    groups: IntArray | None = None,
    random_state: int = 0,
) -> Reliability:
    """Account for the probabilities of a fixed part; see `reliability_folds`."""
    predictions = encode_predictions(y, predicted, probabilities, classes)
    units, n_units = resampling_units(groups, len(predictions.true))
    unit = "samples" if n_units == len(predictions.true) else "groups"
    totals, sizes = np.bincount(units, weights=_brier(predictions)), np.bincount(units).astype(np.float64)
    [brier] = bootstrap_intervals(
        {"brier": lambda counts: (totals @ counts) / (sizes @ counts)}, n_units, unit=unit, random_state=random_state
    ).values()
    return _account(predictions, brier, units, unit, 1, random_state)


def _account(
    predictions: Predictions, brier: Interval, units: IntArray, unit: str, n_repeats: int, random_state: int
) -> Reliability:
    assert predictions.scores is not None
    confidence = predictions.scores[np.arange(len(predictions.true)), predictions.predicted]
    right = predictions.true == predictions.predicted
    bins = equal_bins(confidence, n_repeats)
    numbers, n_units = resampling_units(units, len(units))
    expected = expected_error(confidence, bins, n_repeats, random_state) if len(confidence) else None
    ece = _ece_interval(confidence, right, bins, numbers, n_units, unit, random_state, expected)
    return Reliability(
        brier,
        ece,
        expected,
        [
            Bin(int(np.sum(bins == b)), float(confidence[bins == b].mean()), float(right[bins == b].mean()))
            for b in np.unique(bins)
        ],
        list_kept(confidence, right, units, n_repeats),
    )


def equal_bins(confidence: FloatArray, n_repeats: int = 1) -> IntArray:
    """Sort samples by confidence into bins of equal size: up to `MOST_BINS`, with `LEAST_IN_A_BIN` samples at least.

    Equal confidences are in one bin, so that the bins do not depend on the order of the samples.
    """
    n_bins = int(np.clip(len(confidence) // n_repeats // LEAST_IN_A_BIN, 1, MOST_BINS))
    ranks = np.searchsorted(np.sort(confidence), confidence)
    bins: IntArray = ranks * n_bins // max(len(confidence), 1)
    return bins


def calibration_error(confidence: FloatArray, right: NDArray[Any], bins: IntArray) -> float:
    """Return the expected calibration error: sum over bins of share times |share of right ones - mean confidence|."""
    gaps = np.bincount(bins, weights=np.asarray(right, dtype=np.float64) - confidence)
    return float(np.sum(np.abs(gaps)) / len(confidence))


def expected_error(confidence: FloatArray, bins: IntArray, n_repeats: int, random_state: int) -> Expected:
    """Draw who is right from the confidences themselves (Bröcker and Smith, Weather and Forecasting 22, 2007).

    Samples are drawn independently of each other; where groups agree in themselves, chance has more play than this.
    """
    rng = np.random.default_rng(random_state)
    n_samples = len(confidence) // n_repeats
    # One repeat's worth of independent samples, spread evenly over the confidences.
    chosen = np.sort(confidence)[np.arange(n_samples) * n_repeats + n_repeats // 2] if n_repeats > 1 else confidence
    own_bins = equal_bins(chosen) if n_repeats > 1 else bins
    errors = [calibration_error(chosen, rng.random(n_samples) < chosen, own_bins) for _ in range(N_DRAWS)]
    return Expected(float(np.mean(errors)), float(np.quantile(errors, (1 + LEVEL) / 2)))


def list_kept(confidence: FloatArray, right: NDArray[np.bool_], units: IntArray, n_repeats: int = 1) -> list[Kept]:
    """List the accuracy among the surest samples (El-Yaniv and Wiener, JMLR 11, 2010: the risk-coverage curve)."""
    kept: list[Kept] = []
    ordered = np.sort(confidence)[::-1]
    for share in KEPT:
        if not len(ordered):
            break
        threshold = float(ordered[max(int(np.ceil(share * len(ordered))) - 1, 0)])
        among = confidence >= threshold
        if kept and threshold == kept[-1].threshold:
            continue
        accuracy = proportion_interval(right, among, units, n_repeats=n_repeats)
        kept.append(Kept(float(np.mean(among)), threshold, accuracy))
    return kept


def _ece_interval(
    confidence: FloatArray,
    right: NDArray[np.bool_],
    bins: IntArray,
    units: IntArray,
    n_units: int,
    unit: str,
    random_state: int,
    expected: Expected | None,
) -> Interval:
    """Return an interval of the calibration error: as far below the value as the bootstrap's percentile is above it.

    The error of n draws from anything is biased upwards: a resample's is larger than the sample's, as the sample's is
    larger than the truth. The upper percentile is therefore on the safe side as it is, the lower one is not even below
    the value, and the upper distance stands for it; down to 0, where true probabilities would show as large an error.
    """
    if expected is None:
        return Interval(None, None, None, [], "undefined: no samples")
    value = calibration_error(confidence, right, bins)
    gaps = np.zeros((int(bins.max()) + 1, n_units))
    np.add.at(gaps, (bins, units), right - confidence)
    sizes = np.bincount(units, minlength=n_units).astype(np.float64)
    [found] = bootstrap_intervals(
        {"ece": lambda counts: np.abs(gaps @ counts).sum(axis=0) / (sizes @ counts)},
        n_units,
        unit=unit,
        n_boot=N_BOOT,
        random_state=random_state,
    ).values()
    if found.low is None or found.high is None:
        return Interval(value, None, None, [], found.method)
    high = max(found.high, value)
    low = 0.0 if value <= expected.high else max(2 * value - high, 0.0)
    n_bins = len(np.unique(bins))
    method = found.method.replace("percentile bootstrap", "bootstrap, upper percentile mirrored")
    return Interval(value, low, high, [], f"{method}; {n_bins} equal bins" if n_bins > 1 else f"{method}; one bin")


def _brier(predictions: Predictions) -> FloatArray:
    """Squared distance (n_samples,) between probabilities and what is true, half of it for two classes."""
    assert predictions.scores is not None
    distance = predictions.scores - (np.arange(len(predictions.classes)) == predictions.true[:, None])
    squared: FloatArray = np.sum(distance**2, axis=1)
    return squared / 2 if len(predictions.classes) == 2 else squared


def _encode(y: NDArray[Any], test: IntArray, part: FoldPredictions, classes: Sequence[str]) -> Predictions:
    return encode_predictions(y[test], part.predicted, _probabilities(part), classes)


def _probabilities(part: FoldPredictions) -> FloatArray:
    assert part.probabilities is not None
    return part.probabilities
