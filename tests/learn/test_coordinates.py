"""Whether finding coordinates is worth while; what they keep is in test_path."""

import numpy as np
import pytest

from featx.learn.coordinates import is_worth_while
from featx.learn.inner_folds import Rules, Samples, score_inner_folds


@pytest.mark.parametrize(
    ("shape", "n_fits", "expected"),
    [
        ((200, 4096), 50, True),  # 200 coordinates instead of 4,096 features
        ((4000, 1280), 500, True),  # ten classes, five folds, ten values
        ((1500, 1280), 50, False),  # two classes
        ((10_000, 2048), 3, False),
    ],
)
def test_they_are_found_where_fits_are_many_or_rows_few(shape, n_fits, expected):
    assert is_worth_while(shape, n_fits) is expected


@pytest.mark.parametrize("scaling", ["l2", "standardise"])
@pytest.mark.parametrize("head", ["logreg", "svm"])
def test_a_search_finds_the_same_in_them_and_without(monkeypatch, scaling, head):
    rng = np.random.default_rng(0)
    y = np.array(["a", "b", "c"])[np.arange(90) % 3]
    X = rng.normal(size=(90, 40)) + (np.arange(90) % 3)[:, None] * rng.normal(size=40) * 0.4
    folds = [(np.flatnonzero(np.arange(90) % 5 != k), np.flatnonzero(np.arange(90) % 5 == k)) for k in range(5)]
    monkeypatch.setattr("featx.learn.linear.SEARCH_TOL", 1e-8)
    found = []
    for worth in (True, False):
        monkeypatch.setattr("featx.learn.inner_folds.is_worth_while", lambda *_, worth=worth: worth)
        samples = Samples.scaled(X, y, scaling, n_fits=1)
        assert (samples.coordinates is None) is (not worth or scaling == "standardise")
        found.append(score_inner_folds(samples, {head: [1e-3, 1.0]}, folds, Rules("accuracy"))[head])
    assert np.array_equal(found[0].scores, found[1].scores)
    assert found[0].scores.std() > 0
    assert found[0].converged.all()
    assert found[1].converged.all()
