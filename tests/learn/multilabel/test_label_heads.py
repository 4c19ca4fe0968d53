"""Heads of labels: scikit-learn's optimum, maps and thresholds, and the search against fits one by one."""

import numpy as np
import pytest
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from featx.learn.inner_folds import Rules, Samples
from featx.learn.multilabel.heads import (
    LABEL_HEADS,
    CalledLabels,
    LabelMaps,
    LinearLabels,
    decide_inner_folds,
    make_label_head,
)
from featx.learn.multilabel.searching import HALF, choose_threshold, learn_maps
from featx.learn.path import fit_path
from featx.learn.views import ViewUse

OF_ONE_LABEL_COLUMN = dict.fromkeys(
    (
        "check_class_weight_classifiers",
        "check_classifier_data_not_an_array",
        "check_classifier_not_supporting_multiclass",
        "check_classifiers_classes",
        "check_classifiers_one_label",
        "check_classifiers_regression_target",
        "check_classifiers_train",
        "check_estimators_dtypes",
        "check_fit2d_1feature",
    ),
    "labels are a matrix of 0 and 1; the check gives classes or numbers in one column",
)
RULES = Rules("average_precision_macro")


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


@parametrize_with_checks([LinearLabels(tol=1e-12)], expected_failed_checks=lambda _: OF_ONE_LABEL_COLUMN)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def samples(n=40, d=6, n_labels=3, seed=0):
    rng = np.random.default_rng(seed)
    marks = rng.random((n, n_labels)) < np.array([0.5, 0.3, 0.2])[:n_labels]
    return rng.normal(size=(n, d)) + np.pad(marks, ((0, 0), (0, d - n_labels))), marks


def maps(n_labels=3, threshold=0.5):
    return LabelMaps(np.ones(n_labels), np.zeros(n_labels), np.full(n_labels, threshold))


def sklearns(loss, C, class_weight):
    if loss == "logistic":
        return OneVsRestClassifier(LogisticRegression(C=C, class_weight=class_weight, tol=1e-10, max_iter=10_000))
    # liblinear weighs a label's own rows alone; the rows of both sides are weighed here.
    return LinearSVC(C=C, tol=1e-12, dual=False, max_iter=100_000, random_state=0)


@pytest.mark.parametrize("d", [6, 60], ids=["more rows than features", "fewer rows than features"])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_logistic_regression_is_scikit_learns_on_each_label(d, class_weight):
    X, marks = samples(d=d)
    ours = LinearLabels(C=0.3, class_weight=class_weight, tol=1e-10).fit(X, marks)
    theirs = sklearns("logistic", 0.3, class_weight).fit(X, marks.astype(int))
    for k, one in enumerate(theirs.estimators_):
        np.testing.assert_allclose(ours.coef_[k], one.coef_[0], atol=1e-4)
        np.testing.assert_allclose(ours.intercept_[k], one.intercept_[0], atol=1e-4)
    np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))


def test_support_vector_machine_is_scikit_learns_on_each_label():
    X, marks = samples()
    ours = LinearLabels(loss="squared_hinge", C=0.3, tol=1e-10).fit(X, marks)
    for k, own in enumerate(marks.T):
        theirs = sklearns("squared_hinge", 0.3, None).fit(X, own)
        np.testing.assert_allclose(ours.coef_[k], theirs.coef_[0], atol=1e-4)


def test_one_label_is_a_problem_of_two_classes_to_the_path_engine():
    X, marks = samples(n_labels=1)
    grid, weights = np.array([0.01, 1.0]), np.ones((2, len(X)))
    weights[1, ::3] = 0
    one = fit_path(X, marks, grid, weights, loss="logistic", tol=1e-8)
    two = fit_path(X, marks[:, 0].astype(np.int64), grid, weights, loss="logistic", tol=1e-8)
    np.testing.assert_array_equal(one.coef, two.coef)
    np.testing.assert_array_equal(one.intercept, two.intercept)


def test_labels_do_not_touch_each_other():
    X, marks = samples()
    together = LinearLabels(C=1.0).fit(X, marks)
    for k in range(3):
        alone = LinearLabels(C=1.0).fit(X, marks[:, [k]])
        np.testing.assert_allclose(together.coef_[k], alone.coef_[0], atol=1e-6)


def test_a_label_without_both_sides_and_what_is_no_matrix_of_marks_are_refused():
    X, marks = samples()
    with pytest.raises(ValueError, match="with and without"):
        LinearLabels().fit(X, np.ones_like(marks))
    with pytest.raises(ValueError, match="matrix"):
        LinearLabels().fit(X, marks[:, 0].astype(int))
    with pytest.raises(ValueError, match="0 and 1"):
        LinearLabels().fit(X, marks.astype(int) * 2)


@pytest.mark.parametrize("name", LABEL_HEADS)
@pytest.mark.parametrize("scaling", ["raw", "standardise", "l2"])
def test_the_search_says_what_fits_one_by_one_say(monkeypatch, name, scaling):
    monkeypatch.setattr("featx.learn.linear.SEARCH_TOL", 1e-8)
    X, marks = samples(n=30)
    inner = [(np.setdiff1d(np.arange(30), np.arange(k, 30, 3)), np.arange(k, 30, 3)) for k in range(3)]
    found = decide_inner_folds(Samples.scaled(X, marks, scaling), name, [0.01, 1.0], inner, RULES)
    for (fitted, scored), (rows, decisions, converged) in zip(inner, found, strict=True):
        np.testing.assert_array_equal(rows, scored)
        assert converged.all()
        for C, said in zip([0.01, 1.0], decisions, strict=True):
            head = make_label_head(name, C, scaling, "abc", maps()).fit(X[fitted], marks[fitted])
            np.testing.assert_allclose(said, head.decision_function(X[scored]), atol=1e-4)


@pytest.mark.parametrize("name", LABEL_HEADS)
def test_copies_of_the_plain_image_as_views_change_nothing(name):
    X, marks = samples(n=30)
    inner = [(np.arange(20), np.arange(20, 30))]
    use = ViewUse("all", "average")
    rules = Rules("average_precision_macro", use)
    copies = np.repeat(X[:, None], 3, axis=1)
    ((_, plain, _),) = decide_inner_folds(Samples.scaled(X, marks, "raw"), name, [0.5], inner, RULES)
    ((_, several, _),) = decide_inner_folds(Samples.scaled(copies, marks, "raw"), name, [0.5], inner, rules)
    np.testing.assert_allclose(several, plain, atol=1e-5)
    head = make_label_head(name, 0.5, "raw", "abc", maps()).fit(X[:20], marks[:20])
    np.testing.assert_allclose(head.call(copies[20:].reshape(-1, 6), 3)[1], head.call(X[20:])[1])


def test_probabilities_and_calls_follow_from_the_maps():
    X, marks = samples()
    of = LabelMaps(np.array([1.0, 2.0, 0.5]), np.array([0.0, -1.0, 1.0]), np.array([0.5, 0.3, 0.9]))
    head = make_label_head("logreg", 1.0, "standardise", ["a", "b", "c"], of).fit(X, marks)
    assert isinstance(head, CalledLabels)
    assert head.classes_.tolist() == ["a", "b", "c"]
    decisions = LinearLabels(C=1.0).fit(StandardScaler().fit_transform(X), marks)
    decisions = decisions.decision_function(StandardScaler().fit_transform(X))
    np.testing.assert_allclose(head.predict_proba(X), expit(of.slopes * decisions + of.intercepts))
    np.testing.assert_array_equal(head.predict(X), head.predict_proba(X) >= of.thresholds)


# Thresholds


def test_a_threshold_makes_f1_as_large_as_any_does():
    rng = np.random.default_rng(0)
    for _ in range(3):
        own = rng.random(40) < 0.4
        p = np.round(expit(rng.normal(size=40) + own), 1)
        best = max(f1_score(own, p >= t) for t in np.unique(p))
        assert f1_score(own, p >= choose_threshold(p, own, np.arange(40))) == pytest.approx(best)


def test_of_equally_good_thresholds_the_one_nearest_to_a_half_is_taken():
    p = np.array([0.1, 0.2, 0.3, 0.3, 0.35, 0.9, 0.92, 0.94, 0.96, 0.98])
    assert choose_threshold(p, p > 0.5, np.arange(10)) == pytest.approx(0.625)


def test_a_threshold_is_a_half_where_few_groups_have_the_label():
    p, own = np.linspace(0, 0.4, 20), np.arange(20) >= 10
    assert choose_threshold(p, own, np.arange(20)) < HALF
    assert choose_threshold(p, own, np.arange(20) // 5) == HALF


def test_where_nothing_is_told_the_label_is_always_called():
    own = np.arange(20) % 2 == 0
    assert choose_threshold(np.full(20, 0.3), own, np.arange(20)) < 0.3


def test_maps_are_learnt_for_each_label():
    rng = np.random.default_rng(1)
    marks = rng.random((300, 2)) < 0.4
    folds, units = np.arange(300) % 5, np.arange(300)
    true = 1.5 * rng.normal(size=(300, 2)) + 2 * marks - 1
    sure = true * np.array([5.0, 1.0])  # the first label's values are five times too sure
    found = learn_maps(sure, marks, folds, units, method="auto")
    assert found.slopes[0] < 0.5
    assert found.intercepts.tolist() == [0, 0]
    assert learn_maps(sure, marks, folds, units, method="none").slopes.tolist() == [1, 1]
    shifted = learn_maps(sure + 3, marks, folds, units, method="sigmoid")
    expected = learn_maps(sure, marks, folds, units, method="sigmoid")
    np.testing.assert_allclose(shifted.probabilities(sure + 3), expected.probabilities(sure), atol=1e-5)
    assert learn_maps(sure, marks, folds, units, method="auto", thresholds="half").thresholds.tolist() == [0.5, 0.5]
