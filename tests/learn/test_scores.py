"""Scores and accounts of evaluations, against scikit-learn and by hand."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

from featx.errors import UnknownNameError, UsageError
from featx.learn.by_group import by_group, by_group_folds
from featx.learn.intervals import wilson_interval
from featx.learn.metrics import (
    METRICS,
    encode_predictions,
    metric_names,
    score_predictions,
    scoring_value,
    statistic,
)
from featx.learn.scores import FoldPredictions, check_positive, evaluate_fixed, evaluate_folds
from featx.learn.splits import Fold, make_folds

NAMES = ["ant", "bee", "cricket", "dragonfly", "earwig"]


def sample(seed, *, n_classes=None, n=None):
    """Random labels (some classes may be missing), predictions and probabilities, with ties among them."""
    r = np.random.default_rng(seed)
    n_classes = n_classes or int(r.integers(2, 6))
    n = n or int(r.integers(1, 40))
    y = np.array(NAMES[:n_classes])[r.integers(0, n_classes, n)]
    weights = r.integers(1, 6, (n, n_classes)).astype(float)
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    return y, np.array(NAMES)[probabilities.argmax(axis=1)], probabilities, NAMES[:n_classes]


def reference(y, predicted, probabilities, classes):
    """The five scores by scikit-learn, None where it has none to give."""
    auc = None
    if set(y) == set(classes):
        if len(classes) == 2:
            auc = sk.roc_auc_score(y == classes[1], probabilities[:, 1])
        else:
            auc = sk.roc_auc_score(y, probabilities, multi_class="ovr", average="macro", labels=classes)
    return {
        "balanced_accuracy": np.mean([np.mean(predicted[y == name] == name) for name in set(y)]),
        "accuracy": sk.accuracy_score(y, predicted),
        "f1_macro": sk.f1_score(y, predicted, average="macro", zero_division=0),
        "roc_auc" if len(classes) == 2 else "roc_auc_ovr": auc,
        "neg_log_loss": -sk.log_loss(y, probabilities, labels=classes),
    }


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 10**6))
def test_the_five_scores_equal_scikit_learns(seed):
    y, predicted, probabilities, classes = sample(seed)
    ours, theirs = (
        score_predictions(y, predicted, probabilities, classes),
        reference(y, predicted, probabilities, classes),
    )
    assert list(ours) == list(theirs) == list(metric_names(len(classes)))
    for name, value in theirs.items():
        assert ours[name] == (None if value is None else pytest.approx(value, abs=1e-12)), name
        assert scoring_value(name, y, predicted, probabilities, classes) == ours[name]


def test_balanced_accuracy_equals_scikit_learns_where_it_does_not_warn():
    y, predicted, probabilities, classes = sample(4, n_classes=4, n=200)
    expected = sk.balanced_accuracy_score(y, predicted)
    assert score_predictions(y, predicted, probabilities, classes)["balanced_accuracy"] == pytest.approx(expected)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_count_of_a_unit_is_that_many_copies_of_its_samples(seed):
    y, predicted, probabilities, classes = sample(seed)
    r = np.random.default_rng(seed)
    units = r.integers(0, 5, len(y))
    counts = r.integers(0, 3, (5, 4))
    predictions = encode_predictions(y, predicted, probabilities, classes)
    for name in metric_names(len(classes)):
        values = statistic(name, predictions, units, 5)(counts.astype(float))
        for value, column in zip(values, counts.T, strict=True):
            rows = np.repeat(np.arange(len(y)), column[units])
            copied = score_predictions(y[rows], predicted[rows], probabilities[rows], classes)[name]
            assert value == pytest.approx(np.nan if copied is None else copied, nan_ok=True, abs=1e-12)


def test_scores_by_hand():
    # Positive scores .9 .4, negative .4 .1: of four pairs 3 are in order and one is a tie.
    y, predicted = ["b", "b", "a", "a"], ["b", "a", "a", "a"]
    p = np.array([0.9, 0.4, 0.4, 0.1])
    scores = score_predictions(y, predicted, np.stack([1 - p, p], axis=1), ["a", "b"])
    assert scores == pytest.approx(
        {
            "balanced_accuracy": 0.75,
            "accuracy": 0.75,
            "f1_macro": (4 / 5 + 2 / 3) / 2,
            "roc_auc": 3.5 / 4,
            "neg_log_loss": np.log(0.9 * 0.4 * 0.6 * 0.9) / 4,
        }
    )


def test_decision_values_will_do_for_roc_auc():
    y, predicted, probabilities, classes = sample(1, n_classes=2, n=30)
    decisions = np.log(probabilities[:, 1] / probabilities[:, 0])
    expected = scoring_value("roc_auc", y, predicted, probabilities, classes)
    assert scoring_value("roc_auc", y, predicted, decisions, classes) == expected
    y, predicted, probabilities, classes = sample(1, n_classes=4, n=60)
    expected = sk.roc_auc_score(y, probabilities, multi_class="ovr")
    assert scoring_value("roc_auc", y, predicted, 7 * probabilities - 3, classes) == pytest.approx(expected)


def test_what_is_undefined_is_none():
    without = score_predictions(["a", "b"], ["a", "a"], None, ["a", "b"])
    assert (without["roc_auc"], without["neg_log_loss"]) == (None, None)
    assert score_predictions(["a", "a"], ["a", "b"], np.full((2, 2), 0.5), ["a", "b"])["roc_auc"] is None
    assert set(score_predictions([], [], np.empty((0, 2)), ["a", "b"]).values()) == {None}


def test_an_unknown_scoring_lists_close_matches():
    with pytest.raises(UnknownNameError, match="balanced_accuracy"):
        scoring_value("balanced_acuracy", ["a"], ["a"], None, ["a", "b"])


# ---- a fixed part


def test_a_fixed_part_is_accounted_for_by_hand():
    y = np.array(["bee", "bee", "bee", "ant", "ant"])
    predicted = np.array(["bee", "bee", "ant", "ant", "bee"])
    result = evaluate_fixed(y, predicted, None, ["ant", "bee"], y_train=["ant", "ant", "bee"])
    assert result.confusion == [[1, 1], [1, 2]]
    bee = result.per_class[1]
    assert (bee.name, bee.precision, bee.recall, bee.f1, bee.support) == ("bee", 2 / 3, 2 / 3, 2 / 3, 3)
    assert result.binary.positive == "bee"
    assert result.binary.sensitivity == wilson_interval(2, 3)
    assert result.binary.specificity == wilson_interval(1, 2)
    assert result.binary.ppv == wilson_interval(2, 3)
    assert result.binary.npv == wilson_interval(1, 2)
    assert result.scores["accuracy"] == wilson_interval(3, 5)
    assert result.scores["balanced_accuracy"].method == "Wilson at the effective sample size (5 samples)"
    assert result.estimand == "the score of this one classifier on new samples like these"
    assert result.scores["roc_auc"].mean is None
    assert result.baseline.majority == "ant"
    assert result.baseline.scores["accuracy"] == 2 / 5
    assert result.n_samples == 5


def test_the_positive_class_can_be_chosen_and_swaps_the_four_proportions():
    y, predicted, probabilities, classes = sample(3, n_classes=2, n=50)
    second, first = (
        evaluate_fixed(y, predicted, probabilities, classes, positive=name).binary for name in (None, "ant")
    )
    assert (second.positive, first.positive) == ("bee", "ant")
    assert (second.sensitivity, second.ppv) == (first.specificity, first.npv)


def test_a_positive_class_that_cannot_be_is_refused():
    check_positive(None, ["a", "b", "c"])
    check_positive("a", ["a", "b"])
    with pytest.raises(UsageError, match="exactly two classes; there are 3"):
        check_positive("a", ["a", "b", "c"])
    with pytest.raises(UnknownNameError, match="'ab'"):
        check_positive("ab", ["a", "b"])


def test_proportions_without_a_denominator_are_none():
    result = evaluate_fixed(["ant", "ant"], ["ant", "ant"], None, ["ant", "bee"])
    assert (result.binary.sensitivity.mean, result.binary.ppv.mean) == (None, None)
    assert result.binary.specificity.mean == 1
    bee = result.per_class[1]
    assert (bee.precision, bee.recall, bee.f1, bee.support) == (None, None, None, 0)


def test_accuracy_of_grouped_samples_is_as_sure_as_the_groups_are_and_so_are_the_other_scores():
    y, predicted, probabilities, classes = sample(5, n_classes=3, n=80)
    groups = np.arange(80) // 4
    result = evaluate_fixed(y, predicted, probabilities, classes, groups=groups)
    assert {interval.method for interval in result.scores.values()} == {
        "Wilson at the effective sample size (20 groups)"
    }
    assert result.scores["accuracy"].mean == np.mean(y == predicted)
    singles = evaluate_fixed(y, predicted, probabilities, classes, groups=np.arange(80))
    assert singles == evaluate_fixed(y, predicted, probabilities, classes)
    assert singles.scores["accuracy"].method == "Wilson (80 samples)"


@pytest.mark.parametrize("n_known", [2, 3])
def test_a_class_that_training_lacks_is_named_always_wrong_and_has_a_finite_log_loss(n_known):
    known = NAMES[1 : 1 + n_known]
    y, _, probabilities, _ = sample(6, n_classes=n_known, n=30)
    y = np.array([{NAMES[i]: known[i] for i in range(n_known)}[name] for name in y])
    y[:3] = "ant"
    predicted = np.array(known)[probabilities.argmax(axis=1)]
    result = evaluate_fixed(y, predicted, probabilities, known, y_train=known)
    assert result.unseen == ["ant"]
    assert result.classes == [*known, "ant"]
    assert result.per_class[-1].recall == 0
    assert result.binary is None
    assert result.scores["accuracy"].mean == np.mean(y == predicted)
    padded = np.pad(probabilities, ((0, 0), (1, 0)))
    assert result.scores["neg_log_loss"].mean == pytest.approx(-sk.log_loss(y, padded, labels=["ant", *known]))
    assert result.scores["roc_auc_ovr"].mean == pytest.approx(sk.roc_auc_score(y, padded, multi_class="ovr"))


# ---- cross-validation


def cross_validated(seed, *, n_classes=3, n=60, n_repeats=1, groups=None):
    y, _, _, classes = sample(seed, n_classes=n_classes, n=n)
    r = np.random.default_rng(seed)
    parts = []
    for fold in make_folds(y, groups, n_splits=4, n_repeats=n_repeats):
        probabilities = r.dirichlet(np.ones(n_classes), len(fold.test))
        parts.append(FoldPredictions(fold, np.array(classes)[probabilities.argmax(axis=1)], probabilities))
    return y, parts, classes


@pytest.mark.parametrize("n_classes", [2, 3])
def test_cross_validation_is_scored_fold_by_fold_and_guessing_beside_it(n_classes):
    y, parts, classes = cross_validated(0, n_classes=n_classes, n_repeats=2)
    result = evaluate_folds(y, parts, classes)
    assert list(result.scores) == list(metric_names(n_classes))
    for name, interval in result.scores.items():
        expected = [reference(y[p.fold.test], p.predicted, p.probabilities, classes)[name] for p in parts]
        assert interval.folds == pytest.approx(expected)
        assert interval.mean == pytest.approx(np.mean(expected))
        assert interval.method == "Wilson at the effective sample size (60 samples in 4 folds x 2 repeats)"
        guesses, majorities = [], set()
        for part in parts:
            X = np.zeros((len(y), 1))
            dummy = DummyClassifier(strategy="prior").fit(X[part.fold.train], y[part.fold.train])
            majorities |= set(dummy.predict(X))
            test = part.fold.test
            guesses.append(reference(y[test], dummy.predict(X[test]), dummy.predict_proba(X[test]), classes)[name])
        assert result.baseline.scores[name] == pytest.approx(np.mean(guesses))
    assert result.baseline.majority == ", ".join(sorted(majorities))
    assert "learns from as many samples as in a fold (45)" in result.estimand


def test_confusion_and_per_class_pool_all_repeats_and_support_counts_samples():
    y, parts, classes = cross_validated(1, n_repeats=3)
    result = evaluate_folds(y, parts, classes)
    true = np.concatenate([y[part.fold.test] for part in parts])
    predicted = np.concatenate([part.predicted for part in parts])
    assert result.confusion == sk.confusion_matrix(true, predicted).tolist()
    precision, recall, f1, support = sk.precision_recall_fscore_support(true, predicted)
    for number, one in enumerate(result.per_class):
        assert (one.precision, one.recall, one.f1) == pytest.approx((precision[number], recall[number], f1[number]))
        assert one.support * 3 == support[number]
    assert (result.n_samples, result.n_repeats, result.binary) == (60, 3, None)


def test_binary_proportions_of_cross_validation_count_each_sample_once():
    y, parts, classes = cross_validated(2, n_classes=2, n_repeats=3)
    result = evaluate_folds(y, parts, classes, positive="ant")
    right = sum(np.sum((y[part.fold.test] == "ant") & (part.predicted == "ant")) for part in parts)
    sensitivity, n = result.binary.sensitivity, np.sum(y == "ant")
    careless, half = wilson_interval(right / 3, n), wilson_interval(right / 6, n / 2)
    assert sensitivity.mean == careless.mean
    assert half.low <= sensitivity.low < careless.low
    assert careless.high < sensitivity.high <= half.high
    assert sensitivity.method == f"Wilson at the effective sample size ({n} samples, out of fold)"
    groups = np.arange(60) // 2
    y, parts, classes = cross_validated(2, n_classes=2, n_repeats=3, groups=groups)
    grouped = evaluate_folds(y, parts, classes, groups=groups).binary
    assert grouped.specificity.method.startswith("Wilson at the effective sample size (")
    assert grouped.specificity.method.endswith(" groups)")


def test_a_single_prescribed_fold_has_scores_without_intervals():
    fold = Fold(0, 0, np.array([0, 1, 2, 3]), np.array([4, 5]), "x")
    result = evaluate_folds(list("ababab"), [FoldPredictions(fold, np.array(["a", "a"]), None)], ["a", "b"])
    accuracy = result.scores["accuracy"]
    assert (accuracy.mean, accuracy.low, accuracy.folds) == (0.5, None, [0.5])


# ---- by group


def test_patients_are_called_by_their_mean_probability_and_mixed_ones_left_out():
    y = ["b", "b", "a", "a", "b", "a"]
    p = np.array([0.9, 0.3, 0.6, 0.1, 0.9, 0.2])
    groups = np.array([7, 7, 3, 3, 5, 5])
    result = by_group(y, np.stack([1 - p, p], axis=1), groups, ["a", "b"])
    assert result.mixed == [5]
    assert result.n_groups == result.evaluation.n_samples == 2
    assert result.evaluation.confusion == [[1, 0], [0, 1]]
    expected = np.log(0.6 * 0.65) / 2
    assert result.evaluation.scores["neg_log_loss"].mean == pytest.approx(expected)
    assert result.evaluation.baseline is None
    assert result.to_dict()["n_mixed"] == 1


def test_groups_of_one_sample_score_as_the_samples_do():
    y, parts, classes = cross_validated(3)
    assert by_group_folds(y, parts, np.arange(60), classes).evaluation == evaluate_folds(
        y, parts, classes, unit="groups"
    )
    y, predicted, probabilities, classes = sample(3, n_classes=3, n=40)
    by_hand = evaluate_fixed(y, predicted, probabilities, classes, y_train=y, unit="groups")
    assert by_hand.scores["accuracy"].method == "Wilson (40 groups)"
    groups = np.arange(40)
    grouped = by_group(y, probabilities, groups, classes, y_train=y, groups_train=groups)
    assert grouped.evaluation == by_hand


def test_patients_of_a_cross_validation_are_scored_in_the_fold_that_tests_them():
    groups = np.arange(60) // 3
    y = np.repeat(np.array(NAMES[:2])[np.random.default_rng(0).integers(0, 2, 20)], 3)
    y[0] = "ant" if y[1] == "bee" else "bee"
    parts = []
    for fold in make_folds(y, groups, n_splits=4):
        probabilities = np.random.default_rng(fold.number).dirichlet([1, 1], len(fold.test))
        parts.append(FoldPredictions(fold, np.array(NAMES)[probabilities.argmax(axis=1)], probabilities))
    result = by_group_folds(y, parts, groups, NAMES[:2])
    assert (result.n_groups, result.mixed) == (19, [0])
    for part, accuracy in zip(parts, result.evaluation.scores["accuracy"].folds, strict=True):
        right = []
        for group in set(groups[part.fold.test]) - {0}:
            mean = part.probabilities[groups[part.fold.test] == group].mean(axis=0)
            right.append(NAMES[mean.argmax()] == y[groups == group][0])
        assert accuracy == np.mean(right)


def test_a_fold_with_nothing_but_mixed_patients_is_undefined_not_a_crash():
    y = list("abababab")
    groups = np.array([0, 0, 1, 2, 3, 4, 5, 6])
    parts = [
        FoldPredictions(fold, np.array(["a"] * len(fold.test)), np.full((len(fold.test), 2), 0.5))
        for fold in make_folds(y, groups, n_splits=2, prescribed=["x", "x", *"yyyyyy"])
    ]
    folds = by_group_folds(y, parts, groups, ["a", "b"]).evaluation.scores["accuracy"].folds
    assert folds == [None, 0.5]


def test_by_group_needs_probabilities():
    y, parts, classes = cross_validated(3)
    bare = [FoldPredictions(part.fold, part.predicted, None) for part in parts]
    with pytest.raises(ValueError, match="mean probabilities"):
        by_group_folds(y, bare, np.arange(60), classes)


# ---- JSON


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6))
def test_an_account_is_plain_json_without_nan_however_odd_the_part(seed):
    r = np.random.default_rng(seed)
    y, predicted, probabilities, classes = sample(seed)
    groups = None if seed % 2 else r.integers(0, 3, len(y))
    result = evaluate_fixed(y, predicted, probabilities, classes, groups=groups, y_train=y)
    read = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert set(read["scores"]["accuracy"]) == {"mean", "low", "high", "folds", "method"}
    assert read["confusion"] == sk.confusion_matrix(y, predicted, labels=classes).tolist()
    assert read["n_samples"] == len(y)


def test_metrics_are_listed_in_the_order_in_which_they_are_shown():
    assert METRICS == ("balanced_accuracy", "accuracy", "f1_macro", "roc_auc", "neg_log_loss")
    assert metric_names(3)[3] == "roc_auc_ovr"
