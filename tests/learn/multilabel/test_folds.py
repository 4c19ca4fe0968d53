"""Folds that have their share of every label."""

import numpy as np
import pytest
from sklearn.model_selection import GroupKFold, KFold

from featx.errors import LabelsError
from featx.learn.multilabel.folds import deal_units, make_label_folds
from featx.learn.multilabel.labels import LabelTable


def table(n, shares, seed=0):
    rng = np.random.default_rng(seed)
    return LabelTable([f"label {k}" for k in range(len(shares))], rng.random((n, len(shares))) < shares)


def unevenness(marks, tests):
    """Largest distance of a fold's number of a label from its share, in samples."""
    counts = np.array([marks[test].sum(axis=0) for test in tests])
    return np.abs(counts - marks.sum(axis=0) / len(tests)).max()


SHARES = np.array([0.5, 0.2, 0.1, 0.05, 0.03])


def test_every_fold_has_its_share_of_every_label():
    ours, theirs = [], []
    for seed in range(5):
        labels = table(300, SHARES, seed)
        folds = make_label_folds(labels, None, n_splits=5, random_state=seed)
        assert sorted(np.concatenate([fold.test for fold in folds])) == list(range(300))
        ours.append(unevenness(labels.marks, [fold.test for fold in folds]))
        plain = KFold(5, shuffle=True, random_state=seed).split(labels.marks)
        theirs.append(unevenness(labels.marks, [test for _, test in plain]))
    assert max(ours) < 3
    assert np.mean(ours) < np.mean(theirs) / 3


def test_groups_stay_whole_and_labels_are_spread_better_than_by_groupkfold():
    ours, theirs = [], []
    for seed in range(5):
        labels = table(300, SHARES, seed)
        groups = np.random.default_rng(seed).integers(0, 100, 300)
        folds = make_label_folds(labels, groups, n_splits=5, random_state=seed)
        assert all(not set(groups[fold.train]) & set(groups[fold.test]) for fold in folds)
        assert all(labels.marks[fold.test].any(axis=0).all() for fold in folds)
        ours.append(unevenness(labels.marks, [fold.test for fold in folds]))
        theirs.append(unevenness(labels.marks, [test for _, test in GroupKFold(5).split(labels.marks, groups=groups)]))
    assert np.mean(ours) < np.mean(theirs) / 2


def test_the_smallest_case_is_dealt_as_by_hand():
    counts = np.array([[1, 0], [1, 0], [0, 1], [0, 1], [0, 0], [0, 0]])
    folds = deal_units(counts, np.ones(6, dtype=np.int64), 2, 0)
    assert all(sorted(folds[pair : pair + 2]) == [0, 1] for pair in (0, 2, 4))


def test_folds_are_the_same_for_the_same_seed_and_others_in_each_repeat():
    labels = table(60, np.array([0.3, 0.5]))
    one, two = (make_label_folds(labels, None, n_splits=3, n_repeats=2, random_state=4) for _ in range(2))
    assert all(np.array_equal(a.test, b.test) for a, b in zip(one, two, strict=True))
    assert not all(np.array_equal(a.test, b.test) for a, b in zip(one[:3], one[3:], strict=True))


def test_every_training_part_of_every_training_part_has_each_label_and_its_absence():
    marks = np.zeros((12, 2), dtype=bool)
    marks[:4, 0] = True
    marks[:-4, 1] = True
    labels = LabelTable(["rare", "common"], marks)
    for fold in make_label_folds(labels, None, n_splits=3, inner_splits=2):
        for inner in make_label_folds(labels.take(fold.train), None, n_splits=2):
            inside = labels.take(fold.train).take(inner.train).marks
            assert inside.any(axis=0).all()
            assert not inside.all(axis=0).any()


def test_what_is_too_rare_for_the_folds_is_named():
    labels = LabelTable(["rare", "fine"], np.array([[1, 1], [0, 1], [0, 0], [0, 0]], dtype=bool))
    with pytest.raises(LabelsError, match=r"too few samples for 2 folds in cross-validation: 'rare' is in 1;"):
        make_label_folds(labels, None, n_splits=2)
    with pytest.raises(LabelsError, match=r"too few groups .*'rare' is in 1, 'fine' is in 1"):
        make_label_folds(labels, np.array([0, 0, 1, 1]), n_splits=2)


def test_a_fold_column_prescribes_the_folds_and_must_leave_every_label_to_train_on():
    labels = LabelTable(["a"], np.array([[1], [0], [1], [0]], dtype=bool))
    folds = make_label_folds(labels, None, n_splits=5, prescribed=np.array(["x", "x", "y", "y"], dtype=object))
    assert [(fold.name, fold.test.tolist()) for fold in folds] == [("x", [0, 1]), ("y", [2, 3])]
    with pytest.raises(LabelsError, match="training without fold 'x': 'a' is in 0"):
        make_label_folds(labels, None, n_splits=5, prescribed=np.array(["x", "y", "x", "y"], dtype=object))
