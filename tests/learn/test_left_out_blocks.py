"""Formulas for left-out blocks say what heads fitted without the block say."""

import dataclasses

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import RidgeClassifier

from featx.learn import discriminant, left_out_blocks, ridge
from featx.learn.heads import ALPHAS, SHRINKAGES
from featx.learn.left_out_blocks import Factored, find_blocks
from featx.learn.prototype import NearestPrototype, search_prototype
from featx.learn.search import Job, Space, run_jobs
from featx.learn.training import TrainingParts

HEADS = {"ridge": (ridge, ALPHAS.values), "lda": (discriminant, SHRINKAGES.values)}


@pytest.fixture(autouse=True)
def _also_for_few_rows(monkeypatch):
    monkeypatch.setattr(left_out_blocks, "EACH", 0.0)
    monkeypatch.setattr(left_out_blocks, "EIGEN", 1e9)


def make_parts(n, d, n_classes, n_folds, *, seed=0, scale=1.0, **changes):
    """Folds of unequal size; every class is left in every part."""
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.repeat(np.arange(n_classes), 2), rng.integers(0, n_classes, n - 2 * n_classes)])
    fold = np.concatenate([np.arange(2 * n_classes) % 2, rng.integers(0, n_folds, n - 2 * n_classes)])
    X = scale * (rng.normal(size=(n, d)) + 2.0 * rng.normal(size=(n_classes, d))[codes] + 5.0)
    rows = [np.flatnonzero(fold == k) for k in range(n_folds) if np.any(fold == k)]
    fitted = tuple(np.setdiff1d(np.arange(n), out) for out in rows)
    return dataclasses.replace(TrainingParts(X, codes, fitted, tuple(rows), 3 * d), **changes)


def both(head, parts, values=None):
    module, own = HEADS[head]
    together = module._from_all_rows(parts, own if values is None else values)
    assert together is not None
    return list(together), list(module._part_by_part(parts, own if values is None else values))


def assert_same(head, parts, values=None):
    for one, other in zip(*both(head, parts, values), strict=True):
        np.testing.assert_allclose(one.values, other.values, rtol=1e-8, atol=1e-8 * max(1, np.abs(other.values).max()))
        ranked = np.sort(other.values, axis=-1)
        lead = np.abs(other.values) if other.values.ndim == 2 else ranked[..., -1] - ranked[..., -2]
        unsure = lead < 1e-6
        np.testing.assert_array_equal(one.predicted[~unsure], other.predicted[~unsure])


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(12, 40), more=st.integers(0, 30), n_classes=st.integers(2, 4), n_folds=st.integers(4, 12),
    seed=st.integers(0, 10**6), scale=st.sampled_from([0.01, 1.0, 30.0]),
)  # fmt: skip
@pytest.mark.parametrize("head", HEADS)
def test_they_say_what_heads_say_that_are_fitted_part_by_part(head, n, more, n_classes, n_folds, seed, scale):
    parts = make_parts(n, n + more, n_classes, n_folds, seed=seed, scale=scale)
    values = [value for value in HEADS[head][1] if scale < 30 or value >= 1e-2]
    # Few rows of many classes may be left to fitting part by part.
    assume(find_blocks(parts, 1) is not None and HEADS[head][0]._from_all_rows(parts, values) is not None)
    assert_same(head, parts, values)


@pytest.mark.parametrize("head", HEADS)
def test_they_say_what_scikit_learn_says(head):
    parts = make_parts(30, 45, 3, 6)
    X, codes = parts.X, parts.codes
    for said, fitted, scored in zip(both(head, parts)[0], parts.fitted, parts.scored, strict=True):
        for value, values in zip(HEADS[head][1], said.values, strict=True):
            if head == "ridge":
                model = RidgeClassifier(alpha=value).fit(X[fitted], codes[fitted])
                np.testing.assert_allclose(values, model.decision_function(X[scored]), rtol=1e-6, atol=1e-7)
            elif value >= 0.1:
                wide = np.pad(X, ((0, 0), (0, parts.n_features - X.shape[1])))
                model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=value).fit(wide[fitted], codes[fitted])
                np.testing.assert_allclose(values, model.predict_proba(wide[scored]), atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_duplicate_rows_on_both_sides_and_within_a_block(head):
    parts = make_parts(32, 40, 2, 5)
    X = parts.X.copy()
    X[10:14], X[20], X[21] = X[4], X[5], X[5]
    # A weaker penalty than about 1e-10 of the largest direction is left to fitting part by part.
    assert_same(head, dataclasses.replace(parts, X=X), [v for v in HEADS[head][1] if v >= 1e-2])


@pytest.mark.parametrize("head", HEADS)
def test_other_views_of_a_left_out_sample_are_left_out_and_not_scored(head):
    parts = make_parts(36, 50, 3, 6)
    some = tuple(rows[::2] for rows in parts.scored)
    assert_same(head, dataclasses.replace(parts, scored=some))
    for one, all_ in zip(both(head, dataclasses.replace(parts, scored=some))[0], both(head, parts)[0], strict=True):
        np.testing.assert_allclose(one.values, all_.values[:, ::2])


@pytest.mark.parametrize("head", HEADS)
def test_a_class_that_is_left_out_but_for_one_row(head):
    parts = make_parts(30, 40, 2, 6)
    codes = np.repeat([0, 1], [26, 4])
    order = np.array([0, 1, 2, 3, 26, 27, 28, 4, 5])  # three of the four of class 1 in one block
    blocks = [order, *np.array_split(np.setdiff1d(np.arange(30), order), 5)]
    fitted = tuple(np.setdiff1d(np.arange(30), rows) for rows in blocks)
    assert_same(head, dataclasses.replace(parts, codes=codes, fitted=fitted, scored=tuple(blocks)))


@settings(deadline=None, max_examples=25)
@given(
    n=st.integers(10, 40), d=st.integers(1, 50), n_classes=st.integers(2, 4), n_folds=st.integers(1, 8),
    seed=st.integers(0, 10**6), scale=st.sampled_from([1e-3, 1.0, 1e4]), equal=st.integers(0, 9),
)  # fmt: skip
def test_prototypes_of_all_parts_together_are_those_of_each(n, d, n_classes, n_folds, seed, scale, equal):
    parts = make_parts(n, d, n_classes, n_folds, seed=seed, scale=scale)
    parts.X[: equal + 1] = parts.X[0]
    if n_folds == 1:  # scored rows may be fitted rows too
        parts = dataclasses.replace(parts, fitted=parts.scored)
    for said, fitted, scored in zip(search_prototype(parts, (0.0,)), parts.fitted, parts.scored, strict=True):
        model = NearestPrototype().fit(parts.X[fitted], parts.codes[fitted])
        expected = model.decision_function(parts.X[scored])
        if np.unique(parts.X[fitted], axis=0).shape[0] > 1:
            np.testing.assert_allclose(said.values[0], expected, atol=1e-8)


def test_rows_that_are_the_mean_itself_have_no_direction():
    X = np.array([[1.0, 2.0], [3.0, 2.0], [2.0, 2.0], [2.0, 2.0]])
    parts = TrainingParts(X, np.array([0, 1, 0, 1]), (np.arange(4),), (np.array([2]),), 2)
    [said] = search_prototype(parts, (0.0,))
    assert said.values.tolist() == [[0.0]]  # as far from the one as from the other


def test_where_they_do_not_hold_or_gain_nothing_parts_are_fitted_one_by_one(monkeypatch):
    parts = make_parts(30, 40, 2, 6)
    assert find_blocks(parts, 12) is not None
    assert find_blocks(dataclasses.replace(parts, class_weight="balanced"), 12) is None  # weights depend on the part
    assert find_blocks(dataclasses.replace(parts, X=parts.X[:, :20]), 12) is None  # more rows than coordinates
    assert find_blocks(dataclasses.replace(parts, scored=parts.fitted), 12) is None  # rows that were fitted on
    once = dataclasses.replace(parts, fitted=parts.fitted[:1], scored=parts.scored[:1])
    assert find_blocks(once, 12) is None  # two factorisations in the place of one
    monkeypatch.undo()
    assert find_blocks(parts, 12) is None  # too few rows to gain anything


@pytest.mark.parametrize("head", HEADS)
def test_rows_without_any_variance_are_fitted_one_by_one(head):
    parts = make_parts(30, 40, 2, 6)
    flat = dataclasses.replace(parts, X=np.repeat([[0.0], [1.0]], 40, axis=1)[parts.codes])
    module, values = HEADS[head]
    if head == "lda":
        assert module._from_all_rows(flat, values) is None
    for said in getattr(module, f"search_{head}")(flat, values):
        assert np.isfinite(said.values).all()
    assert ridge._from_all_rows(dataclasses.replace(parts, X=1e8 * parts.X), values) is None  # beyond rounding


def test_the_factors_span_what_the_means_do_not():
    rng = np.random.default_rng(0)
    X, codes = rng.normal(size=(20, 25)), np.arange(20) % 3
    indicators = np.eye(3)[codes] / np.sqrt(np.bincount(codes))
    Z = X - indicators @ (indicators.T @ X)
    Z[3] = Z[0]  # and fewer directions than rows
    Z -= indicators @ (indicators.T @ Z)
    found = Factored.of(Z, indicators)
    np.testing.assert_allclose(found.vectors.T @ indicators, 0, atol=1e-12)
    np.testing.assert_allclose(found.vectors.T @ found.vectors, np.eye(17), atol=1e-12)
    np.testing.assert_allclose((found.vectors * found.values) @ found.vectors.T, Z @ Z.T, atol=1e-10)


@pytest.mark.parametrize("head", HEADS)
def test_a_search_chooses_the_same_either_way(head, monkeypatch):
    rng = np.random.default_rng(1)
    y = np.array(["a", "b", "c"])[np.arange(66) % 3]
    X = rng.normal(size=(66, 90)) + 0.4 * rng.normal(size=(3, 90))[np.arange(66) % 3]
    train, test = np.arange(54), np.arange(54, 66)
    inner = [(train[train % 6 != k], train[train % 6 == k]) for k in range(6)]
    job, space = Job("1", inner, train, train % 6, test), Space((head,), ("raw", "l2"), (1.0,), "balanced_accuracy")
    [together] = run_jobs(X, y, [job], space)
    monkeypatch.setattr(left_out_blocks, "EACH", 1e18)
    [apart] = run_jobs(X, y, [job], space)
    assert together.best.choice == apart.best.choice
