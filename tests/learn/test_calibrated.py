import numpy as np
import pytest
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC, LinearSVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from featx.learn.calibrated import Calibrated, SigmoidCalibrated
from featx.learn.calibration import Scored, apply_map, choose_calibration


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


# A map behind a head with probabilities


@pytest.mark.parametrize("method", ["auto", "temperature", "sigmoid", "isotonic", "none"])
def test_the_map_is_that_of_the_out_of_fold_probabilities_of_the_given_folds(method):
    X, y, folds = samples()
    plain = LogisticRegression(C=100.0)
    model = Calibrated(plain, method, folds).fit(X, y)
    own = np.empty((len(y), 1, 3))
    for fold in range(4):
        own[folds == fold, 0] = clone(plain).fit(X[folds != fold], y[folds != fold]).predict_proba(X[folds == fold])
    chosen = choose_calibration(Scored(own, np.searchsorted(model.classes_, y), folds, np.arange(len(y))), method)
    assert model.method_ == chosen.method == (method if method != "auto" else "temperature")
    fitted = clone(plain).fit(X, y)
    np.testing.assert_allclose(
        model.predict_proba(X), apply_map(chosen.method, chosen.parameters, fitted.predict_proba(X)), rtol=1e-6
    )
    np.testing.assert_array_equal(model.predict(X), fitted.predict(X))


def test_rows_in_no_fold_are_fitted_on_and_make_no_map():
    X, y, folds = samples()
    some = np.where(folds == 3, -1, folds)
    model = Calibrated(LogisticRegression(), "temperature", some).fit(X, y)
    np.testing.assert_array_equal(model.estimator_.coef_, LogisticRegression().fit(X, y).coef_)
    own = np.empty((len(y), 1, 3))
    for fold in range(3):
        part = LogisticRegression().fit(X[some != fold], y[some != fold])
        own[some == fold, 0] = part.predict_proba(X[some == fold])
    scored = Scored(own, np.searchsorted(model.classes_, y), some, np.arange(len(y))).take(some >= 0)
    expected = choose_calibration(scored, "temperature").parameters["temperature"]
    np.testing.assert_allclose(model.parameters_["temperature"], expected)


def test_a_fitted_head_takes_a_map_that_was_fitted_elsewhere():
    X, y, folds = samples()
    model = Calibrated(LogisticRegression(), "sigmoid", folds).fit(X, y)
    fitted = LogisticRegression().fit(X, y)
    codes = np.searchsorted(fitted.classes_, y)
    chosen = choose_calibration(Scored(fitted.predict_proba(X)[:, None], codes, folds, np.arange(len(y))), "sigmoid")
    again = Calibrated.of(fitted, chosen, folds)
    assert again.estimator_ is fitted
    np.testing.assert_array_equal(again.predict_proba(X), chosen.apply(fitted.predict_proba(X)))
    np.testing.assert_allclose(clone(again).fit(X, y).predict_proba(X), model.predict_proba(X))


@parametrize_with_checks(
    [Calibrated(LogisticRegression(), folds=3), Calibrated(LogisticRegression(), "temperature", folds=3)]
)
def test_a_map_keeps_scikit_learns_contract_for_classifiers(estimator, check):
    check(estimator)
