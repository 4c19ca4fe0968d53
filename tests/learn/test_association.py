"""Cramer's V against the direct formula, and permutations that keep groups whole."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.stats import chi2_contingency, false_discovery_control
from scipy.stats.contingency import crosstab

from featx.learn.association import adjust_holm, associate, cramers_v, weighted_table


def bergsma(a, b):
    """The published formula on scipy's chi square."""
    table = crosstab(a, b).count
    n, (r, c) = table.sum(), table.shape
    phi2 = chi2_contingency(table, correction=False).statistic / n
    phi2 = max(0.0, phi2 - (r - 1) * (c - 1) / (n - 1))
    rows, columns = r - (r - 1) ** 2 / (n - 1), c - (c - 1) ** 2 / (n - 1)
    return np.sqrt(phi2 / min(rows - 1, columns - 1))


@given(st.integers(0, 10_000), st.integers(2, 4), st.integers(2, 4), st.floats(0, 1))
@settings(max_examples=40, deadline=None)
def test_without_groups_it_is_bergsmas_formula(seed, n_a, n_b, share):
    rng = np.random.default_rng(seed)
    a = np.concatenate([np.arange(4) % n_a, rng.integers(0, n_a, 60)])
    b = np.where(rng.random(64) < share, a % n_b, rng.integers(0, n_b, 64))
    b[:n_b] = np.arange(n_b)
    assert cramers_v(a, b) == pytest.approx(min(1.0, bergsma(a, b)), abs=1e-12)


def test_a_renaming_is_1_and_one_value_is_0():
    a = np.arange(40) % 3
    assert cramers_v(a, np.array(["x", "y", "z"])[a]) == pytest.approx(1.0)
    assert cramers_v(a, np.zeros(40)) == 0.0
    assert cramers_v(np.arange(40), np.arange(40)) == 0.0  # one sample each says nothing


@example(seed=148)  # no association at all, but for rounding
@given(st.integers(0, 10_000))
@settings(max_examples=20, deadline=None)
def test_more_samples_of_the_same_groups_change_nothing(seed):
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 3, 30), rng.integers(0, 2, 30)
    repeats = rng.integers(1, 6, 30)
    groups = np.repeat(np.arange(30), repeats)
    many_a, many_b = np.repeat(a, repeats), np.repeat(b, repeats)
    assert cramers_v(many_a, many_b, groups) == pytest.approx(cramers_v(a, b))
    assert weighted_table(many_a, many_b, groups) == pytest.approx(weighted_table(a, b))
    few = associate(many_a, many_b, groups, n_permutations=99)
    assert few.p_value == associate(a, b, None, n_permutations=99).p_value
    assert few.n_units == 30


def test_samples_of_few_groups_are_no_proof():
    """200 samples of eight patients: what looks certain by sample is chance by patient."""
    groups = np.repeat(np.arange(8), 25)
    site = np.array([0, 0, 0, 0, 1, 1, 1, 1])[groups]
    label = np.array([0, 0, 0, 1, 0, 1, 1, 1])[groups]
    assert associate(site, label, None).p_value < 0.001
    assert associate(site, label, groups).p_value > 0.2


def test_the_p_value_is_that_of_all_permutations():
    a, b = np.array([0, 0, 0, 1, 1, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1, 1, 0])
    # Fisher's exact test, two-sided by the size of chi square: tables as far from independence as this one.
    from scipy.stats import hypergeom

    chances = hypergeom(8, 4, 3)
    far = [k for k in range(4) if abs(k - 1.5) >= 1.5]
    exact = sum(chances.pmf(k) for k in far)
    assert associate(a, b, None, n_permutations=4000).p_value == pytest.approx(exact, abs=0.02)


@pytest.mark.parametrize("design", ["column by group", "label by group", "both within groups"])
def test_chance_is_called_chance(design):
    """Under independence a p-value is at most 0.1 in about a tenth of all cases, whatever is constant in groups."""
    small = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(24), rng.integers(1, 4, 24))
        a, b = rng.integers(0, 2, 24)[groups], rng.integers(0, 2, 24)[groups]
        if design == "label by group":
            a = np.where(rng.random(len(a)) < 0.3, 1 - a, a)
        if design == "both within groups":
            a, b = (np.where(rng.random(len(a)) < 0.3, 1 - column, column) for column in (a, b))
        small += associate(a, b, groups, n_permutations=59, random_state=seed).p_value <= 0.1
    assert 6 <= small <= 36  # 20 expected; both ends are beyond three standard deviations


def test_association_within_groups_is_found():
    """Of each patient one sick and one sound eye, always taken by different operators."""
    groups = np.repeat(np.arange(20), 2)
    label = np.arange(40) % 2
    found = associate(label, label, groups)
    assert found.p_value < 0.001
    assert "within groups" in found.permuted


@given(st.lists(st.floats(0.0001, 1), min_size=1, max_size=8))
def test_holm_is_between_plain_and_bonferroni_and_keeps_the_order(p_values):
    adjusted = adjust_holm(p_values)
    for p, q in zip(p_values, adjusted, strict=True):
        assert p <= q <= min(1.0, len(p_values) * p) + 1e-12 or q == max(adjusted)
    order = np.argsort(p_values, kind="stable")
    assert np.all(np.diff(np.array(adjusted)[order]) >= 0)
    assert all(q >= r - 1e-12 for q, r in zip(adjusted, false_discovery_control(p_values), strict=True))
    assert adjust_holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
