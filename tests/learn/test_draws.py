"""Small training sets: so many of each class, nested, and never of a group that is scored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featx.errors import LabelsError
from featx.learn.draws import deal, deal_episodes, shots_up_to


def labels_and_groups(seed, n_classes=3, n=60, n_groups=20):
    rng = np.random.default_rng(seed)
    return np.arange(n) % n_classes, rng.permutation(n) % n_groups


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.booleans())
def test_draws_hold_k_of_each_class_are_nested_and_apart_by_group_from_what_is_scored(seed, n_classes, grouped):
    codes, groups = labels_and_groups(seed, n_classes)
    deals = deal(codes, groups if grouped else None, repeats=6, random_state=seed)
    assert len(deals) == 6
    for one in deals:
        before = set()
        for k in range(1, one.most + 1):
            draw = one.draw(k)
            assert np.bincount(codes[draw.fitted]).tolist() == [k] * n_classes
            assert before <= set(draw.fitted)
            before = set(draw.fitted)
            apart = groups if grouped else np.arange(len(codes))
            assert not set(apart[draw.fitted]) & set(apart[draw.scored])
            everything = np.concatenate([draw.fitted, draw.rest, draw.scored])
            assert sorted(everything) == list(range(len(codes)))


def test_each_quarter_is_scored_in_turn_and_a_fixed_part_always():
    codes = np.arange(40) % 2
    deals = deal(codes, None, repeats=8)
    for start in (0, 4):
        assert sorted(np.concatenate([one.scored for one in deals[start : start + 4]])) == list(range(40))
    parts = np.arange(30), np.arange(30, 40)
    fixed = deal(codes, None, repeats=3, parts=parts)
    assert all(np.array_equal(one.scored, parts[1]) for one in fixed)
    assert fixed[0].draw(15).fitted.tolist() == parts[0].tolist()
    assert not np.array_equal(fixed[0].draw(5).fitted, fixed[1].draw(5).fitted)


def test_samples_come_from_as_many_groups_as_there_are():
    codes = np.zeros(40, dtype=np.int64)
    codes[20:] = 1
    groups = np.arange(40) // 4  # five of each class, four samples each
    for one in deal(codes, groups, repeats=5, parts=(np.arange(40), np.array([], dtype=np.int64))):
        for k, n_groups in ((1, 1), (3, 3), (5, 5), (7, 5)):
            drawn = one.draw(k).fitted
            assert len(set(groups[drawn[codes[drawn] == 0]])) == n_groups


def test_every_sample_is_drawn_equally_often():
    codes, parts = np.arange(20) % 2, (np.arange(20), np.arange(0))
    deals = deal(codes, None, repeats=2000, parts=parts)
    often = np.bincount(np.concatenate([one.draw(3).fitted for one in deals]), minlength=20)
    assert np.all(np.abs(often - 600) < 5 * np.sqrt(600))


@pytest.mark.parametrize(
    ("most", "shots"), [(1, (1,)), (2, (1, 2)), (30, (1, 2, 5, 10, 20, 30)), (100, (1, 2, 5, 10, 20, 50, 100))]
)
def test_shots_go_up_to_all_there_are(most, shots):
    assert shots_up_to(most) == shots


def test_episodes_have_ways_shots_and_queries_of_other_groups():
    codes, groups = labels_and_groups(3, n_classes=6, n=240, n_groups=80)
    for draw in deal_episodes(codes, groups, episodes=50, ways=4, shots=2, queries=5):
        own = np.unique(codes[draw.fitted])
        assert len(own) == 4
        assert np.bincount(codes[draw.fitted])[own].tolist() == [2] * 4
        assert np.bincount(codes[draw.scored])[own].tolist() == [5] * 4
        assert len(draw.scored) == 20
        assert not set(groups[draw.fitted]) & set(groups[draw.scored])


def test_episodes_that_cannot_be_had_say_so():
    codes = np.arange(20) % 2
    with pytest.raises(LabelsError, match="only 0 of 2 classes have 5 samples to learn"):
        deal_episodes(codes, None, episodes=2, ways=2, shots=5, queries=6)
    with pytest.raises(LabelsError, match="whole groups leave no 5"):
        deal_episodes(codes, np.zeros(20, dtype=np.int64), episodes=2, ways=2, shots=5, queries=5)
    with pytest.raises(LabelsError, match="no sample to draw"):
        deal(codes, None, repeats=2, parts=(np.flatnonzero(codes == 0), np.flatnonzero(codes == 1)))
