"""Every fast way of fitting a head against the plain scikit-learn pipeline that defines it."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC, LinearSVC
from threadpoolctl import threadpool_limits

from featx.errors import UnknownNameError
from featx.learn import heads
from featx.learn.heads import HEADS, SCALINGS, HeadPath, check_heads, fit_head, make_head

GRID = (1e-4, 1e-2, 10.0)
SHAPES = {"fewer rows than features": (45, 60), "more rows than features": (60, 10)}


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def samples(n, d, n_classes=3, seed=0):
    """Positive, uncentred features of unequal scales, as a network with ReLU gives them; classes overlap."""
    rng = np.random.default_rng(seed)
    y = np.array([f"class {i % n_classes}" for i in range(n)])
    centres = rng.normal(size=(n_classes, d))
    X = np.maximum(centres[np.arange(n) % n_classes] + 3 * rng.normal(size=(n, d)) + 1, 0) * rng.uniform(0.5, 2, d)
    return X, y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", HEADS)
def test_fits_along_C_equal_the_plain_pipeline(name, scaling, shape, n_classes, monkeypatch):
    monkeypatch.setattr(heads, "TOL", 1e-8)  # then what remains is the difference between two optima: none
    X, y = samples(*shape, n_classes)
    train, test = np.arange(len(y) * 2 // 3), np.arange(len(y) * 2 // 3, len(y))
    path = HeadPath(name, scaling, X[train], y[train])
    # Where classes overlap liblinear does not converge at a large C.
    certain = []
    for C in GRID[:2] if name == "svm" and shape[0] > shape[1] else GRID:
        model = path.fit(C)
        plain = make_head(name, C, scaling).fit(X[train], y[train])
        values = plain.decision_function(X[test])
        tolerance = {"logreg": 1e-3, "svm": 0.01, "svm-rbf": 1e-4}[name] * max(np.ptp(values), 0.1)
        rows = path.transform(X[test])
        np.testing.assert_allclose(model.decision_function(rows), values, rtol=0, atol=tolerance)
        clear = np.abs(values if n_classes == 2 else np.diff(np.sort(values)[:, -2:])[:, 0]) > 2 * tolerance
        np.testing.assert_array_equal(model.predict(rows)[clear], plain.predict(X[test])[clear])
        certain.append(clear)
        if name == "logreg":
            np.testing.assert_allclose(model.predict_proba(rows), plain.predict_proba(X[test]), rtol=0, atol=1e-4)
    assert np.mean(certain) > 0.4


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scaling", SCALINGS)
def test_the_saved_logreg_is_the_plain_pipeline_with_the_plain_pipelines_coefficients(scaling, shape):
    X, y = samples(*shape)
    fast = fit_head("logreg", 0.1, scaling, X, y, np.zeros(len(y), dtype=int))
    plain = make_head("logreg", 0.1, scaling)
    assert str(fast) == str(plain)
    plain.set_params(head__tol=1e-8).fit(X, y)
    np.testing.assert_allclose(fast[-1].coef_, plain[-1].coef_, atol=2e-5)
    np.testing.assert_allclose(fast[-1].intercept_, plain[-1].intercept_, atol=1e-3)
    np.testing.assert_allclose(fast.predict_proba(X), plain.predict_proba(X), atol=1e-4)
    assert fast.n_features_in_ == X.shape[1]
    assert not fast[-1].warm_start


@pytest.mark.parametrize("name", ["svm", "svm-rbf"])
def test_the_saved_svm_decides_as_the_plain_pipeline(name):
    X, y = samples(60, 90)
    fast = fit_head(name, 0.1, "standardise", X, y, np.arange(len(y)) // 3 % 5)
    plain = make_head(name, 0.1, "standardise").fit(X, y)
    np.testing.assert_array_equal(fast.predict(X), plain.predict(X))
    np.testing.assert_array_equal(fast.decision_function(X), plain.decision_function(X))
    np.testing.assert_allclose(fast.predict_proba(X).sum(axis=1), 1)


def test_a_fit_does_not_depend_on_the_fits_before_it():
    X, y = samples(60, 90)
    along, alone = HeadPath("logreg", "raw", X, y), HeadPath("logreg", "raw", X, y)
    for C in GRID[:-1]:
        along.fit(C)
    rows = along.transform(X)
    np.testing.assert_allclose(
        along.fit(GRID[-1]).predict_proba(rows), alone.fit(GRID[-1]).predict_proba(rows), atol=1e-4
    )


def test_the_names_of_heads_and_scalings_mean_what_the_documentation_says():
    assert make_head("svm", 1, "raw")[-1].get_params()["loss"] == "squared_hinge"
    assert [type(make_head(name, 1, "raw")[-1]) for name in HEADS] == [LogisticRegression, LinearSVC, SVC]
    assert [type(make_head("svm", 1, scaling)[0]) for scaling in SCALINGS] == [LinearSVC, StandardScaler, Normalizer]
    assert isinstance(make_head("logreg", 1, "l2"), Pipeline)


@pytest.mark.parametrize("name", HEADS)
def test_constant_features_are_no_error(name):
    X, y = np.ones((20, 30)), np.array(["a", "b"] * 10)
    model = fit_head(name, 1.0, "standardise", X, y, np.arange(20) // 4)
    np.testing.assert_allclose(model.predict_proba(X), 0.5, atol=1e-3)


def test_an_unknown_head_lists_close_matches():
    with pytest.raises(UnknownNameError, match="unknown head 'logrg'; did you mean logreg") as caught:
        check_heads(("svm", "logrg"))
    assert caught.value.exit_code == 2
