import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.learn.calibrated import SigmoidCalibrated


def samples(n_classes=3):
    rng = np.random.default_rng(0)
    y = np.array([f"c{i % n_classes}" for i in range(90)])
    X = rng.normal(size=(n_classes, 5))[np.arange(90) % n_classes] + 2 * rng.normal(size=(90, 5))
    return X, y, np.arange(90) // n_classes % 4


@pytest.mark.parametrize("estimator", [LinearSVC(C=0.1), SVC(C=0.5)], ids=["svm", "svm-rbf"])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_probabilities_are_a_sigmoid_of_out_of_fold_decision_values_of_the_given_folds(estimator, n_classes):
    X, y, folds = samples(n_classes)
    model = SigmoidCalibrated(estimator, folds).fit(X, y)
    cv = [(np.flatnonzero(folds != k), np.flatnonzero(folds == k)) for k in range(4)]
    reference = CalibratedClassifierCV(estimator, method="sigmoid", cv=cv, ensemble=False).fit(X, y)
    np.testing.assert_array_equal(model.predict_proba(X), reference.predict_proba(X))

    # The same from Platt's own words: a logistic regression, with his smoothed targets, on the values for one class.
    values = np.empty((len(y), n_classes) if n_classes > 2 else len(y))
    for train, test in cv:
        values[test] = clone(estimator).fit(X[train], y[train]).decision_function(X[test])
    column = values[:, 1] if n_classes > 2 else values
    positive = y == "c1"
    up, down = (positive.sum() + 1) / (positive.sum() + 2), 1 / ((~positive).sum() + 2)
    target = np.where(positive, up, down)
    platt = LogisticRegression(C=np.inf, tol=1e-8).fit(
        np.r_[column, column][:, None], np.r_[np.ones(90), np.zeros(90)], sample_weight=np.r_[target, 1 - target]
    )
    sigmoid = model.calibrated_.calibrators[1 if n_classes > 2 else 0]
    assert -sigmoid.a_ == pytest.approx(platt.coef_[0, 0], rel=1e-3)
    assert -sigmoid.b_ == pytest.approx(platt.intercept_[0], rel=1e-2, abs=1e-3)


def test_the_prediction_is_the_heads_own_decision_even_where_a_sigmoid_says_otherwise():
    X, y, folds = samples()
    y = np.where(y == "c2", "c0", y)  # unbalanced: the sigmoids shift
    model = SigmoidCalibrated(SVC(C=0.5, class_weight="balanced"), folds).fit(X, y)
    plain = SVC(C=0.5, class_weight="balanced").fit(X, y)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    np.testing.assert_array_equal(model.decision_function(X), plain.decision_function(X))
    assert np.any(model.predict(X) != model.classes_[model.predict_proba(X).argmax(axis=1)])


def test_the_classes_are_strings_in_a_plain_array():
    X, y, folds = samples()
    model = SigmoidCalibrated(LinearSVC(), folds).fit(X, y)
    assert model.classes_.dtype.kind == "U"
    assert model.classes_.tolist() == ["c0", "c1", "c2"]
    assert model.n_features_in_ == 5


def test_an_unfitted_one_says_so():
    with pytest.raises(NotFittedError):
        SigmoidCalibrated(LinearSVC()).predict(np.zeros((1, 2)))


OWN_DECISION = {
    "check_classifiers_train": "wants the class of the largest probability; predict is the head's own decision"
}


@parametrize_with_checks([SigmoidCalibrated(LinearSVC(), folds=3)], expected_failed_checks=lambda _: OWN_DECISION)
def test_it_keeps_scikit_learns_contract_for_classifiers(estimator, check):
    check(estimator)
