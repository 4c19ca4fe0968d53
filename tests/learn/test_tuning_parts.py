"""The parts of a fine-tune: the folds of the frozen head, each with a validation part and a start of its own."""

import numpy as np
import pytest
from feature_files import apart
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from featx.errors import LabelsError
from featx.fit import FitOptions
from featx.learn.contest import enter
from featx.learn.study import Study
from featx.learn.tuning_parts import FINAL, plan_final, plan_parts, start_heads

LEAN = {"cv": 3, "inner_cv": 2, "C_grid": (1e-2, 1.0, 2), "scalings": ("standardise",), "n_jobs": 1}


def study_of(data, **changes):
    entries = enter(data, views=None, score_views=None, allow_missing=False)
    return Study.arrange(entries, FitOptions(**LEAN | changes))[0]


def in_groups(n, size=2, **more):
    """Two classes, groups of `size` samples of one class."""
    return apart(n, y=[f"class {i // size % 2}" for i in range(n)], groups=[f"p{i // size}" for i in range(n)], **more)


@pytest.mark.parametrize(
    ("heads", "starts"),
    [
        (("logreg",), ("logreg",)),
        (("knn",), ("logreg",)),
        (("knn", "svm-rbf", "prototype"), ("logreg",)),
        (("ridge", "knn", "lda"), ("ridge", "lda")),
        (("lda", "ridge"), ("ridge", "lda")),
    ],
)
def test_training_begins_with_linear_heads_or_a_logistic_regression(heads, starts):
    assert set(start_heads(heads)) == set(starts)
    assert start_heads(heads) == start_heads(tuple(reversed(heads)))


# ---- who is in which part


@pytest.mark.parametrize("validation", [0.0, 0.2, 0.5])
def test_every_fold_of_the_frozen_head_is_divided_and_no_group_is_in_two_parts(validation):
    study = study_of(in_groups(48))
    *folds, final = plan_parts(study, validation=validation)
    outer = list(study.outer_folds())
    assert [part.name for part in (*folds, final)] == [*(study.fold_name(fold) for fold in outer), FINAL]
    for part, fold in zip(folds, outer, strict=True):
        assert np.array_equal(part.test, study.plan.choose[fold.test])
        assert sorted([*part.train, *part.validate, *part.test]) == list(range(48))
    assert len(final.test) == 0
    assert sorted([*final.train, *final.validate]) == list(range(48))
    for part in (*folds, final):
        sides = [set(study.data.groups[rows]) for rows in (part.train, part.validate, part.test)]
        assert sum(map(len, sides)) == len(set.union(*sides))
        whole = len(part.train) + len(part.validate)
        assert len(part.validate) == pytest.approx(validation * whole, abs=4)
        assert set(study.data.y[part.train]) == {"class 0", "class 1"}
        assert not validation or set(study.data.y[part.validate]) == {"class 0", "class 1"}


@pytest.mark.parametrize("has_val", [True, False])
def test_a_fixed_part_is_the_only_one_that_is_scored(has_val):
    places = ["train", "train", "val" if has_val else "train", "test"]
    study = study_of(apart(48, splits=[places[i // 2 % 4] for i in range(48)]))
    (part,) = plan_parts(study, validation=0.2)
    splits = study.data.splits
    assert part.name == FINAL
    assert set(splits[part.test]) == {"test"}
    assert set(splits[part.train]) == {"train"}
    assert set(splits[part.validate]) == {"val" if has_val else "train"}
    assert len(part.test) == np.sum(splits == "test")


def test_the_kept_network_learns_from_all_samples_and_its_part_is_that_of_the_plan():
    study = study_of(in_groups(48))
    final, planned = plan_final(study, validation=0.25), plan_parts(study, validation=0.25)[-1]
    for name in ("train", "validate", "test"):
        assert np.array_equal(getattr(final, name), getattr(planned, name))
    np.testing.assert_array_equal(final.start.coef, planned.start.coef)


# ---- where they begin


def test_each_start_is_a_head_solved_on_its_own_training_samples_alone():
    study = study_of(in_groups(48, signal=2.0))
    X, y = study.entries[0].plain.astype(np.float64), study.data.y
    for part in plan_parts(study, validation=0.2):
        scaler = StandardScaler().fit(X[part.train])
        rows, n = scaler.transform(X), len(part.train)
        candidates = [
            LogisticRegression(C=C / scale, tol=1e-10, max_iter=10_000).fit(rows[part.train], y[part.train])
            for C in (1e-2, 1.0)
            for scale in (1.0, n)
        ]
        values = part.start.decisions(X)
        margins = values[:, 1] - values[:, 0]
        differences = [np.abs(margins - one.decision_function(rows)).max() for one in candidates]
        assert min(differences) < 1e-3


# ---- too few


def test_a_small_class_is_dealt_into_fewer_parts():
    study = study_of(apart(26, y=["class 0"] * 20 + ["class 1"] * 6), cv=2, inner_cv=3)
    for part in plan_parts(study, validation=0.1)[:-1]:
        assert np.sum(study.data.y[part.train] == "class 1") == 2
        assert np.sum(study.data.y[part.validate] == "class 1") == 1


@pytest.mark.parametrize("unit", ["samples", "groups"])
def test_where_a_class_is_too_small_to_be_divided_this_is_said(unit):
    y = ["class 0"] * 20 + ["class 1"] * 4
    groups = {} if unit == "samples" else {"groups": [f"p{i}" for i in range(24)]}
    with pytest.raises(LabelsError, match=f"too few {unit} of class 'class 1' .* has 1 of them. Take --validation 0"):
        plan_parts(study_of(apart(24, y=y, **groups), cv=2), validation=0.2)
    assert len(plan_parts(study_of(apart(24, y=y, **groups), cv=2), validation=0.0)) == 3
