"""The account of an evaluation on labels, against scikit-learn and slow arithmetic."""

import numpy as np
import pytest
from sklearn import metrics

from featx.learn.multilabel.folds import make_label_folds
from featx.learn.multilabel.labels import LabelTable
from featx.learn.multilabel.metrics import LABEL_SCORES, average_precision, chance_precision
from featx.learn.multilabel.scores import (
    LabelRows,
    compare_label_rows,
    evaluate_label_folds,
    evaluate_label_part,
    guess_labels,
    label_rows,
)
from featx.learn.scores import FoldPredictions

NAMES = ["a", "b", "c"]


def said(n=60, seed=0, signal=2.0):
    rng = np.random.default_rng(seed)
    marks = rng.random((n, 3)) < [0.5, 0.3, 0.2]
    scores = signal * marks + rng.normal(size=marks.shape)
    return LabelTable(NAMES, marks), scores > 1, scores


def folded(groups=None, seed=0, signal=2.0, n_repeats=1):
    table, called, scores = said(seed=seed, signal=signal)
    folds = make_label_folds(table, groups, n_splits=4, n_repeats=n_repeats)
    return table, [FoldPredictions(fold, called[fold.test], scores[fold.test]) for fold in folds]


def test_scores_of_a_part_are_scikit_learns_and_lie_in_their_intervals():
    table, called, scores = said()
    found = evaluate_label_part(table, called, scores)
    true = table.marks.astype(int)
    expected = {
        "average_precision_macro": metrics.average_precision_score(true, scores),
        "roc_auc_macro": metrics.roc_auc_score(true, scores),
        "f1_macro": metrics.f1_score(true, called, average="macro"),
        "f1_micro": metrics.f1_score(true, called, average="micro"),
        "label_accuracy": 1 - metrics.hamming_loss(true, called),
        "exact_match": metrics.accuracy_score(true, called),
    }
    assert list(expected) == list(LABEL_SCORES)
    for name, value in expected.items():
        interval = found.scores[name]
        assert interval.mean == pytest.approx(value)
        assert interval.low < value < interval.high
    assert found.scores["exact_match"].method == "Wilson (60 samples)"
    for k, one in enumerate(found.per_label):
        assert one.support == true[:, k].sum()
        assert one.average_precision == pytest.approx(metrics.average_precision_score(true[:, k], scores[:, k]))
        assert one.precision == pytest.approx(metrics.precision_score(true[:, k], called[:, k]))
        assert one.recall == pytest.approx(metrics.recall_score(true[:, k], called[:, k]))
        assert one.f1 == pytest.approx(metrics.f1_score(true[:, k], called[:, k]))


def test_scores_of_folds_are_the_means_of_those_of_each():
    table, parts = folded(n_repeats=2)
    found = evaluate_label_folds(table, parts)
    values = [
        metrics.average_precision_score(table.marks[part.fold.test].astype(int), part.probabilities) for part in parts
    ]
    interval = found.scores["average_precision_macro"]
    assert interval.folds == pytest.approx(values)
    assert interval.mean == pytest.approx(np.mean(values))
    assert (found.n_samples, found.n_repeats) == (60, 2)
    assert [one.support for one in found.per_label] == table.marks.sum(axis=0).tolist()


def test_copies_in_one_group_make_intervals_no_narrower():
    table, called, scores = said(40)
    twice = LabelTable(NAMES, np.repeat(table.marks, 3, axis=0))
    copies = [np.repeat(each, 3, axis=0) for each in (called, scores)]
    one = evaluate_label_part(table, called, scores, groups=np.arange(40))
    three = evaluate_label_part(twice, *copies, groups=np.repeat(np.arange(40), 3))
    for name in LABEL_SCORES:
        if name != "exact_match":  # which has Wilson's own interval where samples are independent
            assert three.scores[name].low == pytest.approx(one.scores[name].low, abs=0.02)
            assert three.scores[name].high == pytest.approx(one.scores[name].high, abs=0.02)


def test_the_kind_of_a_unit_is_its_rarest_label():
    table, parts = folded()
    rows = label_rows(table.marks, parts, np.arange(60) // 2)
    assert set(rows.strata()) <= {0, 1, 2, 3}
    own = LabelRows(rows.predictions, rows.folds, rows.units, rows.n_units)
    rarest = int(np.argmin(rows.predictions.true.sum(axis=0)))
    for unit in range(rows.n_units):
        has = rows.predictions.true[rows.units == unit, rarest].any()
        assert (own.strata()[unit] == 0) == has


def test_chance_is_the_mean_precision_of_random_orders():
    rng = np.random.default_rng(0)
    own = np.arange(12) < 4
    drawn = np.mean([average_precision(own, rng.random(12)) for _ in range(5_000)])
    assert chance_precision(own) == pytest.approx(drawn, abs=0.01)
    assert chance_precision(np.ones(5, dtype=bool)) == pytest.approx(1)
    assert np.isnan(chance_precision(np.zeros(5, dtype=bool)))


def test_guessing_is_the_best_answer_that_is_the_same_for_all():
    train = np.array([[1, 0, 0]] * 6 + [[1, 1, 1]] * 4, dtype=bool)
    true = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 1]], dtype=bool)
    found = guess_labels(train, true)
    assert found["exact_match"] == pytest.approx(1 / 3)  # {a}, the most frequent set
    assert found["label_accuracy"] == pytest.approx(5 / 9)  # a alone
    assert found["f1_macro"] == pytest.approx(np.mean([4 / 5, 4 / 5, 1 / 2]))  # all of them
    assert found["roc_auc_macro"] == pytest.approx(0.5)


def test_noise_is_a_tie_with_guessing_and_signal_is_not():
    table, parts = folded(signal=2.0)
    better = label_rows(table.marks, parts, None)
    _, noise = folded(signal=0.0)
    worse = label_rows(table.marks, noise, None)
    found = compare_label_rows(("one", "two"), better, worse, "average_precision_macro", n_repeats=1)
    assert found.difference > 0
    assert not found.is_tie
    assert compare_label_rows(("one", "two"), worse, worse, "f1_macro", n_repeats=1).is_tie


def test_a_part_with_none_of_the_known_labels_has_scores_without_an_interval_where_nothing_is_counted():
    n, names = 6, ["fox", "snow"]
    called = np.arange(2 * n).reshape(n, 2) % 3 == 0
    found = evaluate_label_part(
        LabelTable(names, np.zeros((n, 2), dtype=bool)), called, np.where(called, 0.9, 0.1), unknown=["wolf"]
    )
    assert found.scores["f1_macro"].low is None
    assert "nothing of what it counts" in found.scores["f1_macro"].method
    assert found.scores["label_accuracy"].low < found.scores["label_accuracy"].mean
