"""Brier score, calibration error and the curve of abstaining, against scikit-learn and plain loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, brier_score_loss

from featx.learn.reliability import (
    KEPT,
    calibration_error,
    equal_bins,
    expected_error,
    list_kept,
    reliability_fixed,
    reliability_folds,
)
from featx.learn.scores import FoldPredictions
from featx.learn.splits import make_folds

CLASSES = ["a", "b", "c"]


def predictions(n=200, n_classes=3, seed=0, sharper=1.0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(n, n_classes))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y = np.array(CLASSES)[np.minimum((rng.random((n, 1)) > p.cumsum(axis=1)).sum(axis=1), n_classes - 1)]
    q = p**sharper / (p**sharper).sum(axis=1, keepdims=True)
    return y, np.array(CLASSES)[q.argmax(axis=1)], q


@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_brier_score_is_scikit_learns(n_classes):
    y, predicted, p = predictions(n_classes=n_classes)
    found = reliability_fixed(y, predicted, p, CLASSES[:n_classes])
    reference = brier_score_loss(y, p if n_classes > 2 else p[:, 1], labels=CLASSES[:n_classes], **(
        {} if n_classes > 2 else {"pos_label": "b"}
    ))  # fmt: skip
    assert found.brier.mean == pytest.approx(reference)
    assert found.brier.low < reference < found.brier.high


def test_the_calibration_error_is_what_a_loop_over_bins_gives():
    y, predicted, p = predictions(sharper=3.0)
    found = reliability_fixed(y, predicted, p, CLASSES)
    confidence, right = p.max(axis=1), y == predicted
    order = np.argsort(confidence)
    bins = np.array_split(order, 10)  # 200 samples, 20 in a bin
    slow = sum(len(b) / 200 * abs(right[b].mean() - confidence[b].mean()) for b in bins)
    assert found.ece.mean == pytest.approx(slow)
    assert [one.n for one in found.bins] == [20] * 10
    assert found.bins[3].right == pytest.approx(right[bins[3]].mean())
    assert found.bins[3].confidence == pytest.approx(confidence[bins[3]].mean())


@settings(max_examples=50, deadline=None)
@given(st.lists(st.sampled_from([0.5, 0.6, 0.7, 0.71, 0.9, 1.0]), min_size=1, max_size=200))
def test_bins_keep_equal_confidences_together_in_order_and_do_not_depend_on_the_order_of_samples(values):
    confidence = np.array(values)
    bins = equal_bins(confidence)
    order = np.argsort(confidence, kind="stable")
    assert (np.diff(bins[order]) >= 0).all()
    for value in set(values):
        assert len(set(bins[confidence == value])) == 1
    shuffled = np.random.default_rng(0).permutation(len(values))
    np.testing.assert_array_equal(equal_bins(confidence[shuffled]), bins[shuffled])
    assert len(set(bins)) <= max(len(values) // 20, 1)


def test_few_samples_make_an_error_where_there_is_none_and_the_report_says_how_large():
    """Over many sets of true probabilities: the mean error is the expected one, and zero is inside the interval."""
    errors, expected, above, zero_inside = [], [], 0, 0
    for seed in range(60):
        y, predicted, p = predictions(80, seed=seed)
        found = reliability_fixed(y, predicted, p, CLASSES)
        errors.append(found.ece.mean)
        expected.append(found.expected.mean)
        above += found.ece.mean > found.expected.high
        zero_inside += found.ece.low == 0
    assert np.mean(errors) == pytest.approx(np.mean(expected), abs=0.01)
    assert above <= 6  # 2.5 % of 60 are 1.5
    assert zero_inside >= 54


def test_an_error_that_is_known_is_inside_its_interval():
    """All of them 0.9 sure, 0.75 right: an error of 0.15."""
    inside = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        right = rng.random(100) < 0.75
        p = np.tile([0.9, 0.1], (100, 1))
        found = reliability_fixed(np.where(right, "a", "b"), np.full(100, "a"), p, CLASSES[:2])
        inside += found.ece.low <= 0.15 <= found.ece.high
    assert inside >= 90


def test_folds_give_the_mean_of_their_brier_scores_and_the_error_of_all_together():
    y, predicted, p = predictions(150)
    folds = make_folds(y, None, n_splits=3)
    parts = [FoldPredictions(fold, predicted[fold.test], p[fold.test]) for fold in folds]
    found = reliability_folds(y, parts, CLASSES)
    own = [brier_score_loss(y[fold.test], p[fold.test], labels=CLASSES) for fold in folds]
    assert found.brier.folds == pytest.approx(own)
    assert found.brier.mean == pytest.approx(np.mean(own))
    assert "Nadeau-Bengio" in found.brier.method
    confidence = p.max(axis=1)
    assert found.ece.mean == pytest.approx(calibration_error(confidence, y == predicted, equal_bins(confidence)))


def test_repeats_of_the_same_predictions_change_nothing():
    y, predicted, p = predictions(120)
    once = make_folds(y, None, n_splits=3)
    twice = make_folds(y, None, n_splits=3, n_repeats=2)
    one, two = (
        reliability_folds(y, [FoldPredictions(f, predicted[f.test], p[f.test]) for f in folds], CLASSES)
        for folds in (once, twice)
    )
    assert two.ece.mean == pytest.approx(one.ece.mean)
    assert (two.ece.low, two.ece.high) == pytest.approx((one.ece.low, one.ece.high))
    assert two.expected.mean == pytest.approx(one.expected.mean, abs=0.01)
    assert [(k.share, k.accuracy.mean, k.accuracy.low) for k in two.kept] == [
        (k.share, k.accuracy.mean, k.accuracy.low) for k in one.kept
    ]


def test_groups_that_agree_in_themselves_make_wider_intervals():
    y, predicted, p = predictions(60)
    many = np.repeat(np.arange(60), 5)
    alone = reliability_fixed(y[many], predicted[many], p[many], CLASSES)
    grouped = reliability_fixed(y[many], predicted[many], p[many], CLASSES, groups=many)
    assert grouped.brier.high - grouped.brier.low > 1.5 * (alone.brier.high - alone.brier.low)
    assert "60 groups" in grouped.brier.method
    assert "60 groups" in grouped.ece.method


def test_a_class_that_the_head_does_not_know_is_wrong_at_any_confidence():
    found = reliability_fixed(np.array(["z", "a"]), np.array(["a", "a"]), np.array([[0.9, 0.1]] * 2), CLASSES[:2])
    assert found.bins[0].right == 0.5
    assert found.brier.mean == pytest.approx((0.81 + 0.01 + 1 + 0.02) / 2)  # three classes: not halved


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.5, 0.6, 0.8, 0.9, 0.95, 1.0]), st.booleans()), min_size=1, max_size=60))
def test_the_accuracy_of_the_surest_is_that_of_all_at_least_as_sure_as_the_threshold(pairs):
    confidence, right = np.array([c for c, _ in pairs]), np.array([r for _, r in pairs])
    kept = list_kept(confidence, right, np.arange(len(pairs)))
    assert kept[0].share == 1
    assert [one.threshold for one in kept] == sorted({one.threshold for one in kept})
    for one in kept:
        among = confidence >= one.threshold
        assert one.share == pytest.approx(among.mean())
        assert one.accuracy.mean == pytest.approx(accuracy_score(np.ones(among.sum()), right[among]))
    for share in KEPT:  # no share is missed: some row keeps at least it, and drops the rest if ties allow
        assert any(one.share >= share for one in kept)


def test_the_expected_error_of_certainty_is_nothing():
    certain = np.ones(50)
    assert expected_error(certain, equal_bins(certain), 1, 0).high == 0
