"""featx's own classifiers on features: scikit-learn's contract, and scikit-learn's results."""

import warnings

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from sklearn.utils import compute_sample_weight
from sklearn.utils.estimator_checks import parametrize_with_checks
from threadpoolctl import threadpool_limits

from featx.learn.discriminant import ShrinkageDiscriminant
from featx.learn.linear import NewtonLinearSVC, NewtonLogisticRegression
from featx.learn.prototype import NearestPrototype

SHAPES = {"fewer rows than features": (45, 60), "more rows than features": (60, 10)}
OURS = [
    NewtonLogisticRegression(tol=1e-12),
    NewtonLinearSVC(tol=1e-12),
    ShrinkageDiscriminant(),
    NearestPrototype(),
]


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


@parametrize_with_checks(OURS)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([NewtonLogisticRegression(tol=1e-12, multinomial=False)])
def test_scikit_learns_contract_of_one_class_against_the_rest(estimator, check):
    check(estimator)


def samples(n, d, n_classes=3, seed=0):
    rng = np.random.default_rng(seed)
    y = np.array([f"class {i % n_classes}" for i in range(n)])
    X = np.maximum(rng.normal(size=(n_classes, d))[np.arange(n) % n_classes] + 3 * rng.normal(size=(n, d)) + 1, 0)
    return X * rng.uniform(0.5, 2, d), y


def pairs(n_classes, class_weight):
    logreg = LogisticRegression(C=0.3, class_weight=class_weight, tol=1e-10, max_iter=10_000)
    svm = LinearSVC(C=0.3, dual=False, tol=1e-10, max_iter=10_000)
    priors = np.full(n_classes, 1 / n_classes) if class_weight else None
    of = {"C": 0.3, "class_weight": class_weight, "tol": 1e-10}
    yield NewtonLogisticRegression(**of), logreg
    yield NewtonLinearSVC(**of), svm
    yield (
        ShrinkageDiscriminant(shrinkage=0.3, priors="equal" if class_weight else None),
        LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3, priors=priors),
    )
    if class_weight is None:  # else scikit-learn balances each class against the rest, ours balances all classes
        each = logreg if n_classes == 2 else OneVsRestClassifier(logreg)
        yield NewtonLogisticRegression(**of, multinomial=False), each


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("class_weight", [None, "balanced"])
def test_the_results_are_scikit_learns(shape, n_classes, class_weight):
    X, y = samples(*shape, n_classes)
    unequal = (y != "class 0") | (np.arange(len(y)) % 2 == 0)
    X, y = X[unequal], y[unequal]
    for ours, theirs in pairs(n_classes, class_weight):
        weights = {"sample_weight": compute_sample_weight(class_weight, y)} if isinstance(theirs, LinearSVC) else {}
        ours.fit(X, y)
        theirs.fit(X, y, **weights)
        np.testing.assert_array_equal(ours.predict(X), theirs.predict(X))
        if hasattr(ours, "predict_proba"):
            np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-5)
        if n_classes == 2 or not isinstance(ours, ShrinkageDiscriminant):
            values = theirs.decision_function(X)
            np.testing.assert_allclose(ours.decision_function(X), values, rtol=1e-4, atol=1e-4)
        if isinstance(theirs, LogisticRegression | LinearSVC):
            np.testing.assert_allclose(ours.coef_, theirs.coef_, rtol=1e-4, atol=1e-6)
            np.testing.assert_allclose(ours.intercept_, theirs.intercept_, rtol=1e-4, atol=1e-5)


def test_sample_weights_count_as_repeated_rows():
    X, y = samples(40, 12)
    twice = np.arange(40) % 3 == 0
    weighted = NewtonLogisticRegression(C=0.5, tol=1e-10).fit(X, y, sample_weight=1.0 + twice)
    repeated = NewtonLogisticRegression(C=0.5, tol=1e-10).fit(np.r_[X, X[twice]], np.r_[y, y[twice]])
    np.testing.assert_allclose(weighted.coef_, repeated.coef_, atol=1e-7)


def test_the_gradient_is_stated_and_a_fit_that_is_stopped_early_warns():
    X, y = samples(40, 60)
    model = NewtonLogisticRegression(C=10.0).fit(X, y)
    assert 0 <= model.gradient_ <= 1e-8
    assert model.n_iter_ >= 1
    with pytest.warns(ConvergenceWarning, match="not 1e-08, after 1 steps"):
        NewtonLogisticRegression(C=10.0, max_iter=1).fit(X, y)


def test_prototypes_by_hand():
    # Mean (1, 1); centred (1, 0), (-1, 0), (0, -1), (0, 1), of length 1 as they are.
    X, y = np.array([[2.0, 1.0], [0.0, 1.0], [1.0, 0.0], [1.0, 2.0]]), np.array(["a", "b", "b", "a"])
    model = NearestPrototype().fit(X, y)
    np.testing.assert_allclose(model.mean_, [1, 1])
    np.testing.assert_allclose(model.prototypes_, [[0.5, 0.5], [-0.5, -0.5]])
    # (4, 1) - mean = (3, 0) -> (1, 0): 0.25 + 0.25 from a, 2.25 + 0.25 from b; the difference decides for a.
    np.testing.assert_allclose(model.decision_function([[4.0, 1.0]]), [-2.0])
    assert model.predict([[4.0, 1.0], [1.0, -7.0]]).tolist() == ["a", "b"]
    # The mean itself has no direction: as near to both; the first class by name.
    assert model.predict([[1.0, 1.0]]).tolist() == ["a"]


@pytest.mark.parametrize(("centre", "normalise"), [(True, True), (True, False), (False, True), (False, False)])
def test_prototypes_against_a_slow_reference(centre, normalise):
    X, y = samples(30, 12, 4)
    model = NearestPrototype(centre=centre, normalise=normalise).fit(X[:20], y[:20])

    def prepare(row):
        row = row - X[:20].mean(axis=0) if centre else row
        return row / np.sqrt(sum(row**2)) if normalise else row

    names = sorted(set(y[:20]))
    means = [
        np.mean([prepare(row) for row, name in zip(X[:20], y[:20], strict=True) if name == c], axis=0) for c in names
    ]
    distances = np.array([[np.sum((prepare(row) - mean) ** 2) for mean in means] for row in X])
    np.testing.assert_allclose(model.decision_function(X), -distances, atol=1e-12)
    assert model.predict(X).tolist() == [names[place] for place in distances.argmin(axis=1)]


def test_a_shrinkage_outside_its_range_is_an_error():
    X, y = samples(20, 5)
    for shrinkage in (0.0, 1.5):
        with pytest.raises(ValueError, match="expected above 0 and at most 1"):
            ShrinkageDiscriminant(shrinkage=shrinkage).fit(X, y)


def test_discriminants_of_classes_without_any_variance_are_their_nearest_means():
    X, y = np.repeat([[0.0, 0.0], [4.0, 0.0]], 5, axis=0), np.repeat(["a", "b"], 5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ShrinkageDiscriminant().fit(X, y)
    assert model.predict([[1.9, 7.0], [2.1, -7.0]]).tolist() == ["a", "b"]
