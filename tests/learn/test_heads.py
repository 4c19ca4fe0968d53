"""Every search over a head's values against the pipeline that defines it, fitted anew for each."""

import warnings

import numpy as np
import pytest
from sklearn.linear_model import RidgeClassifier
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import Normalizer, StandardScaler
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

from featx.errors import InputError, UnknownNameError, UsageError
from featx.learn.discriminant import ShrinkageDiscriminant
from featx.learn.heads import HEADS, SCALINGS, find_head, fit_head, make_head
from featx.learn.inner_folds import Rules, Samples, score_inner_folds
from featx.learn.linear import NewtonLinearSVC, NewtonLogisticRegression
from featx.learn.prototype import NearestPrototype

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


def values_of(name):
    """Every second value; no more neighbours than there are rows."""
    return [value for value in HEADS[name].parameter.values[::2] if name != "knn" or value <= 30]


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("scaling", SCALINGS)
@pytest.mark.parametrize("name", HEADS)
def test_the_search_scores_each_value_as_the_pipeline_that_is_fitted_with_it(
    name, scaling, shape, n_classes, monkeypatch
):
    monkeypatch.setattr(
        "featx.learn.linear.SEARCH_TOL", 1e-8
    )  # then what remains is the difference of two optima: none
    X, y = samples(*shape, n_classes)
    y[:3] = y[0]  # classes of unequal size
    head, values = HEADS[name], values_of(name)
    rows = np.arange(len(y))
    inner = [(rows[10:], rows[:10]), (np.r_[rows[:20], rows[35:]], rows[20:35])]
    for class_weight in (None, "balanced"):
        scoring = "neg_log_loss" if head.has_probabilities else "accuracy"
        rules = Rules(scoring, class_weight=class_weight)
        found = score_inner_folds(Samples.scaled(X, y, scaling), {name: values}, inner, rules)[name]
        assert found.converged.all()
        for fold, (fitted, scored) in enumerate(inner):
            for place, value in enumerate(values):
                model = make_head(name, value, scaling, class_weight=class_weight).fit(X[fitted], y[fitted])
                if head.has_probabilities:
                    expected = -log_loss(y[scored], model.predict_proba(X[scored]), labels=model.classes_)
                else:
                    expected = np.mean(model.predict(X[scored]) == y[scored])
                assert found.scores[fold, place] == pytest.approx(expected, rel=1e-4), (value, class_weight)


def test_the_names_of_heads_and_scalings_mean_what_the_documentation_says():
    kinds = {
        "logreg": NewtonLogisticRegression,
        "svm": NewtonLinearSVC,
        "svm-rbf": SVC,
        "logreg-ovr": NewtonLogisticRegression,
        "ridge": RidgeClassifier,
        "lda": ShrinkageDiscriminant,
        "knn": KNeighborsClassifier,
        "prototype": NearestPrototype,
    }
    assert {name: type(make_head(name, 1, "raw")[-1]) for name in HEADS} == kinds
    assert list(kinds) == list(HEADS)
    assert [type(make_head("svm", 1, scaling)[0]) for scaling in SCALINGS] == [
        NewtonLinearSVC, StandardScaler, Normalizer
    ]  # fmt: skip
    assert isinstance(make_head("logreg", 1, "l2"), Pipeline)
    assert make_head("logreg-ovr", 1, "raw")[-1].multinomial is False
    assert make_head("knn", 5, "raw")[-1].get_params()["metric"] == "cosine"


@pytest.mark.parametrize("name", HEADS)
def test_values_go_from_the_simplest_on_and_only_open_ends_are_edges(name):
    parameter = HEADS[name].parameter
    assert list(parameter.values) in (sorted(parameter.values), sorted(parameter.values, reverse=True))
    edges = {parameter.edge(value, parameter.values) for value in parameter.values} - {""}
    assert edges == {"lda": {"lower"}, "knn": {"upper"}, "prototype": set()}.get(name, {"lower", "upper"})


@pytest.mark.parametrize("name", HEADS)
def test_constant_features_are_no_error(name):
    X, y = np.ones((20, 30)), np.array(["a", "b"] * 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = fit_head(name, 1.0, "standardise", X, y, np.arange(20) // 4)
        probabilities = model.predict_proba(X)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1)
    if name != "knn":  # one neighbour is one class
        np.testing.assert_allclose(probabilities, 0.5, atol=1e-3)


@pytest.mark.parametrize("name", [name for name in HEADS if not HEADS[name].has_probabilities])
def test_a_head_without_probabilities_decides_as_it_would_without_its_sigmoid(name):
    X, y = samples(60, 90)
    model = fit_head(name, 0.1, "standardise", X, y, np.arange(len(y)) // 3 % 5)
    plain = make_head(name, 0.1, "standardise").fit(X, y)
    np.testing.assert_array_equal(model.predict(X), plain.predict(X))
    np.testing.assert_array_equal(model.decision_function(X), plain.decision_function(X))
    np.testing.assert_allclose(model.predict_proba(X).sum(axis=1), 1)


def test_an_unknown_head_lists_close_matches():
    with pytest.raises(UnknownNameError, match="unknown head 'logrg'; did you mean logreg") as caught:
        find_head("logrg")
    assert caught.value.exit_code == 2


# A user's own


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    (tmp_path / "own_heads_of_a_test.py").write_text(
        "from sklearn.linear_model import SGDClassifier, LinearRegression\n"
        "from sklearn.naive_bayes import GaussianNB\n"
        "def naive(): return GaussianNB()\n"
        "def perceptron(): return SGDClassifier(max_iter=5, tol=None)\n"
        "def regression(): return LinearRegression()\n"
        "def broken(): raise ValueError('no such luck')\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    return "own_heads_of_a_test"


def test_a_head_of_ones_own_is_scored_as_it_is_and_takes_what_options_it_has(own_module):
    X, y = samples(40, 12)
    rows = np.arange(40)
    for factory, has_probabilities in (("naive", True), ("perceptron", False)):
        head = find_head(f"{own_module}:{factory}")
        assert (head.has_probabilities, head.parameter.name) == (has_probabilities, "")
        inner = [(rows[10:], rows[:10])]
        scored = score_inner_folds(
            Samples.scaled(X, y, "l2"), {head.name: [0.0]}, inner, Rules("accuracy", random_state=7)
        )
        found = scored[head.name]
        model = make_head(head.name, 0.0, "l2", 7).fit(X[10:], y[10:])
        assert found.scores[0, 0] == np.mean(model.predict(X[:10]) == y[:10])
    assert make_head(f"{own_module}:perceptron", 0.0, "raw", 7)[-1].random_state == 7
    balanced = make_head(f"{own_module}:perceptron", 0.0, "raw", class_weight="balanced")
    assert balanced[-1].class_weight == "balanced"
    with pytest.raises(UsageError, match=r"GaussianNB .* has no class_weight"):
        make_head(f"{own_module}:naive", 0.0, "raw", class_weight="balanced")


@pytest.mark.parametrize(
    ("factory", "error", "message"),
    [
        ("regression", UsageError, "must give a scikit-learn classifier; it gave LinearRegression"),
        ("broken", InputError, "the function failed: ValueError: no such luck"),
        ("naiv", UnknownNameError, "did you mean own_heads_of_a_test:naive"),
        ("number", UsageError, "this is no function but int"),
        ("no name", UsageError, "a head of your own is written package.module:function"),
    ],
)
def test_what_is_no_head_of_ones_own_is_an_error(own_module, factory, error, message):
    with pytest.raises(error, match=message):
        find_head(f"{own_module}:{factory}")
