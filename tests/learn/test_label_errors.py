"""The confident joint against the paper's definition in plain loops, and what the ranking promises."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.learn.groups import resolve_groups
from featx.learn.label_errors import confident_joint, find_label_errors, rank_labels
from featx.learn.quick import QuickTest
from featx.learn.search import Space

SPACE = Space(("logreg",), ("standardise",), (1e-2, 1.0), "neg_log_loss")


def by_the_paper(codes, probabilities):
    """Equations 1 to 3 of Northcutt et al. 2021."""
    n, m = probabilities.shape
    t = [np.mean([probabilities[x, j] for x in range(n) if codes[x] == j]) for j in range(m)]
    counts = np.zeros((m, m))
    for x in range(n):
        over = [j for j in range(m) if probabilities[x, j] >= t[j]]
        if over:
            counts[codes[x], max(over, key=lambda j: probabilities[x, j])] += 1
    calibrated = np.zeros((m, m))
    for i in range(m):
        labelled = np.sum(codes == i)
        calibrated[i] = counts[i] / counts[i].sum() * labelled if counts[i].sum() else labelled * np.eye(m)[i]
    return np.array(t), counts, calibrated


@given(st.integers(0, 100_000), st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_the_confident_joint_is_the_papers(seed, n_classes):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(n_classes), rng.integers(0, n_classes, 30)])
    probabilities = rng.dirichlet(np.ones(n_classes) * rng.uniform(0.2, 2), len(codes))
    found = confident_joint(codes, probabilities)
    thresholds, counts, calibrated = by_the_paper(codes, probabilities)
    assert found.thresholds == pytest.approx(thresholds)
    assert np.array_equal(found.counts, counts)
    assert found.calibrated == pytest.approx(calibrated)
    assert found.calibrated.sum(axis=1) == pytest.approx(np.bincount(codes))
    assert found.n_errors == pytest.approx(calibrated.sum() - np.trace(calibrated))


@given(st.integers(0, 100_000), st.sampled_from(["margin", "self_confidence"]))
@settings(max_examples=40, deadline=None)
def test_the_ranking_holds_every_sample_once_contradictions_first_by_margin(seed, rank_by):
    rng = np.random.default_rng(seed)
    codes = np.concatenate([np.arange(3), rng.integers(0, 3, 30)])
    probabilities = rng.dirichlet(np.ones(3), len(codes))
    joint = confident_joint(codes, probabilities)
    keys = [f"{i}.png" for i in range(len(codes))]
    issues = rank_labels(codes, probabilities, joint, list("abc"), keys, [""] * 33, np.zeros(33, int), rank_by)
    assert sorted(one.key for one in issues) == sorted(keys)
    assert [one.rank for one in issues] == list(range(1, 34))
    against = [one.suggested != one.label for one in issues]
    assert against == sorted(against, reverse=True)
    value = [one.margin if rank_by == "margin" else one.p_label for one in issues]
    for part in (True, False):
        some = [v for v, is_against in zip(value, against, strict=True) if is_against == part]
        assert some == sorted(some)
    for one in issues:
        row = probabilities[keys.index(one.key)]
        own = "abc".index(one.label)
        assert one.margin == pytest.approx(row[own] - np.delete(row, own).max())
        assert one.margin >= 0 or one.suggested != one.label
        assert not one.is_confident or one.suggested != one.label


def gaussians(n, d=8, n_classes=3, distance=5.0, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.arange(n) % n_classes
    centres = np.zeros((n_classes, d))
    centres[np.arange(n_classes), np.arange(n_classes)] = distance
    return centres[codes] + rng.normal(size=(n, d)), np.array(["ant", "bee", "fly"])[codes]


def find(X, y, groups=None, repeats=2):
    groups = [""] * len(y) if groups is None else groups
    ids = resolve_groups(groups, [""] * len(y), "column patient" if any(groups) else "")
    test = QuickTest.plan(y, ids, SPACE, cv=5, inner_cv=3, repeats=repeats)
    return find_label_errors(test, X, [str(i) for i in range(len(y))], groups)


def test_planted_errors_come_first_and_their_number_is_estimated():
    X, y = gaussians(240, distance=7.0)
    planted = np.random.default_rng(1).choice(240, 14, replace=False)
    wrong = y.copy()
    names = ["ant", "bee", "fly"]
    wrong[planted] = [names[(names.index(label) + 1) % 3] for label in y[planted]]
    found = find(X, wrong)
    of_planted = [one for one in found.issues if int(one.key) in planted]
    assert sum(one.rank <= 14 for one in of_planted) >= 13
    assert all(one in found.contradictions for one in of_planted)
    assert all(one.suggested == y[int(one.key)] for one in of_planted)
    assert all(one.n_against == found.n_repeats == 2 for one in of_planted)
    assert found.joint.n_errors == pytest.approx(14, abs=4)
    assert found.n_against <= 18
    assert sum(count for _, _, count in found.pairs) == found.n_confident


def test_clean_labels_are_left_in_peace():
    found = find(*gaussians(240))
    assert found.joint.n_errors <= 3
    assert found.n_against <= 3
    assert found.score.mean > 0.98


def test_a_wrong_label_is_found_although_its_patient_has_it_on_every_image():
    """By sample the patient's other images would confirm it; folds are dealt by whole groups."""
    X, y = gaussians(240, n_classes=2, distance=3.0)
    patients = [f"p{i // 2 // 4 * 2 + i % 2}" for i in range(240)]  # four images of one class each
    rng = np.random.default_rng(0)
    own = {name: rng.normal(size=8) * 3 for name in sorted(set(patients))}
    X[:, 2:] += np.array([own[name] for name in patients])[:, 2:]
    wrong = y.copy()
    whose = [i for i, name in enumerate(patients) if name == "p10"]
    wrong[whose] = "bee" if y[whose[0]] == "ant" else "ant"
    found = find(X, wrong, patients)
    assert {int(one.key) for one in found.issues[:6]} >= set(whose)


def test_the_csv_has_one_line_for_each_sample():
    X, y = gaussians(60)
    found = find(X, y, repeats=1)
    header, *rows = found.iter_csv_rows()
    assert header[:5] == ["rank", "key", "group", "label", "suggested"]
    assert len(rows) == 60
    assert all(len(row) == len(header) for row in rows)
    assert [row[8] for row in rows].count("yes") == found.n_against
