"""The paired test: sign flips by unit, against exact references, and its size where neither procedure is better."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test, ttest_1samp
from sklearn.metrics import balanced_accuracy_score

from featx.learn.paired import Comparison, Comparisons, compare, compare_with_guessing, flip_signs
from featx.learn.scores import FoldPredictions
from featx.learn.splits import Fold, make_folds

CLASSES = ["ant", "bee"]
NONE = np.array([], dtype=np.int64)


def fixed(predicted, probabilities=None):
    return [FoldPredictions(Fold(0, 0, NONE, np.arange(len(predicted)), "test"), np.array(predicted), probabilities)]


def labels(n):
    return np.array([CLASSES[i % 2] for i in range(n)])


def calls(y, wrong):
    """Predictions that are right but for some places."""
    predicted = np.array(y)
    predicted[wrong] = np.where(predicted[wrong] == "ant", "bee", "ant")
    return predicted


def compare_fixed(y, one, two, scoring="accuracy", **options):
    return compare(y, ("one", "two"), fixed(one), fixed(two), CLASSES, scoring, is_fixed=True, **options)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(-3, 3), min_size=2, max_size=10))
def test_all_flips_are_those_of_scipys_paired_permutation_test(parts):
    parts = np.array(parts, dtype=float)
    other = permutation_test(
        (parts, np.zeros(len(parts))),
        lambda x, y, axis: np.sum(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    # scipy doubles the smaller tail; over all flips the distribution is symmetric, so that is both tails.
    assert flip_signs(parts) == pytest.approx(min(other.pvalue, 1.0))


def test_random_flips_come_close_to_all_flips_and_depend_on_the_seed_alone():
    parts = np.random.default_rng(0).normal(0.35, 1, 16)
    by_hand = np.array([(parts * (1 - 2 * (np.arange(2**16)[:, None] >> np.arange(16) & 1))).sum(axis=1)])
    exact = np.mean(np.abs(by_hand) >= abs(parts.sum()) - 1e-9)
    assert flip_signs(parts) == pytest.approx(exact, abs=0.015)
    assert flip_signs(parts, random_state=3) == flip_signs(parts, random_state=3)
    assert flip_signs(parts, stretch=2.0) > flip_signs(parts)


@pytest.mark.parametrize("flips", [(0, 6), (1, 7), (4, 4), (2, 2)])
def test_accuracy_on_a_fixed_part_has_the_exact_p_value_of_mcnemar(flips):
    y = labels(13)
    one, two = calls(y, list(range(flips[0]))), calls(y, list(range(flips[0], sum(flips))))
    found = compare_fixed(y, one, two)
    assert found.p_value == pytest.approx(binomtest(flips[0], sum(flips)).pvalue)
    assert found.difference == pytest.approx((flips[1] - flips[0]) / 13)
    assert (found.n_units, found.unit) == (13, "samples")
    assert found.scores == pytest.approx((np.mean(one == y), np.mean(two == y)))


def test_the_interval_of_a_difference_in_accuracy_is_that_of_the_paired_t_test():
    y = labels(40)
    one, two = calls(y, [0, 5]), calls(y, [1, 2, 3, 4, 5, 6, 7])
    found = compare_fixed(y, one, two)
    ci = ttest_1samp((one == y).astype(float) - (two == y), 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((ci.low, ci.high))
    assert found.folds == pytest.approx((found.difference,))


def test_a_group_of_copies_counts_as_one_sample():
    y = labels(12)
    one, two = calls(y, [0]), calls(y, [1, 2, 3, 4, 5, 6, 7])
    alone = compare_fixed(y, one, two)
    copied = compare_fixed(np.repeat(y, 3), np.repeat(one, 3), np.repeat(two, 3), groups=np.repeat(np.arange(12), 3))
    assert copied.p_value == pytest.approx(alone.p_value)
    assert (copied.n_units, copied.unit) == (12, "groups")
    assert compare_fixed(np.repeat(y, 3), np.repeat(one, 3), np.repeat(two, 3)).p_value < alone.p_value


def test_turned_round_the_difference_changes_its_sign_and_nothing_else():
    rng = np.random.default_rng(1)
    y = labels(30)
    one, two = (calls(y, rng.random(30) < share) for share in (0.2, 0.5))
    there, back = (compare_fixed(y, *pair, scoring="balanced_accuracy") for pair in ((one, two), (two, one)))
    assert there.difference == -back.difference
    assert there.difference == pytest.approx(balanced_accuracy_score(y, one) - balanced_accuracy_score(y, two))
    assert there.p_value == back.p_value


def test_the_same_predictions_are_a_tie_and_so_is_what_has_no_score():
    y = labels(20)
    same = compare_fixed(y, calls(y, [1]), calls(y, [1]))
    assert (same.difference, same.p_value, same.is_tie) == (0.0, 1.0, True)
    unknown = compare_fixed(y, calls(y, [1]), calls(y, []), scoring="roc_auc")
    assert (unknown.difference, unknown.p_value, unknown.is_tie) == (None, None, True)
    assert unknown.describe() == "roc_auc is undefined"
    assert unknown.to_dict()["tie"] is True


def test_beside_guessing_the_largest_class_of_the_training_part():
    y = labels(40)
    good = compare_with_guessing(y, "it", fixed(calls(y, [0])), CLASSES, "balanced_accuracy", y_train=np.array(["ant"]))
    assert good.scores == pytest.approx((0.975, 0.5))
    assert good.p_value < 0.001
    bad = compare_with_guessing(y, "it", fixed(["ant"] * 40), CLASSES, "balanced_accuracy", y_train=np.array(["ant"]))
    assert bad.is_tie
    assert bad.difference == 0


def comparison(one, two, difference, p_value):
    return Comparison(one, two, "accuracy", (0.9, 0.9 - difference), difference, p_value, 40, "groups")


def test_what_it_says():
    said = Comparisons(
        comparison("svm on a", "logreg on a", 0.01, 0.6),
        comparison("a", "b", -0.2, 0.001),
        comparison("the whole procedure", "guessing", 0.4, 1e-4),
        simpler="logreg on a is named first by featx heads",
    )
    assert said.describe() == [
        "b is better than a (accuracy 0.900 and 1.100, p = 0.001 over 40 groups)",
        "tie: svm on a and logreg on a cannot be told apart (accuracy 0.900 and 0.890, p = 0.6 over 40 groups); "
        "logreg on a is named first by featx heads",
        "better than guessing the largest class (accuracy 0.900 and 0.500, p = 0.0001 over 40 groups)",
    ]
    assert said.to_dict()["words"] == said.describe()
    nothing = Comparisons(None, None, comparison("the whole procedure", "guessing", 0.0, 1.0))
    assert nothing.describe()[0].startswith("tie: not to be told from guessing")
    assert nothing.to_dict()["runner_up"] is None


# Size and power of the test in a cross-validation


def nearest_mean(X, y, folds):
    parts = []
    for fold in folds:
        means = np.stack([X[fold.train][y[fold.train] == name].mean(axis=0) for name in CLASSES])
        distances = ((X[fold.test][:, None] - means) ** 2).sum(axis=2)
        parts.append(FoldPredictions(fold, np.array(CLASSES)[distances.argmin(axis=1)], None))
    return parts


def rejected(n_sets, signals, *, group=1, n=60):
    """Share of sets in which two feature sets of such signals are told apart."""
    found = []
    for seed in range(n_sets):
        rng = np.random.default_rng((7, seed))
        codes = np.repeat(rng.permutation(n // group) % 2, group)
        y, groups = np.array(CLASSES)[codes], np.repeat(np.arange(n // group), group)
        ids = groups if group > 1 else None
        folds = make_folds(y, ids, n_splits=5, random_state=seed)
        parts = []
        for signal in signals:
            X = rng.normal(size=(n, 5)) + np.repeat(rng.normal(size=(n // group, 5)), group, axis=0) * (group > 1)
            X[:, 0] += signal * (2 * codes - 1)
            parts.append(nearest_mean(X, y, folds))
        compared = compare(y, ("one", "two"), *parts, CLASSES, "balanced_accuracy", groups=ids, random_state=seed)
        found.append(not compared.is_tie)
    return float(np.mean(found))


@pytest.mark.slow
@pytest.mark.parametrize(("signal", "group"), [(0.0, 1), (0.7, 1), (0.7, 3)])
def test_equal_procedures_are_told_apart_in_no_more_than_one_of_twenty_sets(signal, group):
    n_sets = 150
    # 5 % of 150 sets are 7.5; 14 and more have a probability of 0.02 if the size is exactly 5 %
    assert rejected(n_sets, (signal, signal), group=group) <= 13 / n_sets


def test_what_is_clearly_better_is_told():
    assert rejected(30, (1.2, 0.1)) >= 0.9
