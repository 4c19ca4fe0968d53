"""The path engine against scikit-learn's own solvers, run until they cannot get any nearer."""

import warnings

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.multiclass import OneVsRestClassifier
from sklearn.svm import LinearSVC
from threadpoolctl import threadpool_limits

from featx.learn.coordinates import Isometry, span_coordinates
from featx.learn.path import LOSSES, fit_path
from featx.learn.training import class_weights, softmax

GRID = np.array([1e-4, 1e-2, 1.0, 100.0])
TIGHT = 1e-10
DEGENERATE = ("none", "duplicate rows", "constant columns", "separable", "one sample in a class", "all features equal")


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):  # what is tiny is slower with more
        yield


def problem(n, d, n_classes, kind="none", seed=0):
    """Features of overlapping classes, as a network with ReLU gives them, and what can be wrong with them."""
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    X = np.maximum(rng.normal(size=(n_classes, d))[codes] + 2 * rng.normal(size=(n, d)) + 1, 0)
    if kind == "duplicate rows":
        X, codes = np.concatenate([X, X[: n // 2]]), np.concatenate([codes, codes[: n // 2]])
    if kind == "constant columns":
        X[:, ::2] = 3.0
    if kind == "separable":
        X[np.arange(n), codes % d] += 20.0
    if kind == "one sample in a class":
        codes[codes == 1] = 0
        codes[1] = 1
    if kind == "all features equal":
        X[:] = 0.5
    return X, codes


def reference(X, codes, C, loss, weights):
    """scikit-learn's coefficients and intercepts."""
    logreg = LogisticRegression(C=C, tol=1e-14, max_iter=10_000, solver="newton-cholesky")
    model = {
        "multinomial": logreg,
        "logistic": OneVsRestClassifier(logreg),
        # The seed of its random order of coordinates is fixed; what it converges to does not depend on it.
        "squared_hinge": LinearSVC(C=C, dual=False, tol=1e-12, max_iter=100_000, random_state=0),
    }[loss]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the last digits are out of their reach
        if loss == "logistic" and codes.max() > 1:
            parts = [reference(X, codes == code, C, "multinomial", weights) for code in range(codes.max() + 1)]
            return np.concatenate([coef for coef, _ in parts]), np.concatenate([intercept for _, intercept in parts])
        model = logreg if loss == "logistic" else model
        model.fit(X, codes, sample_weight=weights)
    return model.coef_, model.intercept_


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    n=st.integers(8, 60),
    d=st.integers(1, 80),
    n_classes=st.integers(2, 4),
    kind=st.sampled_from(DEGENERATE),
    loss=st.sampled_from(LOSSES),
    seed=st.integers(0, 5),
    rough_from=st.sampled_from([0, 1 << 19]),
)
@example(n=20, d=40, n_classes=3, kind="none", loss="multinomial", seed=0, rough_from=0)
@example(n=60, d=5, n_classes=2, kind="none", loss="logistic", seed=0, rough_from=0)
@example(n=40, d=60, n_classes=3, kind="separable", loss="squared_hinge", seed=0, rough_from=0)
@example(n=8, d=2, n_classes=2, kind="separable", loss="multinomial", seed=0, rough_from=0)  # last digits are noise
@example(n=12, d=30, n_classes=3, kind="one sample in a class", loss="multinomial", seed=1, rough_from=1 << 19)
def test_every_fit_is_scikit_learns_optimum(n, d, n_classes, kind, loss, seed, rough_from):
    X, codes = problem(n, d, n_classes, kind, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("featx.learn.newton._ROUGH_FROM", rough_from)  # 0: directions in float32
        found = fit_path(X, codes, GRID, np.ones((1, len(X))), loss=loss, tol=TIGHT)
    assert found.converged.all()
    for place, C in enumerate(GRID):
        coef, intercept = reference(X, codes, C, loss, None)
        near = 1e-4 * max(1e-3, np.abs(coef).max())
        np.testing.assert_allclose(found.coef[0, place], coef, rtol=0, atol=near)
        if loss == "multinomial":
            mine = log_loss(codes, softmax(X @ found.coef[0, place].T + found.intercept[0, place]))
            decisions = X @ coef.T + intercept
            assert mine == pytest.approx(log_loss(codes, softmax(decisions)), rel=1e-4, abs=1e-9)
        if kind != "separable":  # else any intercept over a wide range is as good
            np.testing.assert_allclose(found.intercept[0, place], intercept, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_parts_and_weights_are_fits_of_their_own(loss, n_classes):
    X, codes = problem(50, 20, n_classes)
    rng = np.random.default_rng(0)
    weights = np.stack([np.r_[np.ones(30), np.zeros(20)], rng.uniform(0, 2, 50), class_weights(codes, "balanced")])
    found = fit_path(X, codes, GRID, weights, loss=loss, tol=TIGHT)
    for part, own in enumerate(weights):
        for place, C in enumerate(GRID):
            coef, intercept = reference(X[own > 0], codes[own > 0], C, loss, own[own > 0])
            np.testing.assert_allclose(found.coef[part, place], coef, rtol=0, atol=1e-4 * np.abs(coef).max())
            np.testing.assert_allclose(found.intercept[part, place], intercept, rtol=1e-4, atol=1e-4)


def test_the_stated_gradient_is_that_of_the_mean_loss_with_its_penalty():
    X, codes = problem(30, 12, 2)
    C = 0.3
    found = fit_path(X, codes, np.array([C]), np.ones((1, 30)), loss="logistic", tol=1e-3)
    w, b = found.coef[0, 0, 0], found.intercept[0, 0, 0]
    residuals = 1 / (1 + np.exp(-(X @ w + b))) - codes
    centred = X - X.mean(axis=0)  # the coordinates in which the solver works: only the intercept's share differs
    gradient = np.append(centred.T @ residuals / 30 + w / (30 * C), residuals.mean())
    assert found.gradient[0, 0] == pytest.approx(np.linalg.norm(gradient), rel=1e-9)
    assert 0 < found.gradient[0, 0] <= 1e-3


def test_a_fit_that_is_stopped_early_says_so():
    X, codes = problem(40, 60, 3)
    found = fit_path(X, codes, GRID, np.ones((1, 40)), loss="multinomial", tol=TIGHT, max_iter=1)
    assert not found.converged.any()
    assert (found.n_iter == 1).all()
    assert (found.gradient > TIGHT).all()


def test_the_order_of_the_grid_and_the_other_parts_do_not_matter():
    X, codes = problem(40, 15, 3)
    weights = np.stack([np.ones(40), np.r_[np.zeros(10), np.ones(30)]])
    found = fit_path(X, codes, GRID, weights, loss="multinomial", tol=TIGHT)
    turned = fit_path(X, codes, GRID[::-1], weights[1:], loss="multinomial", tol=TIGHT)
    np.testing.assert_allclose(found.coef[1, ::-1], turned.coef[0], atol=1e-6)


def test_many_fits_in_several_goes_are_the_same(monkeypatch):
    X, codes = problem(40, 15, 3)
    weights = np.stack([np.ones(40), np.r_[np.zeros(10), np.ones(30)]])
    for loss in LOSSES:
        whole = fit_path(X, codes, GRID, weights, loss=loss, tol=TIGHT)
        monkeypatch.setattr("featx.learn.path._AT_ONCE", 1)
        parts = fit_path(X, codes, GRID, weights, loss=loss, tol=TIGHT)
        monkeypatch.undo()
        np.testing.assert_allclose(whole.coef, parts.coef, atol=1e-6)


@pytest.mark.parametrize("rough_from", [0, 1 << 19])
@pytest.mark.parametrize("loss", LOSSES)
def test_torch_gives_what_numpy_gives(loss, rough_from, monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr("featx.learn.newton._ROUGH_FROM", rough_from)
    X, codes = problem(60, 25, 3)
    weights = np.stack([np.ones(60), np.r_[np.zeros(20), np.ones(40)]])
    ours = fit_path(X, codes, GRID, weights, loss=loss, tol=TIGHT)
    theirs = fit_path(torch.from_numpy(X), codes, GRID, weights, loss=loss, tol=TIGHT)
    np.testing.assert_allclose(ours.coef, theirs.coef, atol=1e-6 * np.abs(ours.coef).max())
    np.testing.assert_allclose(ours.intercept, theirs.intercept, atol=1e-6)
    assert theirs.converged.all()


def test_a_part_without_some_class_is_an_error():
    X, codes = problem(12, 4, 3)
    with pytest.raises(ValueError, match="every training part needs rows of at least two classes"):
        fit_path(X, codes, GRID, (codes != 2)[None].astype(float), loss="multinomial", tol=TIGHT)
    with pytest.raises(ValueError, match="at least two classes"):
        fit_path(X, np.zeros(12, dtype=int), GRID, np.ones((1, 12)), loss="logistic", tol=TIGHT)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(2, 40), d=st.integers(1, 60), kind=st.sampled_from(DEGENERATE), shift=st.floats(-5, 5))
def test_coordinates_keep_lengths_and_angles_and_the_heads_of_their_rows(n, d, kind, shift):
    X = problem(max(n, 4), d, 2, kind)[0] + shift
    assume(np.abs(X).max() > 1e-6)
    isometry = Isometry(X)
    Z = isometry.transform(X)
    assert Z.shape[1] <= min(len(X), d)
    np.testing.assert_allclose(Z @ Z.T, X @ X.T, atol=1e-9 * np.abs(X @ X.T).max())
    coef = np.linspace(-1, 1, Z.shape[1])[None]
    np.testing.assert_allclose(X @ isometry.restore(coef).T, Z @ coef.T, atol=1e-9 * max(1, np.abs(X).max()) * d)
    rows = span_coordinates(X)
    assert rows.shape[1] <= min(len(X), d)
    np.testing.assert_allclose(rows @ rows.T, X @ X.T, atol=1e-9 * np.abs(X @ X.T).max())
    covariance = np.cov(Z.T, bias=True).reshape(Z.shape[1], Z.shape[1])
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-8 * np.abs(covariance).max() + 1e-12)


def test_more_coordinates_than_are_worth_while_stay_as_they_are(monkeypatch):
    monkeypatch.setattr("featx.learn.coordinates._LARGEST", 5)
    X = problem(20, 10, 2)[0]
    isometry = Isometry(X)
    assert isometry.transform(X) is X
    assert isometry.restore(X) is X
