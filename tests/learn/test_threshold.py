import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, f1_score, make_scorer
from sklearn.model_selection import FixedThresholdClassifier, TunedThresholdClassifierCV
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.errors import LabelsError, UsageError
from featx.learn.threshold import Rule, Threshold, Thresholds, check_two_classes, choose_threshold
from featx.learn.thresholded import Thresholded

BOTH = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.7, 0.999, 1.0]) | st.floats(0, 1), st.booleans()),
    min_size=2,
    max_size=40,
).filter(lambda rows: {positive for _, positive in rows} == {True, False})


def choose(rule, rows):
    probabilities, is_positive = (np.array(column) for column in zip(*rows, strict=True))
    return choose_threshold(Rule.read(rule), probabilities, is_positive, "yes"), probabilities, is_positive


def every_cut(probabilities):
    """Ways to call some samples: each by a threshold that is one of the probabilities, or above all."""
    return [probabilities >= cut for cut in [*np.unique(probabilities), np.inf]]


def balanced_accuracy(is_positive, called):
    return (called[is_positive].mean() + (~called[~is_positive]).mean()) / 2


def f1(is_positive, called):
    return 2 * (called & is_positive).sum() / (called.sum() + is_positive.sum())


@settings(deadline=None)
@given(BOTH)
@pytest.mark.parametrize("score", [balanced_accuracy, f1])
def test_no_other_threshold_is_better(score, rows):
    found, probabilities, is_positive = choose(score.__name__, rows)
    called = probabilities >= found.value
    nobody = [] if probabilities.max() == 1 else [probabilities > 1]  # nothing is above a certainty
    others = [score(is_positive, probabilities >= cut) for cut in probabilities] + [
        score(is_positive, o) for o in nobody
    ]
    assert score(is_positive, called) == pytest.approx(max(others))
    assert found.sensitivity == pytest.approx(called[is_positive].mean())
    assert found.specificity == pytest.approx(1 - called[~is_positive].mean())
    assert 0 <= found.value <= 1


@settings(deadline=None)
@given(BOTH, st.sampled_from([0.3, 0.5, 0.8, 0.95]))
def test_the_largest_threshold_that_promises_a_sensitivity(rows, level):
    found, probabilities, is_positive = choose(f"sensitivity={level}", rows)
    n = int(is_positive.sum())
    caught = int((probabilities[is_positive] >= found.value).sum())
    promised = [int(called[is_positive].sum()) / (n + 1) for called in every_cut(probabilities)]
    if max(promised) < level - 1e-9:
        assert caught == n
        assert f"there are {n}" in found.note
        assert f"takes {math.ceil(round(level / (1 - level), 9))} positive" in found.note
    else:
        assert caught / (n + 1) >= level - 1e-9
        assert found.sensitivity >= level
        calls = int((probabilities >= found.value).sum())
        enough = [
            int(called.sum())
            for called, share in zip(every_cut(probabilities), promised, strict=True)
            if share >= level - 1e-9
        ]
        assert calls == min(enough)
        assert ("calls every" in found.note) == (found.specificity == 0)


@settings(deadline=None)
@given(BOTH, st.sampled_from([0.3, 0.5, 0.8, 0.95]))
def test_a_specificity_is_the_sensitivity_of_the_other_class(rows, level):
    found, probabilities, _ = choose(f"specificity={level}", rows)
    if probabilities.max() == 1.0:
        return  # nothing is above a certainty
    other, mirrored, _ = choose(f"sensitivity={level}", [(1 - p, not positive) for p, positive in rows])
    if len(np.unique(mirrored)) == len(np.unique(probabilities)):
        assert found.specificity == other.sensitivity
        assert found.sensitivity == other.specificity


def test_a_specificity_that_no_threshold_reaches_is_told():
    rows = [(1.0, True)] * 5 + [(1.0, False)] * 5 + [(0.2, False)] * 15
    found, *_ = choose("specificity=0.9", rows)
    assert found.specificity == 0.75
    assert "No threshold reaches a specificity of 0.9" in found.note
    assert "with 0.750" in found.note
    nobody, *_ = choose("specificity=0.9", [(0.1, True)] * 3 + [(0.9, False)] * 30)
    assert nobody.sensitivity == 0
    assert nobody.note == "It calls no out-of-fold sample positive."
    few, *_ = choose("specificity=0.95", [(0.1, True)] * 3 + [(0.9, False)] * 5)
    assert "No threshold can promise a specificity of 0.95" in few.note
    assert "It calls no out-of-fold sample positive." in few.note


def test_a_threshold_is_half_way_between_neighbours_and_ties_stay_together():
    found, *_ = choose("balanced_accuracy", [(0.1, False), (0.2, False), (0.2, False), (0.4, True), (0.8, True)])
    assert found.value == pytest.approx(0.3)
    assert choose("sensitivity=0.5", [(0.3, True)] * 4 + [(0.3, False)] * 4)[0].value == pytest.approx(0.15)
    assert choose("specificity=0.5", [(0.3, True)] * 4 + [(0.3, False)] * 4)[0].value == pytest.approx(0.65)


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken():
    # Any cut between two positives and after a negative: 0.25 and 0.75 both give 0.75.
    rows = [(0.1, False), (0.4, True), (0.6, False), (0.9, True)]
    assert choose("balanced_accuracy", rows)[0].value == pytest.approx(0.25)
    assert choose("balanced_accuracy", [(1 - p, not one) for p, one in rows])[0].value == pytest.approx(0.25)


def test_two_neighbouring_numbers_are_told_apart():
    low = 0.7
    high = np.nextafter(low, 1)
    found, *_ = choose("balanced_accuracy", [(low, False), (high, True)])
    assert low < found.value <= high


class FirstColumn(ClassifierMixin, BaseEstimator):
    """Its probability of the second class is the first feature."""

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        return np.stack([1 - X[:, 0], X[:, 0]], axis=1)

    def predict(self, X):
        return self.classes_[(X[:, 0] > 0.5).astype(int)]


@pytest.mark.parametrize("rule", ["balanced_accuracy", "f1"])
def test_scikit_learn_finds_an_equally_good_one_on_the_same_samples(rule):
    rng = np.random.default_rng(3)
    y = np.array(["no", "yes"])[(rng.random(90) < 0.2).astype(int)]
    p = np.clip(0.2 * (y == "yes") + 0.3 * rng.random(90), 0, 1)
    scorer = make_scorer(f1_score, pos_label="yes") if rule == "f1" else "balanced_accuracy"
    grid = np.concatenate([np.unique(p), [1.0]])
    tuned = TunedThresholdClassifierCV(
        FrozenEstimator(FirstColumn().fit(p[:, None], y)), scoring=scorer, thresholds=grid, cv="prefit", refit=False
    ).fit(p[:, None], y)
    found = choose_threshold(Rule.read(rule), p, y == "yes", "yes")
    called = found.decide(np.stack([1 - p, p], axis=1), ["no", "yes"])
    score = f1_score(y, called, pos_label="yes") if rule == "f1" else balanced_accuracy_score(y, called)
    assert score == pytest.approx(tuned.best_score_)
    np.testing.assert_array_equal(called, tuned.predict(p[:, None]))  # no ties in these


def test_it_decides_as_scikit_learns_fixed_threshold():
    rng = np.random.default_rng(0)
    X = np.round(rng.random((50, 1)), 1)
    y = np.array(["a", "b"])[rng.integers(0, 2, 50)]
    model = FirstColumn().fit(X, y)
    for positive in ("a", "b"):
        fixed = FixedThresholdClassifier(FrozenEstimator(model), threshold=0.3, pos_label=positive).fit(X, y)
        mine = Threshold(positive, 0.3).decide(model.predict_proba(X), model.classes_)
        np.testing.assert_array_equal(mine, fixed.predict(X))


@pytest.mark.parametrize(
    "text", ["sensitivity=1", "sensitivity=0", "recall=0.5", "1.5", "0", "best", "", "f1=0.5", "nan"]
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UsageError, match="--threshold"):
        Rule.read(text)


@pytest.mark.parametrize("text", ["balanced_accuracy", "f1", "sensitivity=0.95", "specificity=0.9", "0.3"])
def test_a_rule_says_what_it_was_read_from(text):
    assert str(Rule.read(text)) == text


def test_none_is_the_heads_own_decision():
    assert Rule.read("none") is None
    check_two_classes(None, ["a", "b", "c"])
    with pytest.raises(UsageError, match="there are 3: a, b, c"):
        check_two_classes(Rule("f1"), ["a", "b", "c"])


def test_samples_of_one_class_choose_nothing():
    with pytest.raises(LabelsError, match="none of the positive class"):
        choose_threshold(Rule("f1"), np.array([0.1, 0.2]), np.array([False, False]), "yes")


def test_the_notes_name_the_folds():
    good, bad = Threshold("yes", 0.5), Threshold("yes", 0.2, note="too few.")
    assert Thresholds("f1", good, [("1", good)]).notes == []
    told = Thresholds("sensitivity=0.9", bad, [("1", bad), ("2", good), ("3", bad)]).notes
    assert told[0] == "--threshold sensitivity=0.9: too few."
    assert "2 of 3 folds (1, 3)" in told[1]
    assert Thresholds("f1", good, [("1", bad)]).notes[0].startswith("--threshold f1 was not met in 1 of 1 folds")


def test_a_wanted_sensitivity_is_that_of_new_samples_on_average():
    rng = np.random.default_rng(5)
    n, draws = 40, 2000
    known, new = rng.random((draws, n)), rng.random((draws, 1))
    negatives = 0.01 * rng.random(5)
    caught = 0
    for row, one in zip(known, new, strict=True):
        p = np.concatenate([row, negatives])
        caught += one[0] >= choose_threshold(Rule("sensitivity", 0.9), p, np.arange(len(p)) < n, "yes").value
    # ceil(0.9 * 41) = 37 of 41; half a gap below the 37th, another 0.5 / 41.
    assert caught / draws == pytest.approx(37.5 / 41, abs=0.02)


# The estimator


def two_blobs(n=120, seed=0):
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 6 == 0, "rare", "usual")
    return rng.normal(size=(n, 4)) + (y == "rare")[:, None], y, np.arange(n) // 6 % 4


def test_the_threshold_is_that_of_the_out_of_fold_probabilities_of_the_given_folds():
    X, y, folds = two_blobs()
    model = Thresholded(LogisticRegression(), "sensitivity=0.8", "rare", folds).fit(X, y)
    p = np.empty(len(y))
    for fold in range(4):
        part = LogisticRegression().fit(X[folds != fold], y[folds != fold])
        p[folds == fold] = part.predict_proba(X[folds == fold])[:, 0]
    assert model.threshold_ == pytest.approx(choose_threshold(Rule("sensitivity", 0.8), p, y == "rare", "rare").value)
    fitted = LogisticRegression().fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), fitted.predict_proba(X))
    np.testing.assert_array_equal(model.predict(X) == "rare", fitted.predict_proba(X)[:, 0] >= model.threshold_)
    again = Thresholded.of(fitted, Threshold("rare", model.threshold_), "sensitivity=0.8", folds)
    np.testing.assert_array_equal(again.predict(X), model.predict(X))
    assert clone(again).fit(X, y).threshold_ == model.threshold_


def test_values_that_it_cannot_use():
    X, y, _ = two_blobs()
    with pytest.raises(ValueError, match="positive 'odd'"):
        Thresholded(LogisticRegression(), positive="odd").fit(X, y)
    with pytest.raises(ValueError, match="own decision"):
        Thresholded(LogisticRegression(), "none").fit(X, y)
    with pytest.raises(ValueError, match="Only binary classification"):
        Thresholded(LogisticRegression()).fit(X, np.arange(len(y)) % 3)


@parametrize_with_checks([Thresholded(LogisticRegression(), folds=3)])
def test_a_threshold_keeps_scikit_learns_contract_for_classifiers(estimator, check):
    check(estimator)
