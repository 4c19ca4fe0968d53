"""The draw of the part that is locked: whole groups, stratified."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import LabelsError, UsageError
from featx.learn.held_out import draw_held_out


@given(
    sizes=st.lists(st.integers(2, 60), min_size=2, max_size=5),
    fraction=st.sampled_from([0.1, 0.2, 0.25, 0.5]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_without_groups_each_class_gives_its_share_to_within_half_a_sample_and_at_least_one(sizes, fraction, seed):
    y = np.repeat([f"c{i}" for i in range(len(sizes))], sizes)
    drawn = draw_held_out(y, None, fraction=fraction, random_state=seed)
    for name, size in zip(np.unique(y), sizes, strict=True):
        n = int(drawn[y == name].sum())
        assert n == 1 or abs(n - fraction * size) <= 0.5 + 1e-9
        assert 0 < n < size


@given(seed=st.integers(0, 999), n_groups=st.integers(10, 60))
@settings(max_examples=40, deadline=None)
def test_groups_stay_whole_and_shares_are_near(seed, n_groups):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(n_groups), rng.integers(1, 6, n_groups))
    y = np.array(["a", "b"])[(groups + rng.integers(0, 2)) % 2]
    drawn = draw_held_out(y, groups, fraction=0.3, random_state=seed)
    assert all(len(set(drawn[groups == group])) == 1 for group in range(n_groups))
    for name in ("a", "b"):
        assert abs(drawn[y == name].sum() - 0.3 * (y == name).sum()) <= 3
        assert 0 < drawn[y == name].sum() < (y == name).sum()


def test_the_draw_depends_on_the_random_state_alone():
    y, groups = np.array(["a", "b"] * 50), np.repeat(np.arange(50), 2)
    one, same, other = (draw_held_out(y, groups, fraction=0.2, random_state=state) for state in (3, 3, 4))
    assert (one == same).all()
    assert (one != other).any()


def test_a_class_of_few_large_groups_gives_one_of_them():
    y, groups = np.array(["a"] * 40 + ["b"] * 20), np.array([*range(40), *[40] * 10, *[41] * 10])
    drawn = draw_held_out(y, groups, fraction=0.2, random_state=0)
    assert (drawn[y == "a"].sum(), drawn[y == "b"].sum()) == (8, 10)


def test_a_class_of_one_group_stays_open_and_the_others_are_drawn():
    y = np.array(["a"] * 20 + ["b"] * 20 + ["rare"] * 3)
    groups = np.array([*range(40), 40, 40, 40])
    drawn = draw_held_out(y, groups, fraction=0.2, random_state=0)
    assert (drawn[y == "a"].sum(), drawn[y == "b"].sum(), drawn[y == "rare"].sum()) == (4, 4, 0)


def test_many_groups_are_drawn_quickly():
    y = np.array(["a", "b", "c"])[np.random.default_rng(0).integers(3, size=50_000)]
    drawn = draw_held_out(y, None, fraction=0.2, random_state=0)
    assert abs(drawn.mean() - 0.2) < 1e-4


@pytest.mark.parametrize(
    ("y", "groups", "words"),
    [
        (["a", "b"], None, "two classes, each in at least two groups"),
        ([*"abcdefg"], None, r"e \(1\) and 2 more classes$"),
        (["a"] * 10, None, "two classes"),
        ([], None, "no labelled samples"),
        (["a", "b"] * 10, [0] * 20, "two classes, each in at least two groups"),
    ],
)
def test_what_cannot_be_on_both_sides_is_an_error(y, groups, words):
    y = np.array(y, dtype=str)
    with pytest.raises(LabelsError, match=words):
        draw_held_out(y, groups, fraction=0.2)


@pytest.mark.parametrize("fraction", [0, 1, -0.2, 1.5])
def test_a_fraction_lies_between_0_and_1(fraction):
    with pytest.raises(UsageError, match="--fraction"):
        draw_held_out(["a", "b"] * 10, None, fraction=fraction)


def test_a_share_that_leaves_nothing_open_is_an_error():
    with pytest.raises(LabelsError, match=r"no draw of whole groups.*Take another --fraction"):
        draw_held_out(["a", "a", "b", "b"], None, fraction=0.9)
