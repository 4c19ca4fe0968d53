"""Influence values: derivatives of the scores, binomial and DeLong's variances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.learn.influence import FoldRows, influence, log_gain, lowest_log_gain, mistakes
from featx.learn.metrics import encode_predictions, metric_names, score_predictions, statistic

NAMES = ["ant", "bee", "cricket", "dragonfly"]


def sample(seed, *, n=None, n_classes=None):
    r = np.random.default_rng(seed)
    n_classes = n_classes or int(r.integers(2, 5))
    n = n or int(r.integers(n_classes + 2, 40))
    true = np.concatenate([np.arange(n_classes), r.integers(0, n_classes, n - n_classes)])
    weights = r.integers(1, 6, (n, n_classes)) + 3.0 * (np.arange(n_classes) == true[:, None])
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    classes = NAMES[:n_classes]
    y, predicted = np.array(classes)[true], np.array(classes)[probabilities.argmax(axis=1)]
    return y, predicted, probabilities, classes


def one_fold(y, predicted, probabilities, classes, units=None):
    units = np.arange(len(y)) if units is None else units
    predictions = encode_predictions(y, predicted, probabilities, classes)
    return FoldRows(predictions, np.zeros(len(y), dtype=int), 1, units, int(units.max()) + 1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6))
def test_influence_is_the_derivative_of_the_score_by_the_weight_of_a_row(seed):
    tested = one_fold(*sample(seed))
    n, step = tested.n_units, 1e-6
    for name in metric_names(tested.n_classes):
        of_weights = statistic(name, tested.predictions, tested.units, n)
        up, down = (of_weights(np.ones((n, n)) + sign * step * np.eye(n)) for sign in (1, -1))
        assert influence(name, tested) == pytest.approx((up - down) / (2 * step), abs=1e-6), name


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4))
def test_over_folds_of_the_same_predictions_each_copy_has_its_part(seed, k):
    once = one_fold(*sample(seed))
    n = once.n_units
    y, predicted, probabilities, classes = sample(seed)
    predictions = encode_predictions(np.tile(y, k), np.tile(predicted, k), np.tile(probabilities, (k, 1)), classes)
    tested = FoldRows(predictions, np.repeat(np.arange(k), n), k, np.tile(np.arange(n), k), n)
    for name in metric_names(once.n_classes):
        assert influence(name, tested) == pytest.approx(np.tile(influence(name, once), k) / k), name
        assert mistakes(name, tested) == pytest.approx(mistakes(name, once))


def test_accuracy_has_the_binomial_variance():
    y, predicted, probabilities, classes = sample(3, n=50)
    share = np.mean(y == predicted)
    assert np.sum(influence("accuracy", one_fold(y, predicted, probabilities, classes)) ** 2) == pytest.approx(
        share * (1 - share) / 50
    )


def test_roc_auc_has_the_variance_of_delong_delong_and_clarke_pearson():
    y, predicted, probabilities, classes = sample(4, n=60, n_classes=2)
    scores = probabilities[:, 1]
    positive, negative = scores[y == "bee"], scores[y == "ant"]
    pairs = np.array([[float(p > q) + 0.5 * (p == q) for q in negative] for p in positive])
    expected = np.var(pairs.mean(axis=1)) / len(positive) + np.var(pairs.mean(axis=0)) / len(negative)
    found = influence("roc_auc", one_fold(y, predicted, probabilities, classes))
    assert np.sum(found**2) == pytest.approx(expected)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_influences_add_up_to_nothing_and_are_none_where_a_fold_is_undefined(seed):
    y, predicted, probabilities, classes = sample(seed, n_classes=2)
    n = len(y)
    lonely = np.flatnonzero(y == y[0])[:2]  # a fold of one class: no ROC curve
    folds = np.zeros(n, dtype=int)
    folds[lonely] = 1
    tested = FoldRows(encode_predictions(y, predicted, probabilities, classes), folds, 2, np.arange(n), n)
    for name in metric_names(2):
        assert np.sum(influence(name, tested)) == pytest.approx(0, abs=1e-12)
    if np.all(np.isin(classes, y[folds == 0])):
        rest = one_fold(*(part[folds == 0] for part in (y, predicted, probabilities)), classes)
        assert influence("roc_auc", tested)[folds == 0] == pytest.approx(influence("roc_auc", rest))
    assert not influence("roc_auc", tested)[folds == 1].any()


def test_a_unit_that_goes_wrong_costs_what_the_score_loses():
    y, _, probabilities, classes = sample(5, n=30, n_classes=3)
    tested = one_fold(y, y, probabilities, classes)
    right = score_predictions(y, y, None, classes)
    for code, name in enumerate(classes):
        other = np.array(y)
        other[np.flatnonzero(y == name)[0]] = classes[code - 1]
        lost = right["balanced_accuracy"] - score_predictions(y, other, None, classes)["balanced_accuracy"]
        assert mistakes("balanced_accuracy", tested)[code] == pytest.approx(lost)
    assert mistakes("accuracy", tested) == pytest.approx([1 / 30])
    by_pairs = one_fold(y, y, probabilities, classes, np.arange(30) // 2)
    assert mistakes("accuracy", by_pairs) == pytest.approx([1 / 15])


def test_the_log_loss_lies_between_none_and_that_of_the_least_probable_class():
    y, predicted, probabilities, classes = sample(6, n=40)
    predictions = encode_predictions(y, predicted, probabilities, classes)
    assert lowest_log_gain(predictions) == pytest.approx(np.log(probabilities.min(axis=1)).mean())
    assert lowest_log_gain(predictions) <= log_gain(predictions).mean() <= 0
    without = encode_predictions(y, predicted, None, classes)
    assert (lowest_log_gain(without), log_gain(without).any()) == (0.0, False)
