"""Labels that are numbers, and folds that are stratified by them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import LabelsError, UsageError
from featx.learn.numbers import bin_numbers, look_like_numbers, parse_number, parse_numbers, strata_of
from featx.learn.regression.folds import FoldPlan, make_folds


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_as_it_was_written(number):
    assert parse_number(repr(number)) == number


@pytest.mark.parametrize("label", ["nan", "NaN", "inf", "-Infinity", "1e999", "12,5", "1_000", "old", "12 cm"])
def test_what_is_no_finite_number_is_refused_by_its_key(label):
    assert parse_number(label) is None
    with pytest.raises(LabelsError, match=r"2 of 3 labels are not finite numbers, the first .* of 'b.png'"):
        parse_numbers(["1", label, label], ["a.png", "b.png", "c.png"])


def test_labels_look_like_numbers_where_nearly_all_are_and_many_differ():
    assert look_like_numbers([str(i / 7) for i in range(40)])
    assert look_like_numbers([*(str(i / 7) for i in range(40)), "unclear"])
    assert not look_like_numbers([str(i % 10) for i in range(40)])  # digits are classes
    assert not look_like_numbers([f"species {i}" for i in range(40)])
    assert not look_like_numbers([])


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 5), st.booleans(), st.booleans())
def test_folds_test_every_sample_once_and_keep_groups_whole(seed, n_splits, grouped, tied):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, 60).astype(float) if tied else rng.exponential(size=60)
    groups = rng.integers(0, 15, 60) if grouped else None
    folds = make_folds(y, groups, FoldPlan(n_splits, 2, seed))
    for repeat in range(2):
        tests = [fold.test for fold in folds if fold.repeat == repeat]
        assert sorted(np.concatenate(tests).tolist()) == list(range(60))
    for fold in folds:
        assert np.array_equal(np.union1d(fold.train, fold.test), np.arange(60))
        if groups is not None:
            assert not set(groups[fold.train]) & set(groups[fold.test])


def test_every_fold_has_its_share_of_small_and_large_numbers():
    y = np.random.default_rng(0).exponential(size=100)
    bins = bin_numbers(y, 5)
    assert np.bincount(bins).tolist() == [10] * 10
    for fold in make_folds(y, None, FoldPlan(5)):
        assert np.bincount(bins[fold.test]).tolist() == [2] * 10


def test_bins_are_coarser_where_numbers_are_few_or_tied():
    assert len(np.unique(bin_numbers(np.arange(12.0), 5))) == 2
    assert len(np.unique(bin_numbers(np.arange(6.0), 5))) == 1
    assert bin_numbers(np.repeat([0.0, 1.0], 20), 5).tolist() == [0] * 20 + [1] * 20


def test_what_cannot_be_dealt_is_said_with_a_way_out():
    with pytest.raises(
        LabelsError, match=r"too few samples for 5 folds with 5 inner folds .*: 3; at least 7 are needed"
    ):
        make_folds(np.arange(3.0), None, FoldPlan(5, inner_splits=5))
    with pytest.raises(LabelsError, match=r"too few groups for 5 folds in cross-validation: 4; .* try --cv 4"):
        make_folds(np.arange(20.0), np.arange(20) % 4, FoldPlan(5))
    with pytest.raises(LabelsError, match="all 20 labels are 7 in cross-validation: there is nothing to predict"):
        make_folds(np.full(20, 7.0), None, FoldPlan(5))
    with pytest.raises(LabelsError, match="no labelled samples"):
        make_folds(np.array([]), None, FoldPlan(5))


def test_a_fold_column_prescribes_the_folds():
    column = np.array(["10", "2", "", "2", "10", "-1"], dtype=object)
    folds = make_folds(np.arange(6.0), None, FoldPlan(5), prescribed=column)
    assert [(fold.name, fold.test.tolist()) for fold in folds] == [("2", [1, 3]), ("10", [0, 4])]
    with pytest.raises(UsageError, match="--repeats 2"):
        make_folds(np.arange(6.0), None, FoldPlan(5, 2), prescribed=column)
    with pytest.raises(LabelsError, match="puts group"):
        make_folds(np.arange(6.0), np.zeros(6, dtype=np.int64), FoldPlan(5), prescribed=column)


def test_strata_are_ranges_of_numbers_and_classes_as_they_are():
    strata = strata_of(np.array([*(f"{i}.5" for i in range(40)), "unclear"]))
    assert np.unique(strata).tolist() == ["0.5 to 9.5", "10.5 to 19.5", "20.5 to 29.5", "30.5 to 39.5", "unclear"]
    classes = np.array(["a", "b"] * 20)
    assert strata_of(classes) is classes
