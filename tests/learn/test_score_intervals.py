"""Intervals of an evaluation's scores: equalities that must hold, whatever the numbers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, t

from featx.learn.influence import FoldRows
from featx.learn.intervals import wilson_interval
from featx.learn.metrics import encode_predictions, metric_names, score_predictions
from featx.learn.score_intervals import cross_validated_intervals, fixed_intervals, inflation

NAMES = ["ant", "bee", "cricket"]


def sample(seed, n=60, n_classes=2, quality=1.0):
    r = np.random.default_rng(seed)
    classes = NAMES[:n_classes]
    true = np.arange(n) % n_classes
    logits = r.normal(size=(n, n_classes)) + quality * (np.arange(n_classes) == true[:, None])
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return np.array(classes)[true], np.array(classes)[probabilities.argmax(axis=1)], probabilities, classes


def as_rows(y, predicted, probabilities, classes, *, folds=None, units=None):
    folds = np.zeros(len(y), dtype=int) if folds is None else folds
    units = np.arange(len(y)) if units is None else units
    predictions = encode_predictions(y, predicted, probabilities, classes)
    return FoldRows(predictions, folds, int(folds.max()) + 1, units, int(units.max()) + 1)


def fixed(y, predicted, probabilities, classes, units=None):
    values = score_predictions(y, predicted, probabilities, classes)
    return fixed_intervals(values, as_rows(y, predicted, probabilities, classes, units=units), unit="units")


def folded(y, predicted, probabilities, classes, folds, *, n_repeats=1, units=None):
    by_fold = [
        score_predictions(y[folds == f], predicted[folds == f], probabilities[folds == f], classes)
        for f in range(folds.max() + 1)
    ]
    tested = as_rows(y, predicted, probabilities, classes, folds=folds, units=units)
    factors = inflation(by_fold, len(classes))
    return cross_validated_intervals(by_fold, tested, n_repeats=n_repeats, unit="units", factors=factors)


def width(interval):
    return interval.high - interval.low


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 4.0, 30.0]), st.integers(2, 3))
def test_every_score_lies_strictly_inside_its_range_or_at_its_end(seed, quality, n_classes):
    part = sample(seed, 24, n_classes, quality)
    for intervals in (fixed(*part), folded(*part, np.arange(24) // n_classes % 4)):
        assert list(intervals) == list(metric_names(n_classes))
        for name, interval in intervals.items():
            lowest, highest = (-np.inf, 0) if name == "neg_log_loss" else (0, 1)
            assert lowest < interval.low + 1e-300 <= interval.mean <= interval.high <= highest
            assert width(interval) > 0, name


def test_accuracy_of_a_fixed_part_is_wilsons():
    y, predicted, probabilities, classes = sample(1)
    assert fixed(y, predicted, probabilities, classes)["accuracy"] == wilson_interval(
        int(np.sum(y == predicted)), 60, unit="units"
    )


def test_balanced_accuracy_of_two_classes_equals_the_direct_formula():
    y, predicted, probabilities, classes = sample(2, 80)
    interval = fixed(y, predicted, probabilities, classes)["balanced_accuracy"]
    recalls = [np.mean(predicted[y == name] == name) for name in classes]
    # Per class of 40: p (1 - p) / 39, and a quarter of a unit that went wrong, 1 / 80 of the score.
    parts = np.array([share * (1 - share) / 39 / 4 for share in recalls])
    variance = parts.sum() + 0.25 * 2 * (1 / 80) ** 2
    degrees = variance**2 / np.sum((parts + variance / 2 - parts.sum() / 2) ** 2 / 39)
    mean = np.mean(recalls)
    regular = mean - 0.25 * 2 / 80
    n, q = regular * (1 - regular) / variance, t.ppf(0.975, degrees)
    centre = (mean + q**2 / (2 * n)) / (1 + q**2 / n)
    half = q / (1 + q**2 / n) * np.sqrt(mean * (1 - mean) / n + q**2 / (4 * n**2))
    assert interval.mean == pytest.approx(mean)
    assert (interval.low, interval.high) == pytest.approx((centre - half, centre + half), rel=1e-6)


@pytest.mark.parametrize("quality", [1.0, 30.0])
def test_copies_of_a_sample_in_its_group_add_no_certainty(quality):
    part = sample(3, quality=quality)
    copies = np.repeat(np.arange(60), 4)
    copied = (*(column[copies] for column in part[:3]), part[3])
    single, grouped, careless = fixed(*part), fixed(*copied, units=copies), fixed(*copied)
    for name, interval in grouped.items():
        if name != "accuracy":  # of single samples it has Wilson's own interval
            assert (interval.low, interval.high) == pytest.approx((single[name].low, single[name].high)), name
        assert width(careless[name]) < 0.7 * width(interval)
    folds = np.arange(60) // 2 % 5
    single, grouped = folded(*part, folds), folded(*copied, folds[copies], units=copies)
    for name, interval in grouped.items():
        assert (interval.low, interval.high) == pytest.approx((single[name].low, single[name].high)), name


def test_repeats_that_say_the_same_add_no_certainty():
    part = sample(4)
    folds = np.arange(60) // 2 % 5
    again = (*(np.concatenate([column] * 3) for column in part[:3]), part[3])
    once = folded(*part, folds)
    thrice = folded(
        *again, np.concatenate([folds, folds + 5, folds + 10]), n_repeats=3, units=np.tile(np.arange(60), 3)
    )
    for name, interval in thrice.items():
        assert (interval.low, interval.high) == pytest.approx((once[name].low, once[name].high), rel=1e-9)
        assert interval.method == "Wilson at the effective sample size (60 units in 5 folds x 3 repeats)"


def test_inflation_goes_from_two_at_guessing_to_one_at_perfection():
    def factors(value, n_classes=2):
        return inflation([{"balanced_accuracy": value}, {"balanced_accuracy": None}], n_classes)

    assert set(factors(0.5).values()) == set(factors(0.2).values()) == set(factors(0.25, 4).values()) == {2.0}
    assert set(factors(1.0).values()) == {1.0}
    assert factors(0.75)["accuracy"] == factors(0.75)["roc_auc"] == pytest.approx(1.75)
    assert factors(0.9)["neg_log_loss"] == pytest.approx(1 + 2 * (1 - 0.8**2))
    assert set(inflation([{"balanced_accuracy": None}], 2).values()) == {2.0}


def test_folds_that_differ_by_more_than_their_samples_explain_widen_the_interval():
    """Two folds of five are all wrong: an effect of training, not of samples."""
    n, folds = 100, np.arange(100) // 2 % 5
    y = np.array(["ant", "bee"])[np.arange(n) % 2]
    other = np.where(y == "ant", "bee", "ant")
    spread, whole = np.random.default_rng(0).permutation(n) < 0.4 * n, folds < 2
    widths, means = {}, {}
    for name, wrong in (("spread", spread), ("whole", whole)):
        predicted = np.where(wrong, other, y)
        interval = folded(y, predicted, np.full((n, 2), 0.5), ["ant", "bee"], folds)["accuracy"]
        widths[name], means[name] = width(interval), np.mean(predicted == y)
    assert means["spread"] == means["whole"] == 0.6
    assert widths["whole"] > 2 * widths["spread"]
    # By hand: Cochran's Q is far beyond its 5 % point, and what is in excess counts as by Nadeau and Bengio.
    values = np.array([0.0, 0.0, 1.0, 1.0, 1.0])
    explained = 5 * 0.6 * 0.4 / n
    found = values.var(ddof=1)
    assert found / explained > chi2.ppf(0.95, 4) / 4
    excess = (1 / 5 + 1 / 4) * (found - explained)
    assert widths["whole"] > 2 * np.sqrt(excess) * 0.8


def test_a_score_that_is_undefined_in_folds_says_so():
    y, predicted, probabilities, classes = sample(5, 40)
    folds = np.arange(40) // 2 % 4
    folds[(folds == 0) & (y == "ant")] = 1  # fold 0 has no ant, and no ROC curve
    interval = folded(y, predicted, probabilities, classes, folds)["roc_auc"]
    assert interval.folds[0] is None
    assert "undefined in 1 of 4" in interval.method
    assert interval.low < interval.mean < interval.high
    by_fold = [score_predictions(y[folds == f], predicted[folds == f], None, classes) for f in range(4)]
    bare = cross_validated_intervals(
        by_fold,
        as_rows(y, predicted, None, classes, folds=folds),
        n_repeats=1,
        unit="units",
        factors=inflation(by_fold, len(classes)),
    )
    assert bare["roc_auc"].mean is None
    assert bare["roc_auc"].method == "undefined (4 folds, undefined in 4 of 4)"
    assert bare["accuracy"].low is not None


def test_no_interval_from_one_fold_or_one_unit():
    part = sample(6, 20)
    single = folded(*part, np.zeros(20, dtype=int))["accuracy"]
    assert (single.low, single.method) == (None, "no interval from a single fold (1 folds)")
    lonely = fixed(*part, units=np.zeros(20, dtype=int))
    assert all(interval.low is None and "fewer than two" in interval.method for interval in lonely.values())
