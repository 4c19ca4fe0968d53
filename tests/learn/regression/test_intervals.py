"""Prediction intervals: the formula of CV+, groups that count once, and a bundle's members that bring them back."""

import math

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from featx.errors import BundleError
from featx.learn.conformal import floor
from featx.learn.regression.interval_file import dump_intervals, load_intervals
from featx.learn.regression.intervals import NumberIntervals


def fitted(n=60, n_folds=4, groups=None, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3))
    y = X[:, 0] + rng.normal(size=n)
    folds = (np.arange(n) if groups is None else groups) % n_folds
    heads = [Ridge().fit(X[folds != k], y[folds != k]) for k in range(n_folds)]
    residuals = np.array([abs(y[i] - heads[folds[i]].predict(X[i : i + 1])[0]) for i in range(n)])
    units = np.arange(n) if groups is None else groups
    return NumberIntervals(heads, residuals, folds, units), rng.normal(size=(7, 3))


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_without_groups_it_is_cv_plus_of_barber_and_others(coverage):
    """Definition: the floor(alpha (n + 1))-th smallest of centre - R, the ceil((1 - alpha)(n + 1))-th of centre + R."""
    intervals, X = fitted()
    low, high = intervals.ends(X, coverage)
    centres = np.stack([head.predict(X) for head in intervals.heads])[intervals.folds]
    n = len(intervals.residuals)
    first = math.floor(round((1 - coverage) * (n + 1), 9))
    last = math.ceil(round(coverage * (n + 1), 9))
    assert low == pytest.approx(np.sort(centres - intervals.residuals[:, None], axis=0)[first - 1])
    assert high == pytest.approx(np.sort(centres + intervals.residuals[:, None], axis=0)[last - 1])


def test_it_holds_every_number_that_conforms_every_group_counted_once():
    groups = np.repeat(np.arange(20), np.arange(20) % 5 + 1)
    intervals, X = fitted(len(groups), groups=groups)
    low, high = intervals.ends(X, 0.8)
    sizes = np.bincount(groups)[groups]
    for place, row in enumerate(X):
        centres = np.array([head.predict(row[None])[0] for head in intervals.heads])[intervals.folds]
        for number in np.linspace(low[place] - 3, high[place] + 3, 200):
            as_odd = np.sum((np.abs(number - centres) <= intervals.residuals) / sizes)
            conforms = (1 + as_odd) / (20 + 1) > 0.2 + 1e-9
            assert not conforms or low[place] - 1e-9 <= number <= high[place] + 1e-9


def test_with_too_few_groups_there_are_no_ends_and_it_is_said():
    intervals, X = fitted(8)
    low, high = intervals.ends(X, 0.9)
    assert np.isneginf(low).all()
    assert np.isposinf(high).all()
    assert "needs at least 9 samples to calibrate on, and there are 8" in intervals.too_few(0.9)
    assert intervals.too_few(0.8) == ""
    assert intervals.floor(0.8) == floor(0.8, 8, 4)


def test_views_of_a_sample_are_predicted_by_their_mean():
    intervals, X = fitted()
    once = intervals.ends(X, 0.9)
    twice = intervals.ends(np.repeat(X, 2, axis=0), 0.9, n_views=2)
    assert np.allclose(once, twice)


def test_members_of_a_bundle_bring_them_back_and_damage_is_refused():
    intervals, X = fitted()
    members = dump_intervals(intervals, path="a.featx")
    facts = {"intervals": {"unit": "groups"}}
    again = load_intervals(members, facts, 3, path="a.featx")
    assert np.array_equal(again.ends(X, 0.9), intervals.ends(X, 0.9))
    assert again.unit == "groups"
    with pytest.raises(BundleError, match="no prediction intervals: it was fitted with"):
        load_intervals({}, {"intervals": {"why_not": "it was fitted with --conformal off"}}, 3, path="a.featx")
    for broken in (
        {**members, "intervals.safetensors": b"nonsense"},
        {name: data for name, data in members.items() if name != "fold-3.skops"},
    ):
        with pytest.raises(BundleError, match="is damaged"):
            load_intervals(broken, facts, 3, path="a.featx")
    with pytest.raises(BundleError):
        load_intervals(members, facts, 4, path="a.featx")
