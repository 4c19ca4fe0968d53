"""Which samples to label next."""

from pathlib import Path

import numpy as np
import pytest

from featx.learn.linear import NewtonLogisticRegression
from featx.learn.suggestion import suggest_rows

CIFAR = Path(__file__).parents[2] / "../shared/data/cifar10-small"


def blobs(n_classes, n_each, d=8, seed=0):
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(n_classes), n_each)
    return 2.0 * rng.normal(size=(n_classes, d))[codes] + 0.5 * rng.normal(size=(len(codes), d)), codes


def test_suggestions_are_distinct_the_same_every_time_and_no_more_than_there_are():
    X, codes = blobs(4, 30)
    y, labelled = codes.astype(str), [0, 1, 30, 31]
    rows, predicted, probabilities = suggest_rows(X[labelled], y[labelled], X, 10, C=10.0)
    assert len(set(rows)) == 10
    assert set(predicted) <= {"0", "1"}
    assert np.allclose(probabilities.sum(axis=1), 1)
    assert np.array_equal(rows, suggest_rows(X[labelled], y[labelled], X, 10, C=10.0)[0])
    every = suggest_rows(X[labelled], y[labelled], X[:6], 10, C=10.0)[0]
    assert sorted(every) == list(range(6))


def test_they_cover_the_classes_that_have_no_label_yet():
    """Of six classes six random samples hit 6 (1 - (5/6)^6) = 3.99 on average."""
    covered = []
    for seed in range(20):
        X, codes = blobs(6, 40, seed=seed)
        labelled = [0, 1, 40, 41]
        rows, _, _ = suggest_rows(X[labelled], codes[labelled].astype(str), X, 6, C=10.0)
        covered.append(len(set(codes[rows])))
    assert np.mean(covered) > 4.5


def test_copies_come_last():
    X, codes = blobs(2, 10)
    copies = np.repeat(X[:3], 5, axis=0)
    rows, _, _ = suggest_rows(X[[3, 13]], codes[[3, 13]].astype(str), copies, 4, C=10.0)
    assert sorted(rows[:3] // 5) == [0, 1, 2]
    assert len(set(rows)) == 4


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR.is_dir(), reason="needs ../shared")
def test_they_are_not_worse_than_chance_on_cifar(tmp_path):
    """Two labels of each class, then five times 20 more, chosen or drawn: the scores of 20 such runs, paired."""
    import featx

    featx.extract(CIFAR, tmp_path / "x.h5", request=featx.FeatureRequest(backbone="featx-mini"))
    data = featx.load_features(tmp_path / "x.h5")
    X = data.X / np.linalg.norm(data.X.astype(np.float64), axis=1, keepdims=True)
    train, test = (np.flatnonzero(data.splits == name) for name in ("train", "test"))

    def score(labelled):
        return np.mean(
            NewtonLogisticRegression(C=10.0).fit(X[labelled], data.y[labelled]).predict(X[test]) == data.y[test]
        )

    def run(seed, chosen):
        rng, scores = np.random.default_rng(seed), []
        labelled = np.concatenate([rng.choice(train[data.y[train] == c], 2, replace=False) for c in np.unique(data.y)])
        for _ in range(5):
            left = np.setdiff1d(train, labelled)
            new = rng.choice(left, 20, replace=False)
            if chosen:
                new = left[suggest_rows(X[labelled], data.y[labelled], X[left], 20, C=10.0, random_state=seed)[0]]
            labelled = np.concatenate([labelled, new])
            scores.append(score(labelled))
        return np.mean(scores)

    ahead = np.array([run(seed, True) - run(seed, False) for seed in range(20)])
    assert ahead.mean() > -2 * ahead.std(ddof=1) / len(ahead) ** 0.5
