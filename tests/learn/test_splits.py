"""Groups, folds and evaluation plans."""

import re

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from sklearn.model_selection import PredefinedSplit, StratifiedGroupKFold, StratifiedKFold

from featx.errors import LabelsError, UsageError
from featx.learn.groups import resolve_groups
from featx.learn.plan import plan_evaluation
from featx.learn.splits import check_classes, find_small_classes, make_folds

LETTERS = np.array(list("abcdefgh"), dtype=object)


def grouped(seed, *, max_splits=4, max_classes=4):
    """Random labels and groups, few enough to be awkward."""
    r = np.random.default_rng(seed)
    n_groups, n_classes = int(r.integers(4, 9)), int(r.integers(2, max_classes + 1))
    n_splits, n = int(r.integers(2, max_splits + 1)), int(r.integers(10, 40))
    groups, codes = r.integers(0, n_groups, n), r.integers(0, n_classes, n)
    return LETTERS[codes], np.unique(groups, return_inverse=True)[1], n_splits


# ---- groups


@given(
    st.lists(st.tuples(st.sampled_from(["", "p", "q", "r"]), st.sampled_from(["", "x", "y", "z", "w"])), max_size=12)
)
def test_samples_share_a_group_exactly_when_a_chain_of_groups_and_bytes_joins_them(samples):
    result = resolve_groups([g for g, _ in samples], [s for _, s in samples], "column group")
    reach = [{i} for i in range(len(samples))]
    for _ in samples:
        for mine in reach:
            for i, (g, s) in enumerate(samples):
                if any((g and g == samples[j][0]) or (s and s == samples[j][1]) for j in mine):
                    mine.add(i)
    parts = {frozenset(mine) for mine in reach}
    if result.ids is None:
        assert all(len(part) == 1 for part in parts)
        assert not any(g for g, _ in samples)
    else:
        assert {frozenset(np.flatnonzero(result.ids == number).tolist()) for number in range(result.n)} == parts
        assert list(dict.fromkeys(result.ids.tolist())) == list(range(result.n))
        assert len(result.names) == result.n


def test_an_empty_group_is_a_group_of_its_own_when_some_are_given():
    result = resolve_groups(["p", "", "p", ""], ["1", "2", "3", "4"], "column patient", keys=["a", "b", "c", "d"])
    assert result.ids.tolist() == [0, 1, 0, 2]
    assert result.names == ("p", "b", "d")
    assert result.source == "column patient"
    assert result.given


def test_identical_bytes_join_groups_and_the_source_says_so():
    result = resolve_groups(["p", "q", "r"], ["1", "1", "2"], "column patient")
    assert result.ids.tolist() == [0, 0, 1]
    assert result.names == ("p + q", "r")
    assert result.source == "column patient, joined by identical bytes"


def test_identical_bytes_alone_are_grouped_but_no_groups_were_given():
    result = resolve_groups(["", "", ""], ["1", "2", "1"], "")
    assert result.ids.tolist() == [0, 1, 0]
    assert (result.source, result.given, result.n) == ("identical bytes", False, 2)
    nothing = resolve_groups(["", ""], ["", ""], "")
    assert nothing.ids is None
    assert (nothing.n, nothing.source) == (0, "")


# ---- folds


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(0, 3))
def test_no_group_is_ever_on_both_sides_and_every_training_part_holds_every_class(seed, n_repeats, random_state):
    y, groups, n_splits = grouped(seed)
    try:
        folds = make_folds(y, groups, n_splits=n_splits, n_repeats=n_repeats, random_state=random_state)
    except LabelsError:
        assume(False)
    assert [(fold.repeat, fold.number) for fold in folds] == [(r, k) for r in range(n_repeats) for k in range(n_splits)]
    for fold in folds:
        assert not set(groups[fold.train]) & set(groups[fold.test])
        assert set(y[fold.train]) == set(y)
        assert len(fold.test)
        assert sorted([*fold.train, *fold.test]) == list(range(len(y)))
    for repeat in range(n_repeats):
        tested = np.concatenate([fold.test for fold in folds if fold.repeat == repeat])
        assert sorted(tested) == list(range(len(y)))


@pytest.mark.parametrize("with_groups", [False, True])
def test_the_first_repeat_has_the_folds_of_scikit_learn(with_groups):
    y = np.repeat(LETTERS[:3], [20, 30, 40])
    groups = np.arange(90) // 2 if with_groups else None
    folds = make_folds(y, groups, n_splits=5, n_repeats=2, random_state=7)
    splitter = (StratifiedGroupKFold if with_groups else StratifiedKFold)(5, shuffle=True, random_state=7)
    expected = list(splitter.split(y, y, groups))
    for fold, (train, test) in zip(folds, expected, strict=False):
        assert fold.train.tolist() == sorted(train)
        assert fold.test.tolist() == sorted(test)
    again = make_folds(y, groups, n_splits=5, n_repeats=2, random_state=7)
    assert all((one.test == other.test).all() for one, other in zip(folds, again, strict=True))
    assert any((one.test.tolist() != other.test.tolist()) for one, other in zip(folds[:5], folds[5:], strict=True))
    assert folds[0].test.tolist() != make_folds(y, groups, n_splits=5, random_state=8)[0].test.tolist()


def test_other_shuffles_are_tried_until_every_test_part_holds_every_class():
    y, groups, n_splits = grouped(7)
    first = StratifiedGroupKFold(n_splits, shuffle=True, random_state=0).split(y, y, groups)
    assert any(set(y[test]) != set(y) for _, test in first)
    assert all(set(y[fold.test]) == set(y) for fold in make_folds(y, groups, n_splits=n_splits, random_state=0))


@pytest.mark.parametrize(("seed", "n_splits", "works"), [(459, 2, 3), (5086, 3, 2)])
def test_groups_that_cannot_be_dealt_are_refused_with_a_number_of_folds_that_works(seed, n_splits, works):
    y, groups, _ = grouped(seed, max_splits=3, max_classes=5)
    with pytest.raises(LabelsError, match=rf"whole groups into {n_splits} folds.*the class in.*try --cv {works}$"):
        make_folds(y, groups, n_splits=n_splits, random_state=0)
    assert make_folds(y, groups, n_splits=works, random_state=0)


def test_fewer_than_two_folds_are_a_usage_error():
    with pytest.raises(UsageError, match="--cv 1"):
        make_folds(["a", "b"], None, n_splits=1)


# ---- prescribed folds


def test_a_fold_column_prescribes_the_folds_as_predefined_split_does():
    column = ["2", "10", "2", "-1", "10", "", "1", "1"]
    y = list("ababbaab")
    folds = make_folds(y, None, n_splits=99, prescribed=column)
    assert [fold.name for fold in folds] == ["1", "2", "10"]
    numbers = [{"-1": -1, "": -1}.get(value, int(value or -1)) for value in column]
    for fold, (train, test) in zip(folds, PredefinedSplit(numbers).split(), strict=True):
        assert fold.test.tolist() == test.tolist()
        assert fold.train.tolist() == train.tolist()


@pytest.mark.parametrize(
    ("column", "groups", "message"),
    [
        (["x", "y", "x", "y"], [0, 0, 1, 2], "fold column puts group 'ann' into 'x' and 'y'"),
        (["x", "", "x", "y"], [0, 0, 1, 2], "puts group 'ann' into '' and 'x'"),
        (["x", "y", "x", "y"], None, "fold 'x' .* tests every sample of class 'a'"),
        (["x", "x", "x", "x"], None, "fold 'x' .* tests every sample of class 'a'"),
        (["", "-1", "", ""], None, "names no fold"),
    ],
)
def test_a_fold_column_that_cannot_be_used_is_refused(column, groups, message):
    groups = None if groups is None else np.array(groups)
    with pytest.raises(LabelsError, match=message):
        make_folds(list("abab"), groups, n_splits=2, prescribed=column, group_names=("ann", "bob", "cy"))


def test_a_group_whose_samples_are_never_tested_may_be_empty_or_minus_one():
    folds = make_folds(list("abab"), np.array([0, 0, 1, 2]), n_splits=2, prescribed=["", "-1", "x", "y"])
    assert [fold.train.tolist() for fold in folds] == [[0, 1, 3], [0, 1, 2]]


def test_repeats_of_prescribed_folds_are_a_usage_error():
    with pytest.raises(UsageError, match="repeat the same folds"):
        make_folds(list("abab"), None, n_splits=2, n_repeats=2, prescribed=["x", "x", "y", "y"])


# ---- classes that are too small


def test_one_class_only_and_no_samples_are_refused():
    with pytest.raises(LabelsError, match="only one class, 'ant'"):
        check_classes(["ant"] * 9, None, n_splits=3, what="cross-validation")
    with pytest.raises(LabelsError, match="no labelled samples"):
        check_classes([], None, n_splits=3, what="cross-validation")


def test_too_few_samples_name_the_class_and_offer_cv_and_min_per_class():
    y = ["ant"] * 9 + ["bee"] * 8 + ["wasp"] * 3
    with pytest.raises(LabelsError) as caught:
        check_classes(y, None, n_splits=5, what="cross-validation")
    assert str(caught.value) == (
        "too few samples for 5 folds in cross-validation: 'wasp' has 3; at least 5 needed. "
        "try --cv 3 or --min-per-class 5 (leaves out 1 of 3 classes)"
    )


def test_classes_are_counted_in_groups_when_there_are_groups():
    y = ["ant"] * 9 + ["bee"] * 9
    groups = np.array([*range(9), *[9] * 8, 10])
    check_classes(y, None, n_splits=5, what="cross-validation")
    with pytest.raises(LabelsError, match=r"too few groups .*'bee' has 2; at least 5 needed. try --cv 2$"):
        check_classes(y, groups, n_splits=5, what="cross-validation")
    y, groups = [*y, *"cccc"], np.array([*groups, 11, 12, 13, 13])
    assert find_small_classes(y, 3, groups) == ["bee"]
    assert find_small_classes(y, 5) == ["c"]


@pytest.mark.parametrize(("minimum", "n_left_out"), [(10, 3), (9, 2)])
def test_min_per_class_that_leaves_fewer_than_two_classes_says_so_by_its_name(minimum, n_left_out):
    y = ["ant"] * 9 + ["bee"] * 8 + ["wasp"] * 3
    message = rf"^--min-per-class {minimum} leaves out {n_left_out} of 3 classes.*largest have 9 and 8 samples$"
    with pytest.raises(LabelsError, match=message):
        find_small_classes(y, minimum)
    assert find_small_classes(y, 8) == ["wasp"]


def test_a_class_with_one_sample_gets_no_offer_that_cannot_work():
    with pytest.raises(LabelsError, match="give each class at least 5 samples"):
        check_classes(["ant"] * 9 + ["bee"], None, n_splits=5, what="cross-validation")


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.integers(2, 6),
    st.integers(1, 6),
    st.booleans(),
)
def test_what_the_message_offers_works(sizes, n_splits, inner_splits, pairs):
    """Every offer of check_classes, taken, gives folds (outer and inner) without an error or a warning."""
    y = np.repeat(LETTERS[: len(sizes)], np.array(sizes) * (2 if pairs else 1))
    groups = np.arange(len(y)) // 2 if pairs else None

    def nested(y, groups, outer, inner):
        for fold in make_folds(y, groups, n_splits=outer, inner_splits=inner):
            if inner > 1:
                sub = None if groups is None else groups[fold.train]
                make_folds(y[fold.train], sub, n_splits=inner)

    try:
        check_classes(y, groups, n_splits=n_splits, what="cross-validation", inner_splits=inner_splits)
    except LabelsError as error:
        if cv := re.search(r"--cv (\d+)(?: --inner-cv (\d+))?", str(error)):
            nested(y, groups, int(cv[1]), int(cv[2]) if cv[2] else inner_splits)
        if minimum := re.search(r"--min-per-class (\d+) \(leaves out (\d+)", str(error)):
            small = find_small_classes(y, int(minimum[1]), groups)
            assert 0 < len(small) == int(minimum[2]) <= len(sizes) - 2
            stay = ~np.isin(y, small)
            nested(y[stay], None if groups is None else groups[stay], n_splits, inner_splits)
    else:
        nested(y, groups, n_splits, inner_splits)


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 3))
def test_training_parts_keep_enough_groups_of_every_class_for_the_inner_folds(seed, inner_splits):
    y, groups, n_splits = grouped(seed)
    try:
        folds = make_folds(y, groups, n_splits=n_splits, inner_splits=inner_splits)
    except LabelsError as error:
        offer = re.search(r"no way .*try --cv (\d+)(?: --inner-cv (\d+))?$", str(error))
        assume(offer)
        inner_splits = int(offer[2]) if offer[2] else inner_splits
        folds = make_folds(y, groups, n_splits=int(offer[1]), inner_splits=inner_splits)
    for fold in folds:
        for name in set(y):
            assert len(set(groups[fold.train][y[fold.train] == name])) >= inner_splits


# ---- plans


def roles(plan):
    return {name: getattr(plan, name).tolist() for name in ("choose", "validate", "report", "fit")}


@pytest.mark.parametrize(
    ("splits", "scheme", "choose", "validate", "report", "fit"),
    [
        (["", "", ""], "nested-cv", [0, 1, 2], [], [0, 1, 2], [0, 1, 2]),
        (["train", "test", "train"], "test", [0, 2], [], [1], [0, 2]),
        (["train", "val", "test"], "val-test", [0], [1], [2], [0, 1]),
        (["train", "val", "train"], "val", [0, 2], [], [1], [0, 2]),
        (["train", "train", ""], "nested-cv", [0, 1], [], [0, 1], [0, 1]),
    ],
)
def test_split_auto_plans_by_the_parts_that_are_there(splits, scheme, choose, validate, report, fit):
    plan = plan_evaluation(splits)
    assert plan.scheme == scheme
    assert roles(plan) == {"choose": choose, "validate": validate, "report": report, "fit": fit}


def test_split_ignore_cross_validates_all_samples():
    plan = plan_evaluation(["train", "test", "", "oddity"], split="ignore")
    assert plan.scheme == "nested-cv"
    assert roles(plan) == {"choose": [0, 1, 2, 3], "validate": [], "report": [0, 1, 2, 3], "fit": [0, 1, 2, 3]}
    assert "ignored" in plan.description


def test_train_and_val_report_val_and_say_so():
    assert "no test part: the scores are those of val (1)" in plan_evaluation(["train", "train", "val"]).description


@given(st.lists(st.sampled_from(["train", "val", "test", ""]), min_size=1))
def test_reported_samples_never_enter_the_saved_head_unless_refit_all(splits):
    assume("train" in splits)
    plan, everything = plan_evaluation(splits), plan_evaluation(splits, refit="all")
    if plan.scheme != "nested-cv":
        assert not set(plan.report) & {*plan.fit, *plan.choose, *plan.validate}
    assert everything.fit.tolist() == [i for i, split in enumerate(splits) if split]
    assert (everything.report == plan.report).all()
    assert plan.n_without_split == splits.count("")
    assert ("left out of everything" in plan.description) == ("" in splits)


@pytest.mark.parametrize("splits", [["train", "test", "test"], ["train", "val", "test"], ["train", "test", "train"]])
def test_a_group_on_both_sides_of_a_split_is_refused_by_name(splits):
    groups = resolve_groups(["ann", "bob", "bob"], ["1", "2", "3"], "column patient")
    if splits[1] == splits[2]:
        assert plan_evaluation(splits, groups=groups).scheme == "test"
        return
    with pytest.raises(LabelsError, match=r"puts group 'bob' into .*--split ignore"):
        plan_evaluation(splits, groups=groups)
    assert plan_evaluation(splits, split="ignore", groups=groups).scheme == "nested-cv"


def test_a_group_may_reach_into_samples_without_a_split():
    groups = resolve_groups(["ann", "bob", "ann"], ["1", "2", "3"], "column patient")
    assert plan_evaluation(["train", "test", ""], groups=groups).fit.tolist() == [0]


@pytest.mark.parametrize(
    ("splits", "message"), [(["train", "holdout"], "unknown split 'holdout'"), (["test", "val"], "no sample is in")]
)
def test_splits_that_make_no_plan_are_refused(splits, message):
    with pytest.raises(LabelsError, match=message):
        plan_evaluation(splits)
