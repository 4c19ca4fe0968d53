"""Intervals: published values, hand computations, and independent loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, t
from sklearn.metrics import f1_score, roc_auc_score

from featx.learn.intervals import (
    bootstrap_intervals,
    effective_ends,
    nadeau_bengio_interval,
    proportion_interval,
    resampling_units,
    wilson_interval,
)
from featx.learn.metrics import encode_predictions, statistic


# The examples of Newcombe, Two-sided confidence intervals for the single proportion, Statistics in Medicine 17 (1998).
@pytest.mark.parametrize(
    ("n_right", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_gives_the_published_intervals(n_right, n, low, high):
    interval = wilson_interval(n_right, n)
    assert (round(interval.low, 4), round(interval.high, 4)) == (low, high)
    assert interval.mean == n_right / n
    assert interval.method == f"Wilson ({n} samples)"


@given(st.integers(1, 2000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_the_proportion_and_mirrors(pair):
    n_right, n = pair
    interval, mirror = wilson_interval(n_right, n), wilson_interval(n - n_right, n)
    assert 0 <= interval.low <= interval.mean <= interval.high <= 1
    assert interval.low == pytest.approx(1 - mirror.high, abs=1e-12)
    assert interval.high - interval.low > 0


def test_wilson_of_nothing_is_undefined():
    assert wilson_interval(0, 0).mean is None


def exact_coverage(n, p):
    """How often Wilson's interval holds p, as the exact sum over all outcomes."""
    outcomes = np.arange(n + 1)
    ends = [wilson_interval(int(k), n) for k in outcomes]
    holds = np.array([end.low <= p <= end.high for end in ends])
    return float(binom.pmf(outcomes, n, p)[holds].sum())


def test_wilsons_coverage_is_the_published_one():
    # Agresti and Coull, Approximate is better than "exact", The American Statistician 52 (1998): its worst is 0.838, at
    # p = 0.1765 / n; over all p the mean is close to 0.95.
    lowest = wilson_interval(1, 1000).low
    assert lowest * 1000 == pytest.approx(0.1765, abs=2e-4)
    assert exact_coverage(1000, lowest * 0.9999) == pytest.approx(0.838, abs=1e-3)
    for n in (15, 40):
        mean = np.mean([exact_coverage(n, p) for p in (np.arange(400) + 0.5) / 400])
        assert mean == pytest.approx(0.953, abs=0.003)


@given(st.integers(2, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_at_the_variance_of_a_proportion_the_effective_sample_size_is_that_of_its_trials(pair):
    n_right, n = pair
    share = n_right / n
    low, high = effective_ends(share, share * (1 - share) / n, 1e9, np.array([1e-9]))
    if 0 < n_right < n:
        expected = wilson_interval(n_right, n)
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-5)
    half_way, _ = effective_ends(share, share * (1 - share) / n, 1e9, np.array([1 / n]), inflation=2.0)
    assert 0 <= half_way <= low + 1e-9


@pytest.mark.parametrize("n", [5, 40, 400])
def test_without_an_error_the_effective_sample_size_is_that_of_the_trials_less_a_quarter(n):
    # With a quarter of a unit that went wrong: (a / n) (1 - a / n) / (a / n^2) = n - a. Wilson's end is n / (n + z^2).
    end = (n - 0.25) / (n - 0.25 + 1.959964**2)
    assert effective_ends(1.0, 0.0, 1e9, np.array([1 / n])) == (pytest.approx(end), 1.0)
    assert effective_ends(0.0, 0.0, 1e9, np.array([1 / n])) == (0.0, pytest.approx(1 - end))


def test_nadeau_bengio_equals_the_hand_computation():
    # mean 0.88; squared deviations sum to 0.013, so s^2 = 0.00325; (1/5 + 1/4) s^2 = 0.0014625, its root 0.0382426;
    # t(0.975, 4 df) = 2.776445 from the tables: 0.88 -+ 0.1061786.
    interval = nadeau_bengio_interval([0.8, 0.9, 0.85, 0.95, 0.9], 5)
    assert interval.mean == pytest.approx(0.88)
    assert interval.low == pytest.approx(0.7738214, abs=1e-6)
    assert interval.high == pytest.approx(0.9861786, abs=1e-6)
    assert interval.folds == [0.8, 0.9, 0.85, 0.95, 0.9]
    assert interval.method == "Nadeau-Bengio corrected t (5 folds)"


@given(st.integers(2, 6), st.integers(1, 4), st.integers(0, 10**6))
def test_nadeau_bengio_of_repeats_has_the_corrected_variance_and_k_r_minus_1_degrees(k, r, seed):
    values = np.random.default_rng(seed).uniform(0.45, 0.55, k * r)
    interval = nadeau_bengio_interval(values.tolist(), k, r, limits=(-np.inf, np.inf))
    low, high = t.interval(
        0.95, k * r - 1, loc=values.mean(), scale=np.sqrt((1 / (k * r) + 1 / (k - 1)) * values.var(ddof=1))
    )
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert (f"x {r} repeats" in interval.method) == (r > 1)


def test_nadeau_bengio_is_cut_off_at_the_range_of_the_score():
    interval = nadeau_bengio_interval([1.0, 0.7, 1.0, 1.0], 4)
    assert interval.high == 1.0
    assert interval.low < 0.925
    assert nadeau_bengio_interval([-0.1, -2.0], 2, limits=(-np.inf, 0.0)).high == 0.0


def test_folds_without_a_value_are_left_out_and_counted():
    values = [0.8, None, 0.9, 0.7, None]
    interval = nadeau_bengio_interval(values, 5)
    assert interval.mean == pytest.approx(0.8)
    half = t.ppf(0.975, 2) * np.sqrt((1 / 3 + 1 / 4) * 0.01)
    assert interval.high == pytest.approx(min(0.8 + half, 1))
    assert interval.low == pytest.approx(0.8 - half)
    assert interval.folds == values
    assert "undefined in 2 of 5" in interval.method


@pytest.mark.parametrize(
    ("values", "mean", "words"),
    [
        ([0.9], 0.9, "single fold"),
        ([None, 0.9], 0.9, "single fold"),
        ([None, None], None, "undefined"),
        ([1.0, 1.0, 1.0], 1.0, "every fold gave the same value"),
    ],
)
def test_no_interval_where_the_folds_carry_none(values, mean, words):
    interval = nadeau_bengio_interval(values, len(values))
    assert (interval.mean, interval.low, interval.high) == (mean, None, None)
    assert words in interval.method


# ---- bootstrap


def sample(seed, n=60, n_groups=12):
    r = np.random.default_rng(seed)
    y = r.choice(["a", "b"], n)
    probability = np.clip(0.3 * (y == "b") + r.uniform(0, 0.7, n), 0, 1).round(1)
    scores = np.stack([1 - probability, probability], axis=1)
    return y, np.where(probability > 0.5, "b", "a"), scores, r.integers(0, n_groups, n)


def bootstrap(name, y, predicted, scores, groups, **options):
    predictions = encode_predictions(y, predicted, scores, ["a", "b"])
    units, n_units = resampling_units(groups, len(y))
    unit = "samples" if groups is None else "groups"
    statistics = {name: statistic(name, predictions, units, n_units)}
    return bootstrap_intervals(statistics, n_units, unit=unit, **options)[name]


@pytest.mark.parametrize("name", ["roc_auc", "f1_macro"])
def test_bootstrap_by_group_equals_a_plain_loop_over_resampled_groups(name):
    y, predicted, scores, groups = sample(0)
    interval = bootstrap(name, y, predicted, scores, groups, n_boot=300, random_state=5)
    names = np.unique(groups)
    drawn = np.random.default_rng(5).integers(len(names), size=(len(names), 300))
    values = []
    for column in drawn.T:
        rows = np.concatenate([np.flatnonzero(groups == names[place]) for place in column])
        if name == "roc_auc":
            values.append(roc_auc_score(y[rows] == "b", scores[rows, 1]))
        else:
            values.append(f1_score(y[rows], predicted[rows], average="macro", zero_division=0))
    low, high = np.percentile(values, [2.5, 97.5])
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.method == "percentile bootstrap (12 groups, 300 resamples)"


def test_bootstrap_is_settled_by_random_state():
    first = bootstrap("accuracy", *sample(1), random_state=3)
    assert first == bootstrap("accuracy", *sample(1), random_state=3)
    assert first != bootstrap("accuracy", *sample(1), random_state=4)


@pytest.mark.parametrize("name", ["balanced_accuracy", "accuracy", "f1_macro", "roc_auc", "neg_log_loss"])
def test_copies_of_a_sample_in_its_group_add_no_certainty(name):
    y, predicted, scores, _ = sample(2)
    single = bootstrap(name, y, predicted, scores, None, random_state=0)
    copies = np.repeat(np.arange(len(y)), 4)
    by_group = bootstrap(name, y[copies], predicted[copies], scores[copies], copies, random_state=0)
    assert (by_group.mean, by_group.low, by_group.high) == pytest.approx((single.mean, single.low, single.high))
    careless = bootstrap(name, y[copies], predicted[copies], scores[copies], None, random_state=0)
    assert careless.high - careless.low < 0.7 * (single.high - single.low)


def test_resamples_without_a_value_are_left_out_and_counted():
    y = np.array(["a"] * 20 + ["b"])
    scores = np.stack([np.linspace(1, 0, 21), np.linspace(0, 1, 21)], axis=1)
    scores[[3, 20]] = scores[[20, 3]]
    interval = bootstrap("roc_auc", y, y, scores, None, n_boot=1000)
    n_undefined = int(interval.method.split("undefined in ")[1].rstrip(")"))
    assert n_undefined == pytest.approx(1000 * (20 / 21) ** 21, abs=60)
    assert interval.low < interval.mean < interval.high


@pytest.mark.parametrize(
    ("y", "predicted", "groups", "words"),
    [
        ("abab", "abab", None, "every resample gave the same value"),
        ("abab", "abbb", [0, 0, 0, 0], "fewer than two groups"),
        ("a", "b", None, "fewer than two samples"),
        ("", "", None, "undefined"),
    ],
)
def test_no_bootstrap_interval_where_the_samples_carry_none(y, predicted, groups, words):
    interval = bootstrap("accuracy", list(y), list(predicted), None, groups)
    assert (interval.low, interval.high) == (None, None)
    assert words in interval.method


# ---- proportions


def test_a_proportion_of_single_samples_has_wilsons_interval():
    right = np.arange(20) < 15
    assert proportion_interval(right, np.ones(20, bool), None) == wilson_interval(15, 20)
    assert proportion_interval(right, np.ones(20, bool), np.arange(20)) == wilson_interval(15, 20)


def test_repeats_do_not_narrow_a_proportion():
    right, among = np.arange(20) < 15, np.ones(20, bool)
    once = proportion_interval(right, among, None)
    for groups in (None, np.tile(np.arange(20), 3)):
        assert proportion_interval(np.tile(right, 3), np.tile(among, 3), groups, n_repeats=3) == once


def test_a_proportion_of_grouped_samples_is_as_sure_as_its_groups():
    r = np.random.default_rng(0)
    groups = np.repeat(np.arange(15), 6)
    right = (r.random(15) > 0.4)[groups]
    interval = proportion_interval(right, np.ones(90, bool), groups)
    careless, of_groups = wilson_interval(right.sum(), 90), wilson_interval(right[::6].sum(), 15)
    assert interval.mean == careless.mean
    # Of t with 14 degrees of freedom, and of a variance from 15 groups: somewhat wider than theirs.
    assert 1 < (interval.high - interval.low) / (of_groups.high - of_groups.low) < 1.15
    assert interval.high - interval.low > 1.5 * (careless.high - careless.low)
    assert interval.method == "Wilson at the effective sample size (15 groups)"


def test_where_all_groups_agree_each_group_is_one_trial():
    interval = proportion_interval(np.ones(40, bool), np.arange(40) < 30, np.arange(40) // 5)
    assert interval.high == 1.0
    # Wilson with the quantile of t for 5 degrees of freedom, at 6 trials less a quarter: n / (n + q^2)
    assert interval.low == pytest.approx(5.75 / (5.75 + 2.570582**2))
    assert interval.method == "Wilson at the effective sample size (6 groups)"


def test_inflation_is_a_smaller_number_of_trials():
    right, among = np.arange(40) < 30, np.ones(40, bool)
    interval = proportion_interval(right, among, None, inflation=2.0)
    assert (interval.low, interval.high) == (wilson_interval(15, 20).low, wilson_interval(15, 20).high)
    assert interval.method == "Wilson at the effective sample size (40 samples)"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_a_proportion_lies_in_its_range_and_is_never_a_nan(seed):
    r = np.random.default_rng(seed)
    n = int(r.integers(1, 15))
    right, among, groups = r.random(n) < 0.5, r.random(n) < 0.7, r.integers(0, 4, n)
    interval = proportion_interval(right, among, groups)
    if not among.any():
        assert interval.mean is None
    else:
        assert interval.mean == np.mean(right[among])
        assert 0 <= interval.low <= interval.high <= 1
