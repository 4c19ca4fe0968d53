"""Scores over draws and samples, and resamples of both."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from featx.learn.crossed import Resamples, crossed_score

N, DRAWS = 40, 6


@pytest.fixture
def table():
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 3, N)
    scored = [np.sort(rng.permutation(N)[:25]) for _ in range(DRAWS)]
    return codes, scored, [rng.random(25) < 0.7 for _ in range(DRAWS)]


def test_the_mean_is_that_of_scikit_learns_balanced_accuracy(table):
    codes, scored, right = table
    found = crossed_score(right, scored, codes, Resamples.of(DRAWS, N, None, n=50), "balanced_accuracy")
    own = []
    for rows, ok in zip(scored, right, strict=True):
        called = np.where(ok, codes[rows], (codes[rows] + 1) % 3)
        own.append(balanced_accuracy_score(codes[rows], called))
    assert np.allclose(found.interval.folds, own)
    assert found.interval.mean == pytest.approx(np.mean(own))


@pytest.mark.parametrize("grouped", [False, True])
def test_a_resample_is_the_score_of_the_draws_and_samples_taken_so_often(table, grouped):
    codes, scored, right = table
    groups = np.arange(N) // 3 if grouped else None
    resamples = Resamples.of(DRAWS, N, groups, n=20, random_state=3)
    if grouped:
        assert all(len(set(resamples.of_samples[groups == g, 0])) == 1 for g in range(13))
    for scoring in ("balanced_accuracy", "accuracy"):
        found = crossed_score(right, scored, codes, resamples, scoring)
        for b in range(20):
            draws, means = np.repeat(np.arange(DRAWS), resamples.of_draws[:, b].astype(int)), []
            for draw in draws:
                often = resamples.of_samples[scored[draw], b].astype(int)
                of, ok = np.repeat(codes[scored[draw]], often), np.repeat(right[draw], often)
                recalls = [ok[of == c].mean() for c in np.unique(of)]
                means.append(np.mean(recalls) if scoring == "balanced_accuracy" else ok.mean())
            assert found.resampled[b] == pytest.approx(np.mean(means))


def test_one_draw_has_an_interval_from_what_it_is_scored_on_and_no_spread_has_none(table):
    codes, scored, right = table
    resamples = Resamples.of(DRAWS, N, None)
    one = crossed_score(right[:1], scored[:1], codes, resamples, "accuracy").interval
    assert one.low < one.mean < one.high
    assert "1 draw crossed with 25 scored samples" in one.method
    perfect = crossed_score([ok | True for ok in right], scored, codes, resamples, "accuracy").interval
    assert (perfect.mean, perfect.low, perfect.high) == (1.0, None, None)
    assert "no interval" in perfect.method


def test_the_interval_covers_the_score_of_fresh_draws_and_samples():
    """Draws differ in skill, samples in difficulty; in 90 worlds of 100 at least the expectation is inside."""
    covered = 0
    for seed in range(100):
        rng = np.random.default_rng(seed)
        skill, ease = rng.normal(0, 0.08, 20), rng.normal(0, 0.15, 60)
        p = np.clip(0.7 + skill[:, None] + ease, 0, 1)
        right = [rng.random(60) < row for row in p]
        resamples = Resamples.of(20, 60, None, n=300, random_state=seed)
        found = crossed_score(right, [np.arange(60)] * 20, np.zeros(60, dtype=int), resamples, "accuracy").interval
        covered += found.low <= 0.7 - 0.002 <= found.high
    assert 90 <= covered <= 100
