"""Prediction sets: the definition in plain words, the proof's identity, and what is found in simulation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import UsageError
from featx.learn.conformal import Conformal, check_coverage, choose_sets, floor, groups_needed


class Told:
    """A head whose probabilities are the features themselves."""

    def __init__(self, n_classes, power=1.0):
        self.classes_ = np.arange(n_classes)
        self.power = power

    def predict_proba(self, X):
        p = np.asarray(X) ** self.power
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


@st.composite
def situations(draw):
    """Some calibrating samples in groups, whole groups in folds, and one new image."""
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    n_classes, n_folds = draw(st.integers(2, 4)), draw(st.integers(1, 4))
    n = draw(st.integers(n_folds, 25))
    groups = np.r_[np.arange(n_folds), rng.integers(draw(st.integers(n_folds, 25)), size=n - n_folds)]
    folds = groups % n_folds
    # Few different values: ties must be counted as the definition says.
    conformity = rng.integers(1, 6, size=n) / 6
    heads = [Told(n_classes, power) for power in rng.integers(1, 3, size=n_folds)]
    sets = Conformal(
        heads, [str(k) for k in range(n_classes)], conformity, rng.integers(n_classes, size=n), folds, groups
    )
    return sets, rng.integers(1, 6, size=(3, n_classes)).astype(float)


@settings(max_examples=80, deadline=None)
@given(situations(), st.booleans())
def test_p_values_are_what_the_definition_says(situation, per_class):
    sets, X = situation
    found = sets.p_values(X, per_class=per_class)
    for row, x in enumerate(X):
        for k in range(len(sets.classes)):
            counted = np.flatnonzero(sets.true == k) if per_class else np.arange(len(sets.true))
            total, groups = 0.0, set(sets.groups[counted])
            for group in groups:
                own = [i for i in counted if sets.groups[i] == group]
                at_most = [
                    sets.conformity[i] <= sets.heads[sets.folds[i]].predict_proba(x[None])[0, k] for i in own
                ]  # fmt: skip
                total += sum(at_most) / len(own)
            assert found[row, k] == pytest.approx((1 + total) / (1 + len(groups)))


@settings(max_examples=60, deadline=None)
@given(situations())
def test_the_weighted_mean_of_the_folds_own_p_values_is_the_one_of_the_proof(situation):
    sets, X = situation
    n_folds, n_groups = len(set(sets.folds)), sets.n_groups
    mean = 0.0
    for fold in set(sets.folds):
        own = sets.folds == fold
        alone = Conformal(
            [sets.heads[fold]],
            sets.classes,
            sets.conformity[own],
            sets.true[own],
            np.zeros(own.sum(), int),
            sets.groups[own],
        )
        mean = mean + (alone.n_groups + 1) / (n_groups + n_folds) * alone.p_values(X)
    np.testing.assert_allclose(mean, (n_folds - 1 + (n_groups + 1) * sets.p_values(X)) / (n_groups + n_folds))


@settings(max_examples=50, deadline=None)
@given(st.floats(0.55, 0.99), st.integers(1, 500), st.integers(1, 20))
def test_the_floor_is_below_the_nominal_coverage_and_rises_to_one_minus_two_alpha(coverage, n_groups, n_folds):
    alpha = 1 - coverage
    found = floor(coverage, n_groups, n_folds)
    if n_groups < groups_needed(coverage):
        assert found == 1
        return
    assert max(0.0, 1 - 2 * alpha - 2 * (n_folds - 1) / (n_groups + n_folds)) <= found <= max(1 - 2 * alpha, 0) + 1e-12
    # The mean p-value that the proof needs below the threshold, from the p-value that a class needs to be left out.
    threshold = (n_folds - 1 + (n_groups + 1) * alpha) / (n_groups + n_folds)
    assert found == pytest.approx(max(0.0, 1 - 2 * threshold))
    assert floor(coverage, 10**9, n_folds) == pytest.approx(max(1 - 2 * alpha, 0), abs=1e-6)


def sets_of(n_groups, per_group=1, n_classes=3):
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(n_groups), per_group)
    true = groups % n_classes
    names = [f"class {k}" for k in range(n_classes)]
    return Conformal([Told(n_classes)] * 2, names, rng.random(len(groups)), true, groups % 2, groups, "groups")


@pytest.mark.parametrize(("coverage", "needed"), [(0.5, 1), (0.8, 4), (0.9, 9), (0.95, 19), (0.99, 99), (0.93, 14)])
def test_with_fewer_groups_than_needed_a_set_is_all_classes_and_says_why(coverage, needed):
    assert groups_needed(coverage) == needed
    X = np.array([[1.0, 1e-9, 1e-9]])
    enough, few = sets_of(needed, 5), sets_of(needed - 1, 5)
    assert choose_sets(enough.p_values(X), coverage, np.array([0])).sum() == 1
    assert enough.too_few(coverage) == ""
    if needed > 1:
        assert choose_sets(few.p_values(X), coverage, np.array([0])).all()
        assert f"needs at least {needed} groups to calibrate on, and there are {needed - 1}" in few.too_few(coverage)
        assert few.floor(coverage) == 1


def test_per_class_each_class_needs_its_own_groups():
    sets = sets_of(9 + 9 + 8)  # 9, 9 and 8 groups
    assert sets.n_groups_of_class.tolist() == [9, 9, 8]
    assert sets.too_few(0.9) == ""
    assert sets.too_few(0.9, per_class=True).endswith("needs at least 9 groups of each to calibrate on: class 2 (8).")
    inside = choose_sets(sets.p_values(np.array([[1.0, 1e-9, 1e-9]]), per_class=True), 0.9, np.array([0]))
    assert inside.tolist() == [[True, False, True]]
    assert sets.floor(0.9, per_class=True) == pytest.approx(min(1, floor(0.9, 9, 2)))


def test_a_set_that_would_be_empty_is_the_classifiers_own_decision():
    assert choose_sets(np.array([[0.01, 0.02], [0.5, 0.01]]), 0.9, np.array([0, 1])).tolist() == [
        [True, False],
        [True, False],
    ]


@pytest.mark.parametrize("coverage", [0, 1, 90, -0.1, float("nan")])
def test_a_coverage_is_a_share(coverage):
    with pytest.raises(UsageError, match=r"as in 0\.9"):
        check_coverage(coverage)


# Simulation: images of new groups, as the training groups are


class Means:
    """Nearest mean with soft edges; sharper than is true, so that the probabilities need not be."""

    def __init__(self, X, y, n_classes):
        self.classes_ = np.arange(n_classes)
        self.means = np.stack([X[y == k].mean(axis=0) if (y == k).any() else X.mean(axis=0) for k in self.classes_])

    def predict_proba(self, X):
        logs = -np.square(X[:, None] - self.means).sum(axis=2)
        p = np.exp(logs - logs.max(axis=1, keepdims=True))
        return p / p.sum(axis=1, keepdims=True)

    def predict(self, X):
        return self.predict_proba(X).argmax(axis=1)


def draw_groups(rng, means, n_groups, per_group, mixed):
    sizes = rng.integers(1, 2 * per_group, n_groups)
    groups = np.repeat(np.arange(n_groups), sizes)
    y = rng.integers(len(means), size=len(groups) if mixed else n_groups)
    y = y if mixed else y[groups]
    of_group, of_image = rng.normal(size=(n_groups, means.shape[1])), rng.normal(size=(len(groups), means.shape[1]))
    return means[y] + 0.8 * of_group[groups] + 0.6 * of_image, y, groups


def simulate(n_sets, *, n_groups, per_group=1, mixed=False, n_folds=5, coverage=0.9, per_class=False):
    """Mean over sets: coverage of sets as they are, and before empty ones are filled; every new group counts once."""
    found = []
    for seed in range(n_sets):
        rng = np.random.default_rng(seed)
        means = rng.normal(size=(3, 5))
        X, y, groups = draw_groups(rng, means, n_groups, per_group, mixed)
        folds = rng.permutation(np.arange(n_groups) % n_folds)[groups]
        heads = [Means(X[folds != k], y[folds != k], 3) for k in range(n_folds)]
        conformity = np.empty(len(y))
        for k, head in enumerate(heads):
            own = folds == k
            conformity[own] = head.predict_proba(X[own])[np.arange(own.sum()), y[own]]
        sets = Conformal(heads, list("abc"), conformity, y, folds, groups)
        new, true, others = draw_groups(rng, means, 200, per_group, mixed)
        p = sets.p_values(new, per_class=per_class)
        inside = choose_sets(p, coverage, heads[0].predict(new))
        weights = 1 / np.bincount(others)[others]
        if per_class:
            hits = [np.average(inside[true == k, k], weights=weights[true == k]) for k in range(3)]
            plain = [np.average(p[true == k, k] > 1 - coverage, weights=weights[true == k]) for k in range(3)]
        else:
            hits = [np.average(inside[np.arange(len(true)), true], weights=weights)]
            plain = [np.average(p[np.arange(len(true)), true] > 1 - coverage, weights=weights)]
        found.append((np.mean(hits), np.mean(plain), np.min(hits), sets.floor(coverage, per_class=per_class)))
    return np.mean(found, axis=0)


@pytest.mark.parametrize(
    "design",
    [
        pytest.param({"n_groups": 100}, id="samples"),
        pytest.param({"n_groups": 80, "per_group": 4}, id="groups of one class"),
        pytest.param({"n_groups": 80, "per_group": 4, "mixed": True}, id="groups of several classes"),
        pytest.param({"n_groups": 150, "per_class": True}, id="per class"),
    ],
)
def test_the_coverage_that_is_found_is_within_two_points_of_the_nominal(design):
    filled, plain, _, proven = simulate(60, **design)
    assert 0.88 <= plain <= filled <= 0.92
    assert plain >= proven


@pytest.mark.slow
@pytest.mark.parametrize("coverage", [0.8, 0.9, 0.95])
@pytest.mark.parametrize(
    "design",
    [
        {"n_groups": 50},
        {"n_groups": 100},
        {"n_groups": 400},
        {"n_groups": 100, "n_folds": 2},
        {"n_groups": 60, "n_folds": 60},
        {"n_groups": 80, "per_group": 6},
        {"n_groups": 80, "per_group": 6, "mixed": True},
        {"n_groups": 300, "per_group": 3},
        {"n_groups": 400, "per_class": True},
        {"n_groups": 250, "per_group": 3, "mixed": True, "per_class": True},
    ],
    ids=str,
)
def test_the_coverage_that_is_found_is_within_two_points_in_many_designs(design, coverage):
    filled, plain, _, proven = simulate(300, coverage=coverage, **design)
    assert coverage - 0.02 <= plain <= coverage + 0.02
    assert filled >= plain >= proven


def test_counting_images_instead_of_groups_would_not_cover():
    """Why groups count: twelve patients of some forty pictures each say nothing of one patient in fifty."""
    misses = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        means = rng.normal(size=(3, 5))
        X, y, groups = draw_groups(rng, means, 12, 40, False)
        X[:] = means[y] + 1.2 * rng.normal(size=(12, 5))[groups] + 0.1 * rng.normal(size=X.shape)
        folds = groups % 3
        heads = [Means(X[folds != k], y[folds != k], 3) for k in range(3)]
        conformity = np.array([heads[f].predict_proba(x[None])[0, k] for f, x, k in zip(folds, X, y, strict=True)])
        new_y = rng.integers(3, size=200)
        new = means[new_y] + 1.2 * rng.normal(size=(200, 5))
        for ids in (groups, np.arange(len(y))):
            p = Conformal(heads, list("abc"), conformity, y, folds, ids).p_values(new)
            misses.append(np.mean(p[np.arange(200), new_y] <= 0.02 + 1e-9))
    by_group, by_image = np.mean(np.reshape(misses, (-1, 2)), axis=0)
    assert by_group == 0
    assert by_image > 0.03
