"""What is unlike the training set: distances against scikit-learn, and a rate that is kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.neighbors import NearestNeighbors

from featx.errors import UsageError
from featx.learn import novelty
from featx.learn.novelty import FARTHEST, NEIGHBOURS, check_false_alarms, fit_novelty, unit_length


def unit(X):
    return X / np.linalg.norm(X, axis=1, keepdims=True)


def test_the_distance_is_the_mean_over_the_nearest_rows_of_length_one():
    rng = np.random.default_rng(0)
    X, new = rng.normal(size=(60, 8)), rng.normal(size=(2000, 8))
    found = fit_novelty(X, None)
    reference = NearestNeighbors(n_neighbors=NEIGHBOURS).fit(unit(X)).kneighbors(unit(new))[0].mean(axis=1)
    np.testing.assert_allclose(found.distance(new), reference, atol=1e-5)
    np.testing.assert_allclose(found.distance(7 * new), found.distance(new), atol=1e-5)  # length says nothing


def test_a_training_images_own_distance_leaves_out_its_whole_group():
    rng = np.random.default_rng(0)
    X, groups = rng.normal(size=(40, 8)), np.repeat(np.arange(10), 4)
    found = fit_novelty(X, groups)
    for i in range(40):
        others = unit(X[groups != groups[i]])
        slow = np.sort(np.linalg.norm(others - unit(X)[i], axis=1))[:NEIGHBOURS].mean()
        assert found.distances[i] == pytest.approx(slow, abs=1e-5)
    assert found.n_groups == 10
    np.testing.assert_allclose(found.weights, 0.25)
    assert (found.distance(X) < found.distances).all()  # each is its own neighbour there


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 12))
def test_p_values_count_every_group_once(seed, n_groups):
    rng = np.random.default_rng(seed)
    groups = np.r_[np.arange(n_groups), rng.integers(n_groups, size=10)]
    found = fit_novelty(rng.normal(size=(len(groups), 3)), groups)
    asked = np.r_[rng.uniform(0, 2, size=5), found.distances[:2]]
    for distance, p in zip(asked, found.p_values(asked), strict=True):
        shares = [np.mean(found.distances[groups == g] >= distance) for g in range(n_groups)]
        assert p == pytest.approx((1 + sum(shares)) / (n_groups + 1))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 10))
def test_more_neighbours_only_bring_an_image_nearer(seed, n, more):
    """The monotonicity behind the proof of the rate; also where there are fewer neighbours than are asked for."""
    rng = np.random.default_rng(seed)
    rows, new = rng.normal(size=(n + more, 4)), rng.normal(size=(5, 4))
    few, many = fit_novelty(rows[:n], None), fit_novelty(rows, None)
    assert (many.distance(new) <= few.distance(new) + 1e-6).all()
    assert (many.distances[:n] <= few.distances + 1e-6).all()
    assert (few.distance(new) <= FARTHEST).all()


@pytest.mark.parametrize("per_group", [1, 4])
@pytest.mark.parametrize("rate", [0.05, 0.2])
def test_at_most_the_rate_of_images_like_the_training_set_is_called_unlike_and_not_far_fewer(per_group, rate):
    alarms = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        groups = np.repeat(np.arange(60), per_group)
        centres = rng.normal(size=(60 + 100, 6))
        X = centres[groups] + 0.5 * rng.normal(size=(len(groups), 6))
        new = centres[60:] + 0.5 * rng.normal(size=(100, 6))
        found = fit_novelty(X, None if per_group == 1 else groups)
        alarms.append(np.mean(found.is_unlike(found.distance(new), rate)))
    assert rate - 0.03 <= np.mean(alarms) <= rate + 0.005


def test_what_is_elsewhere_is_called_unlike():
    rng = np.random.default_rng(0)
    found = fit_novelty(rng.normal(size=(100, 10)) + 3, None)
    assert found.is_unlike(found.distance(rng.normal(size=(20, 10)) - 3)).all()
    assert found.is_unlike(found.distance(np.zeros((1, 10)))).all()  # black


def test_of_a_large_training_set_a_bounded_part_is_kept_and_the_rate_still_holds(monkeypatch):
    monkeypatch.setattr(novelty, "MOST_BYTES", 50 * 4 * 6)
    monkeypatch.setattr(novelty, "MOST_CALIBRATING", 80)
    alarms = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        found = fit_novelty(rng.normal(size=(300, 6)), None, random_state=seed)
        assert (found.rows.shape, len(found.distances), found.n_groups) == ((50, 6), 80, 80)
        alarms.append(np.mean(found.is_unlike(found.distance(rng.normal(size=(200, 6))))))
    assert 0.03 <= np.mean(alarms) <= 0.06
    again = fit_novelty(np.ones((300, 6)), None, random_state=3)
    np.testing.assert_array_equal(again.rows, fit_novelty(np.ones((300, 6)), None, random_state=3).rows)


def test_with_too_few_groups_nothing_is_called_unlike_and_it_says_why():
    rng = np.random.default_rng(0)
    found = fit_novelty(rng.normal(size=(72, 3)) + 5, np.repeat(np.arange(18), 4))
    far = found.distance(-np.ones((1, 3)))
    assert not found.is_unlike(far).any()
    assert "needs at least 19 groups, and there are 18" in found.too_few()
    assert found.is_unlike(far, 0.1).all()
    assert found.too_few(0.1) == ""


@pytest.mark.parametrize("rate", [0, 1, 5])
def test_a_rate_is_a_share(rate):
    with pytest.raises(UsageError, match=r"as in 0\.05"):
        check_false_alarms(rate)


def test_rows_of_zeros_stay_zeros():
    assert unit_length(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist() == [[0.0, 0.0], pytest.approx([0.6, 0.8])]
