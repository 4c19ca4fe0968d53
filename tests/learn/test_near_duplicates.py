"""Near-duplicates: what is one, found without labels, whatever the scale of the features."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from featx.errors import LabelsError, UsageError
from featx.learn import near_duplicates
from featx.learn.near_duplicates import (
    EXPECTED_BY_CHANCE,
    SCALES,
    check_clusters,
    check_distance,
    find_near_duplicates,
    nearest_elsewhere,
    nearest_neighbours,
)


def noise(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def distances(X):
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    return cdist(centred, centred, "cosine")


def with_copies(n=200, d=60, every=10, by=0.2, seed=0):
    """Independent samples, and behind them a copy of each `every`-th with a little noise."""
    X = noise(n, d, seed)
    copies = X[::every] + by * noise(len(X[::every]), d, seed + 1)
    return np.concatenate([X, copies]), {(place, n + i) for i, place in enumerate(range(0, n, every))}


@given(n=st.integers(2, 40), d=st.integers(2, 30), m=st.integers(1, 50), seed=st.integers(0, 999))
@settings(max_examples=40, deadline=None)
def test_neighbours_are_those_of_the_whole_matrix_in_blocks_of_any_size(n, d, m, seed):
    X = noise(n, d, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(near_duplicates, "_BLOCK", 3 * n)
        found = nearest_neighbours(X, m)
    D = distances(X)
    np.fill_diagonal(D, np.inf)
    m = min(m, n - 1)
    assert found.index.shape == found.distance.shape == (n, m)
    np.testing.assert_allclose(found.distance, np.sort(D, axis=1)[:, :m], atol=2e-6)
    np.testing.assert_allclose(np.take_along_axis(D, found.index, 1), found.distance, atol=2e-6)


def test_small_distances_are_exact_to_more_digits_than_single_precision_has():
    X = noise(30, 40)
    X[1] = X[0] * np.float32(1 + 1e-7) + np.float32(1e-4) * noise(1, 40, 5)[0]
    found = nearest_neighbours(X, 1)
    assert found.index[0, 0] == 1
    assert found.distance[0, 0] == pytest.approx(distances(X)[0, 1], rel=1e-2)
    assert found.distance[0, 0] < 1e-8


@pytest.mark.parametrize("d", [12, 60, 500])
def test_copies_are_found_and_nothing_else_among_independent_samples(d):
    X, pairs = with_copies(d=d, by=0.2 if d > 12 else 0.05)
    found = find_near_duplicates(X)
    assert pairs <= set(map(tuple, found.pairs.tolist()))
    assert len(found) <= len(pairs) + 1  # one by chance is what EXPECTED_BY_CHANCE allows
    assert (np.diff(found.distances) >= 0).all()


@pytest.mark.parametrize(("n", "d"), [(15, 4), (60, 8), (150, 3), (400, 5), (400, 40)])
def test_chance_pairs_are_as_rare_as_promised(n, d):
    counts = [len(find_near_duplicates(noise(n, d, seed))) for seed in range(40)]
    # Poisson with this mean: 40 files with more than 25 pairs in all have a chance of one in 20,000.
    assert sum(counts) <= 40 * EXPECTED_BY_CHANCE + 15


@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-10, 10), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_units_and_place_of_the_features_do_not_matter(scale, shift, seed):
    X, _ = with_copies(60, 20, seed=seed)
    moved = (X.astype(np.float64) + shift) * scale
    one, other = find_near_duplicates(X), find_near_duplicates(moved.astype(np.float32))
    assert one.pairs.tolist() == other.pairs.tolist() or np.abs(shift) > 1  # where float32 rounds more
    assert [t.ratio for t in one.thresholds] == pytest.approx([t.ratio for t in other.thresholds], rel=1e-2)


@pytest.mark.parametrize("length", [2, 15, 40])
def test_series_are_found_though_all_of_a_samples_nearest_neighbours_are_of_its_own(length):
    n_series = 1200 // length
    X = np.repeat(noise(n_series, 50), length, axis=0) + 0.15 * noise(n_series * length, 50, 3)
    found = find_near_duplicates(X)
    series = np.arange(len(X)) // length
    assert (series[found.pairs[:, 0]] == series[found.pairs[:, 1]]).all()
    assert len(found) > 0.9 * n_series * length * (length - 1) / 2


def test_samples_of_one_class_are_no_duplicates_however_far_the_classes_are_apart():
    rng = np.random.default_rng(0)
    X = 30 * noise(2, 40)[rng.integers(2, size=400)] + noise(400, 40, 1)
    assert len(find_near_duplicates(X)) == 0


def test_equal_features_are_found_also_among_very_few_samples():
    X = noise(6, 5)
    X[4] = X[1]
    found = find_near_duplicates(X)
    assert found.pairs.tolist() == [[1, 4]]
    assert "equal features" in found.rule
    assert len(find_near_duplicates(noise(6, 5))) == 0
    for n in (0, 1, 2):
        assert len(find_near_duplicates(noise(n, 5))) == 0


def test_constant_features_have_no_direction_and_no_duplicates():
    assert len(find_near_duplicates(np.ones((30, 4), np.float32))) == 0


def test_many_equal_images_are_all_found():
    X = np.repeat(noise(40, 30), 10, axis=0)  # more equal ones than a partition of values can tell apart
    found = find_near_duplicates(X)
    assert len(found) == 40 * 45
    assert found.distances.max() < 1e-6


def test_a_given_distance_decides_alone():
    X, _ = with_copies()
    D = distances(X)
    found = find_near_duplicates(X, distance=0.5)
    expected = np.argwhere(np.triu(D <= 0.5, 1))
    assert sorted(map(tuple, found.pairs.tolist())) == sorted(map(tuple, expected.tolist()))
    assert (found.thresholds, found.distance) == ((), 0.5)
    assert "0.5, as asked for" in found.rule


def test_the_rule_names_every_scale():
    thresholds = find_near_duplicates(noise(1000, 30)).thresholds
    assert [one.k for one in thresholds] == list(SCALES)
    assert all(0 < one.ratio <= SCALES[one.k] and one.typical > 0 for one in thresholds)


@given(seed=st.integers(0, 999), n_parts=st.integers(2, 4), kept=st.integers(1, 5))
@settings(max_examples=30, deadline=None)
def test_the_nearest_of_another_part_is_that_of_the_whole_matrix(seed, n_parts, kept):
    X = noise(40, 6, seed)
    parts = np.random.default_rng(seed).integers(-2, n_parts, 40)
    rows = np.flatnonzero(parts >= 0)
    D = distances(X)
    D[parts[:, None] == parts] = np.inf
    D[:, parts < -1] = np.inf
    found = nearest_elsewhere(X, nearest_neighbours(X, kept), parts, rows)
    has_one = np.isfinite(D[rows]).any(axis=1)
    assert (found[~has_one] == -1).all()
    assert (found[has_one] == D[rows[has_one]].argmin(axis=1)).all()


def test_one_large_cluster_is_refused_and_groups_that_were_given_are_not():
    X = noise(100, 50)
    X[:30] = X[0] + 0.05 * noise(30, 50, 1)
    near = find_near_duplicates(X, distance=0.2)
    joined = np.array([0] * 30 + list(range(1, 71)))
    keys = [f"{i}.png" for i in range(100)]
    with pytest.raises(
        LabelsError, match=r"join 30 of 100 samples, '0.png' among them.*20%.*--near-duplicate-distance"
    ):
        check_clusters(joined, None, near, keys)
    check_clusters(joined, joined, near, keys)  # a patient with 30 images is as the user says
    check_clusters(None, None, near, keys)


@pytest.mark.parametrize("distance", [-0.1, 2.5, float("nan")])
def test_a_distance_is_from_0_to_2(distance):
    with pytest.raises(UsageError, match="expected 0 to 2"):
        check_distance(distance)


def test_progress_counts_the_samples_that_were_compared(monkeypatch):
    monkeypatch.setattr("featx.learn.near_duplicates._BLOCK", 50 * 20)
    told = []
    find_near_duplicates(np.random.default_rng(0).normal(size=(50, 4)), progress=lambda *of: told.append(of))
    assert told == [(20, 50), (40, 50), (50, 50)]
