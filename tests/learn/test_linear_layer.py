import numpy as np
import pytest

from featx.learn.head_file import dump_head, load_head
from featx.learn.heads import HEADS, SCALINGS, fit_head
from featx.learn.linear_layer import LinearLayer

LINEAR = ("logreg", "logreg-ovr", "svm", "ridge", "lda")


def sample(n_classes, n=40, d=6):
    rng = np.random.default_rng(0)
    codes = np.arange(n) % n_classes
    X = rng.normal(size=(n, d)) + rng.normal(size=(n_classes, d))[codes]
    X[:, 3] = 2.5  # a constant column, which has no deviation to be divided by
    return X, np.array([f"class {code}" for code in codes])


def fitted(name, scaling, n_classes):
    X, y = sample(n_classes)
    value = 0.5 if name == "lda" else 1.0
    return fit_head(name, value, scaling, X, y, np.arange(len(X)) // 7 % 3), X


def decisions(estimator, X):
    values = estimator.decision_function(X)
    return np.stack([-values, values], axis=1) / 2 if values.ndim == 1 else values


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", [name for name in LINEAR if name in HEADS])
def test_a_layer_has_the_heads_own_decision_values(name, scaling, n_classes):
    estimator, X = fitted(name, scaling, n_classes)
    layer = LinearLayer.of(estimator)
    np.testing.assert_allclose(layer.decisions(X), decisions(estimator, X), rtol=1e-9, atol=1e-9)
    assert layer.classes.tolist() == estimator.classes_.tolist()


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("scaling", SCALINGS)
def test_a_head_of_a_layer_has_its_decisions_and_their_softmax(scaling, n_classes):
    estimator, X = fitted("logreg", scaling, n_classes)
    head = LinearLayer.of(estimator).to_head()
    np.testing.assert_allclose(head.decision_function(X), estimator.decision_function(X), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(head.predict_proba(X), estimator.predict_proba(X), rtol=1e-9, atol=1e-9)
    assert head.predict(X).tolist() == estimator.predict(X).tolist()
    assert head.predict(X).tolist() == load_head(dump_head(head, path="x"), path="x").predict(X).tolist()


@pytest.mark.parametrize("name", ["knn", "prototype", "svm-rbf"])
def test_what_is_not_linear_has_no_layer(name):
    X, y = sample(2)
    estimator = fit_head(name, 3.0, "raw", X, y, np.arange(len(X)) // 7 % 3)
    assert LinearLayer.of(estimator) is None
