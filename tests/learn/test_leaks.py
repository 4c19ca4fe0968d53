"""The leak guard inside a fit: what groups give away, copies across folds, a neighbour that knows too much."""

import dataclasses
import json
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits

from featx.errors import LabelsError, UsageError
from featx.fit import FitOptions, fit_features, save
from featx.learn.bundle import read_facts
from featx.learn.dataset import Features
from featx.learn.leaks import contrast, find_splits, name_pairs, predict_by_nearest
from featx.learn.near_duplicates import find_near_duplicates
from featx.learn.splits import make_folds
from featx.spec import FeatureSpec, Preprocess

SPEC = FeatureSpec("tiny", "random:0", "0" * 64, "head", "avg", (64,), Preprocess((8,), (8, 8), (0.0,) * 3, (1.0,) * 3))
QUICK = FitOptions(cv=4, inner_cv=2, C_grid=(1e-1, 10, 2), scalings=("raw",), n_jobs=1)


@pytest.fixture(autouse=True)
def _one_thread():
    with threadpool_limits(1):
        yield


def features(X, y, groups=None, **columns):
    n = len(y)
    empty = np.array([""] * n, dtype=object)
    known = {
        "groups": empty if groups is None else np.array(groups, dtype=object),
        "keys": np.array([f"{i:03d}.png" for i in range(n)], dtype=object),
        "splits": empty,
        "folds": empty,
        "sha256": np.array([f"{i:064x}" for i in range(n)], dtype=object),
    }
    given_columns = {name: np.array(values, dtype=object) for name, values in columns.items()}
    source = "" if groups is None else "column patient"
    return Features(
        X=np.asarray(X, np.float32), y=np.array(y), **(known | given_columns), spec=SPEC, group_source=source
    )


def patients(n_patients=40, n_each=6, noise=0.5, d=64, seed=0):
    """Images that show who it is, and labels that mean nothing: one for each patient, by lot."""
    rng = np.random.default_rng(seed)
    of = np.repeat(np.arange(n_patients), n_each)
    X = rng.normal(size=(n_patients, d))[of] + noise * rng.normal(size=(len(of), d))
    y = rng.permutation(np.arange(n_patients) % 2)[of]
    return X, [f"c{label}" for label in y], [f"p{patient}" for patient in of]


def mean_of(result):
    return result.whole.evaluation.scores["balanced_accuracy"].mean


# leak_gap


@pytest.mark.slow
def test_identity_without_meaning_scores_near_1_without_groups_and_chance_with_them():
    with_groups, without, gaps = [], [], []
    for seed in range(4):  # one set of 40 coin tosses may well come out at 0.4
        X, y, groups = patients(noise=0.3, seed=seed)
        grouped = fit_features(features(X, y, groups), QUICK)
        with_groups.append(mean_of(grouped))
        without.append(mean_of(fit_features(features(X, y), QUICK)))
        gaps.append(grouped.to_dict()["leak_gap"])
    assert min(without) > 0.95
    assert np.mean(with_groups) == pytest.approx(0.5, abs=0.1)
    assert np.mean(gaps) == pytest.approx(0.5, abs=0.1)


def test_the_gap_is_that_of_two_fits_one_of_which_knows_no_groups():
    X, y, groups = patients(20, 4)
    sha = [f"{i // 2:064x}" for i in range(len(y))]  # and identical bytes, which are ignored as well
    grouped = fit_features(features(X, y, groups, sha256=sha), dataclasses.replace(QUICK, repeats=2))
    alone = fit_features(features(X, y), QUICK)
    data = grouped.to_dict()
    assert data["leaks"]["leak_gap"]["ungrouped"] == mean_of(alone)
    assert data["leaks"]["leak_gap"]["grouped"] == mean_of(grouped)
    assert data["leak_gap"] == mean_of(alone) - mean_of(grouped)
    interval = data["leaks"]["leak_gap"]["difference"]
    assert interval["low"] < interval["mean"] < interval["high"]
    assert interval["mean"] == pytest.approx(data["leak_gap"])


@pytest.mark.parametrize(
    ("changes", "columns", "why"),
    [
        ({}, {"groups": None}, "no two samples share a group"),
        ({"leak_gap": False}, {}, "left out as asked for"),
        ({}, {"splits": ["train"] * 24 + ["val"] * 24 + ["test"] * 32}, "nothing to cross-validate"),
    ],
)
def test_without_groups_or_folds_there_is_no_gap_and_the_report_says_why(changes, columns, why):
    X, y, groups = patients(20, 4)
    result = fit_features(features(X, y, **({"groups": groups} | columns)), dataclasses.replace(QUICK, **changes))
    data = result.to_dict()
    assert data["leak_gap"] is None
    assert data["leaks"]["leak_gap"] is None
    assert why in data["leaks"]["no_leak_gap"]


def test_groups_change_nothing_of_the_other_numbers_whether_the_gap_is_wanted_or_not():
    X, y, groups = patients(20, 4)
    one, other = (
        fit_features(features(X, y, groups), dataclasses.replace(QUICK, leak_gap=wanted)) for wanted in (True, False)
    )
    assert one.whole.to_dict() == other.whole.to_dict()
    assert (one.estimator[-1].coef_ == other.estimator[-1].coef_).all()
    assert one.n_fits > other.n_fits


def test_a_prescribed_fold_column_is_compared_with_as_many_folds_that_ignore_it():
    X, y, groups = patients(20, 4)
    folds = [f"site {int(group[1:]) % 5}" for group in groups]
    result = fit_features(features(X, y, groups, folds=folds), QUICK)
    alone = fit_features(features(X, y), dataclasses.replace(QUICK, cv=5))
    assert result.to_dict()["leaks"]["leak_gap"]["ungrouped"] == mean_of(alone)


# Near-duplicates


def copies(n=60, every=6, seed=0):
    """Two classes of independent samples, and copies of some with a little noise."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 64))
    X = np.concatenate([X, X[::every] + 0.1 * rng.normal(size=(len(X[::every]), 64))])
    return X, [f"c{i % 2}" for i in [*range(n), *range(0, n, every)]]


def test_copies_in_training_and_test_are_counted_and_named_and_grouping_ends_it():
    X, y = copies()
    found = fit_features(features(X, y), QUICK).to_dict()
    near = found["leaks"]["near_duplicates"]
    assert near["n_pairs"] == near["n_in_different_groups"] == 10
    assert 0 < near["n_in_training_and_test"] <= 10
    assert [pair["in_training_and_test"] for pair in near["pairs"]] == sorted(
        (pair["in_training_and_test"] for pair in near["pairs"]), reverse=True
    )
    expected = {(f"{i:03d}.png", f"{60 + place:03d}.png") for place, i in enumerate(range(0, 60, 6))}
    assert {tuple(pair["keys"]) for pair in near["pairs"]} == expected
    [note] = [note for note in found["warnings"] if "near-duplicates" in note]
    assert "10 pairs of near-duplicates with no group in common" in note
    assert " ~ ".join(near["pairs"][0]["keys"]) in note
    assert near["rule"] in note
    assert "--group-near-duplicates" in note
    json.dumps(found, allow_nan=False)

    grouped = fit_features(features(X, y), dataclasses.replace(QUICK, group_near_duplicates=True)).to_dict()
    near = grouped["leaks"]["near_duplicates"]
    assert (near["n_pairs"], near["n_in_different_groups"], near["n_in_training_and_test"]) == (10, 0, 0)
    assert grouped["groups"] == {"n": 60, "source": "near-duplicates"}
    assert not any("no group in common" in note for note in grouped["warnings"])
    assert grouped["leak_gap"] is not None


def test_copies_inside_a_group_are_reported_and_no_reason_for_a_warning():
    X, y = copies()
    groups = [f"p{i}" for i in [*range(60), *range(0, 60, 6)]]
    result = fit_features(features(X, y, groups), QUICK)
    near = result.to_dict()["leaks"]["near_duplicates"]
    assert (near["n_pairs"], near["n_in_different_groups"], near["pairs"]) == (10, 0, [])
    assert not any("near-duplicates" in note for note in result.notes)


def test_copies_across_a_fixed_split_are_counted_and_grouping_refuses_the_split():
    X, y = copies()
    data = features(X, y, splits=["train"] * 60 + ["test"] * 10)
    near = fit_features(data, QUICK).to_dict()["leaks"]["near_duplicates"]
    assert (near["n_pairs"], near["n_in_training_and_test"]) == (10, 10)
    with pytest.raises(LabelsError, match="puts group"):
        fit_features(data, dataclasses.replace(QUICK, group_near_duplicates=True))


def test_a_cluster_of_a_large_part_of_the_rows_is_refused():
    X, y, _ = patients(4, 20, noise=0.3)
    with pytest.raises(LabelsError, match=r"would join 20 of 80 samples.*more than 20% is refused"):
        fit_features(
            features(X, y), dataclasses.replace(QUICK, group_near_duplicates=True, near_duplicate_distance=0.3)
        )


def test_the_distance_may_be_set_and_is_reported():
    X, y = copies()
    result = fit_features(features(X, y), dataclasses.replace(QUICK, near_duplicate_distance=0.0))
    assert result.to_dict()["leaks"]["near_duplicates"]["distance"] == 0.0
    assert len(result.leaks.near) == 0
    with pytest.raises(UsageError, match="--near-duplicate-distance"):
        FitOptions(near_duplicate_distance=3)


def test_no_name_of_a_sample_gets_into_a_bundle(tmp_path):
    X, y = copies()
    result = fit_features(features(X, y), QUICK)
    save(result, tmp_path / "x.featx")
    facts = read_facts(tmp_path / "x.featx")
    assert ".png" not in json.dumps(facts)
    assert any("10 pairs of near-duplicates" in note for note in facts["warnings"])
    assert facts["leaks"]["near_duplicates"]["n_pairs"] == 10


@given(seed=st.integers(0, 999), n_splits=st.integers(2, 5))
@settings(max_examples=30, deadline=None)
def test_a_pair_is_split_when_some_fold_has_one_in_training_and_one_in_test(seed, n_splits):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(40, 3)).astype(np.float32)
    near, ids = find_near_duplicates(X, distance=0.3), rng.integers(0, 15, 40)
    cuts = [tuple(np.split(rng.permutation(40)[:30], [20])) for _ in range(n_splits)]
    others, is_split = find_splits(near, ids, cuts)
    expected = {}
    for place, (one, other) in enumerate(near.pairs.tolist()):
        if ids[one] != ids[other]:
            expected[place] = any(
                (one in train and other in test) or (other in train and one in test) for train, test in cuts
            )
    assert dict(zip(others.tolist(), is_split.tolist(), strict=True)) == expected
    named = name_pairs(near, others, is_split, [str(i) for i in range(40)])
    assert len(named) == min(10, len(expected))
    assert [pair.is_split for pair in named] == sorted((pair.is_split for pair in named), reverse=True)


# The nearest neighbour


def test_the_nearest_neighbour_is_scikit_learns():
    X, y, groups = patients(15, 4, noise=2.0)
    y, ids = np.array(y), np.unique(groups, return_inverse=True)[1]
    folds = make_folds(y, ids, n_splits=3)
    cuts = [(fold.train, fold.test) for fold in folds]
    centred = X - X.mean(axis=0)
    found = predict_by_nearest(X.astype(np.float32), y, find_near_duplicates(X.astype(np.float32)), cuts)
    for (train, test), (rows, predicted) in zip(cuts, found, strict=True):
        reference = KNeighborsClassifier(1, metric="cosine").fit(centred[train], y[train])
        assert (rows == test).all()
        assert (predicted == reference.predict(centred[test])).all()


def test_a_neighbour_that_knows_far_more_than_a_linear_head_is_a_warning():
    X, y, groups = patients(60, 5, noise=0.05, d=4)  # four features: no plane tells sixty patients apart
    alone = fit_features(features(X, y), QUICK)
    one_nn = alone.to_dict()["leaks"]["nearest_neighbour"]
    assert one_nn["is_far"]
    assert one_nn["one_nn"] > 0.95
    assert one_nn["linear"] == mean_of(alone)
    assert one_nn["difference"]["low"] > 0.05
    assert any("nearest neighbour is right far more often than logreg" in note for note in alone.notes)
    named = fit_features(features(X, y, groups), QUICK)
    assert not named.to_dict()["leaks"]["nearest_neighbour"]["is_far"]
    assert not any("nearest neighbour" in note for note in named.notes)


@pytest.mark.parametrize("splits", [None, ["train"] * 160 + ["test"] * 80])
def test_where_a_plane_separates_the_classes_there_is_no_such_warning(splits):
    rng = np.random.default_rng(0)
    y = np.arange(240) % 2
    X = rng.normal(size=(240, 64)) + 1.0 * y[:, None] * (np.arange(64) < 8)
    data = features(X, [f"c{i}" for i in y], **({} if splits is None else {"splits": splits}))
    one_nn = fit_features(data, QUICK).to_dict()["leaks"]["nearest_neighbour"]
    assert not one_nn["is_far"]
    assert one_nn["one_nn"] < one_nn["linear"]


@given(seed=st.integers(0, 999), n_folds=st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_a_contrast_is_the_mean_over_folds_of_scikit_learns_balanced_accuracy(seed, n_folds):
    rng = np.random.default_rng(seed)
    y = np.array(["a", "b", "c"])[rng.permutation(np.arange(60) % 3)]

    def predictions():
        tests = np.array_split(rng.permutation(60), n_folds)
        return [(test, np.where(rng.random(len(test)) < 0.6, y[test], "a")) for test in tests]

    def mean(parts):
        with warnings.catch_warnings():  # a class that a small fold lacks may be predicted there
            warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
            return np.mean([balanced_accuracy_score(y[test], predicted) for test, predicted in parts])

    one, other = predictions(), predictions()
    found = contrast(y, one, other, rng.integers(0, 20, 60))
    assert (found.first, found.second) == (pytest.approx(mean(one)), pytest.approx(mean(other)))
    assert found.difference.mean == pytest.approx(mean(one) - mean(other))
    assert found.difference.low <= found.difference.mean + 0.2
    assert contrast(y, one, one, None).difference.low is None  # no width: every resample gives 0


def test_the_interval_of_a_contrast_covers_the_true_difference():
    """Two classifiers that are right with probability 0.8 and 0.7, on groups of five that share their fate."""
    rng, covered = np.random.default_rng(0), 0
    y = np.array(["a", "b"] * 150)
    groups = np.arange(300) // 6
    for _ in range(100):
        fate = np.repeat(rng.random((2, 50)), 6, axis=1)
        wrong = np.where(y == "a", "b", "a")
        parts = [[(np.arange(300), np.where(fate[i] < p, y, wrong))] for i, p in enumerate((0.8, 0.7))]
        interval = contrast(y, *parts, groups).difference
        covered += interval.low <= 0.1 <= interval.high
    assert 88 <= covered <= 100
