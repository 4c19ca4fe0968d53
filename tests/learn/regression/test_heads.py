"""The heads of a regression: a search says what as many fits would, and fits are scikit-learn's own."""

import numpy as np
import pytest
from sklearn.linear_model import Lasso, LogisticRegression, Ridge
from sklearn.neighbors import KNeighborsRegressor
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVR

from featx.errors import UnknownNameError, UsageError
from featx.learn.inner_folds import Samples
from featx.learn.regression.heads import HEADS, NumberPart, find_head, make_head
from featx.learn.regression.metrics import SCORINGS
from featx.learn.regression.search import NumberSpace
from featx.learn.views import ViewUse

SOLVED = 5e-3  # of a deviation: libsvm stops at a tolerance of 1e-3, and rounds the kernel in other places


def shapes():
    rng = np.random.default_rng(0)
    wide, tall = rng.normal(size=(14, 30)) + 3, rng.normal(size=(40, 5))
    twice = np.tile(tall[:20], (2, 1))
    flat = tall.copy()
    flat[:, 2] = 1.0
    return {"wide": wide, "tall": tall, "duplicate rows": twice, "constant column": flat}


@pytest.fixture(params=list(shapes()))
def part(request):
    X = shapes()[request.param]
    rng = np.random.default_rng(1)
    y = 50 + 20 * X[:, 0] + rng.normal(size=len(X))
    if request.param == "duplicate rows":
        y = np.tile(y[:20], 2)  # else which of two equally near ones counts is a matter of rounding
    return NumberPart(X[4:], y[4:], X[:4])


@pytest.mark.parametrize("name", HEADS)
def test_a_search_predicts_what_as_many_fits_do(name, part):
    head = find_head(name)
    values = [value for value in head.parameter.values if 1e-3 <= value <= (1e5 if name == "ridge" else 10)]
    said = head.search(part, values)
    close = (SOLVED if name == "svr" else 1e-7) * part.y.std()
    for value, predicted in zip(values, said, strict=True):
        fitted = head.make(value, 0).fit(part.X, part.y)
        assert predicted == pytest.approx(fitted.predict(part.others), abs=close)


def test_heads_are_scikit_learns_own():
    part = NumberPart(shapes()["wide"][4:], np.arange(10.0) * 100, shapes()["wide"][:4])

    def said(name, value):
        return find_head(name).search(part, [value])[0]

    assert said("ridge", 3.0) == pytest.approx(Ridge(alpha=3.0).fit(part.X, part.y).predict(part.others))
    near = KNeighborsRegressor(3, metric="cosine", weights="distance").fit(part.X, part.y)
    assert said("knn", 3) == pytest.approx(near.predict(part.others))
    scaler = StandardScaler().fit(part.y[:, None])
    machine = SVR(C=10.0).fit(part.X, scaler.transform(part.y[:, None])[:, 0])
    expected = scaler.inverse_transform(machine.predict(part.others)[:, None])[:, 0]
    assert said("svr", 10.0) == pytest.approx(expected, abs=SOLVED * part.y.std())


@pytest.mark.parametrize("name", HEADS)
def test_the_unit_of_the_labels_does_not_matter(name, part):
    head = find_head(name)
    value = head.parameter.values[2]
    scaled = NumberPart(part.X, 1e4 * part.y - 7, part.others)
    close = SOLVED if name == "svr" else 1e-7
    assert head.search(scaled, [value]) == pytest.approx(
        1e4 * head.search(part, [value]) - 7, abs=close * 1e4 * part.y.std()
    )


@pytest.mark.parametrize("scaling", ["raw", "standardise", "l2"])
@pytest.mark.parametrize(
    "use", [ViewUse(), ViewUse("all", "plain"), ViewUse("all", "average"), ViewUse("plain", "average")]
)
def test_inner_folds_score_what_pipelines_on_the_same_rows_do(scaling, use):
    rng = np.random.default_rng(2)
    X = rng.normal(size=(24, 3, 6)) + 1 if use != ViewUse() else rng.normal(size=(24, 6)) + 1
    y = rng.normal(size=24)
    inner = [(np.arange(8, 24), np.arange(8)), (np.arange(16), np.arange(16, 24))]
    values = {"ridge": [10.0, 0.1], "svr": [1.0], "knn": [5, 2]}
    space = NumberSpace(tuple(values), (scaling,), (1.0,), "neg_mean_absolute_error", views=use)
    found = space.score(Samples.scaled(X, y, scaling), values, inner)
    for name, tried in values.items():
        for place, value in enumerate(tried):
            for fold, (fitted, scored) in enumerate(inner):
                n_views = X.shape[1] if use.train == "all" else 1
                power = find_head(name).parameter.per_view
                rows = X[fitted].reshape(-1, 6) if use.train == "all" or X.ndim == 2 else X[fitted, 0]
                model = make_head(name, value * n_views**power, scaling).fit(rows, np.repeat(y[fitted], n_views))
                others = X[scored] if use.score == "average" or X.ndim == 2 else X[scored, 0]
                said = model.predict(others.reshape(-1, 6)).reshape(8, -1).mean(axis=1)
                expected = SCORINGS["neg_mean_absolute_error"](y[scored], said)
                close = SOLVED if name == "svr" else 1e-7
                assert found[name].scores[fold, place] == pytest.approx(float(expected), abs=close)


def lasso():
    return Lasso(alpha=0.01)


def classifier():
    return LogisticRegression()


def test_a_regressor_of_ones_own_competes_and_a_classifier_is_refused(monkeypatch, part):
    import sys

    monkeypatch.setitem(sys.modules, "own_regressors", sys.modules[__name__])
    head = find_head("own_regressors:lasso")
    expected = Lasso(alpha=0.01).fit(part.X, part.y).predict(part.others)
    assert head.search(part, [0.0])[0] == pytest.approx(expected)
    with pytest.raises(UsageError, match="must give a scikit-learn regressor; it gave LogisticRegression"):
        find_head("own_regressors:classifier")


def test_heads_of_other_tasks_are_unknown():
    with pytest.raises(UnknownNameError, match="unknown head for --task regression 'svm'"):
        find_head("svm")
