"""What `featx fit a.h5 b.h5` promises: one set of samples and folds, a choice that is paid for, ties that are said."""

import dataclasses
import json

import numpy as np
import pytest
from feature_files import apart, spec_of, write_file
from threadpoolctl import threadpool_limits

from featx.errors import InputError, LabelsError, UsageError
from featx.fit import FitOptions, fit, fit_features, save
from featx.learn.bundle import load_bundle
from featx.learn.dataset import LockedPart
from featx.learn.search_ledger import SearchLedger

QUICK = FitOptions(cv=3, inner_cv=2, C_grid=(1e-2, 1, 2), scalings=("raw",), n_jobs=1)
LEAN = dataclasses.replace(QUICK, calibration="none", conformal="off", novelty=False, leak_gap=False)
N = 48


@pytest.fixture(autouse=True)
def _quick(no_waiting_for_the_disk):
    with threadpool_limits(1):
        yield


def features(n=N, d=4, *, seed=0, **changes):
    return apart(n, d, seed=seed, spec=spec_of(d, f"tiny{d}"), digest=f"{seed}", **changes)


def write(path, data):
    return write_file(path, data, weights=data.digest.encode())


def patients(n=N, size=3):
    return [f"p{i // size}" for i in range(n)]


# One set of samples and folds


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"y": [f"class {(i + (i == 7)) % 2}" for i in range(N)]}, LabelsError, "another label, the first '007.png'"),
        ({"groups": ["other", *patients()[1:]]}, LabelsError, "another group, the first '000.png': 'p0' and 'other'"),
        ({"groups": patients(), "splits": ["train"] * N}, LabelsError, "another split"),
        ({"groups": patients(), "folds": ["0", "1", "2"] * 16}, LabelsError, "another fold"),
        ({"groups": patients(), "sha256": ["f" * 64] * N}, InputError, "other images in b.h5 than in a.h5"),
        ({"groups": patients(), "keys": [f"{i:03d}.jpg" for i in range(N)]}, InputError, "no sample is in every file"),
    ],
)
def test_files_that_disagree_are_refused_with_their_names(tmp_path, changed, error, words):
    one = write(tmp_path / "a.h5", features(groups=patients()))
    other = write(tmp_path / "b.h5", features(**({"groups": patients()} | changed), seed=1))
    with pytest.raises(error, match=words) as caught:
        fit([one, other], LEAN)
    assert "a.h5" in str(caught.value)
    assert "b.h5" in str(caught.value)


def test_a_file_that_lacks_samples_is_named_and_allow_missing_takes_the_common_ones(tmp_path):
    paths = [
        write(tmp_path / "a.h5", features()),
        write(tmp_path / "b.h5", features(seed=1).take(np.arange(6, N))),
    ]
    with pytest.raises(InputError, match=r"b\.h5 lacks 6 that another has, the first '000.png'"):
        fit(paths, LEAN)
    result = fit(paths, dataclasses.replace(LEAN, allow_missing=True))
    assert (result.to_dict()["n_samples"], result.n_missing) == (N - 6, 6)


def test_no_file_and_the_same_one_twice_are_refused(tmp_path):
    path = write(tmp_path / "a.h5", features())
    with pytest.raises(UsageError, match="at least one"):
        fit([], LEAN)
    with pytest.raises(UsageError, match="given twice"):
        fit([path, tmp_path / "." / "a.h5"], LEAN)


def test_one_path_or_a_list_of_one_are_the_same(tmp_path):
    path = write(tmp_path / "a.h5", features())
    one, other = (json.loads(json.dumps(fit(given, LEAN).to_dict())) for given in (path, [path]))
    assert {**one, "seconds": 0} == {**other, "seconds": 0}
    assert (one["file"], one["files"], one["file_of_fold"]) == (None, {}, [])


# Several are as good as each alone


@pytest.fixture(scope="module")
def grouped():
    """Three files of the same patients, two heads: the whole account, and that of each file alone."""
    groups = patients()
    y = [f"class {i // 3 % 2}" for i in range(N)]
    files = {
        "a.h5": features(y=y, groups=groups, signal=0.5),
        "b.h5": features(y=y, groups=groups, signal=2.5, seed=1, d=6).take(np.random.default_rng(0).permutation(N)),
        "c.h5": features(y=y, groups=groups, signal=1.5, seed=2),
    }
    options = dataclasses.replace(QUICK, heads=("logreg", "prototype"), by_group=True)
    with threadpool_limits(1):
        order = np.argsort(files["b.h5"].keys)
        sorted_files = files | {"b.h5": files["b.h5"].take(order)}
        alone = {name: fit_features(one, options) for name, one in sorted_files.items()}
        return fit_features(files, options), alone


def test_each_file_alone_has_the_scores_it_has_in_a_fit_of_its_own(grouped):
    result, alone = grouped
    assert list(result.files) == list(alone)
    for name, head in result.files.items():
        assert head.evaluation == alone[name].whole.evaluation
        assert head.folds == alone[name].whole.folds
    assert result.n_fits == sum(one.n_fits for one in alone.values())


def test_the_saved_classifier_its_probabilities_and_its_neighbours_are_those_of_the_winner(grouped):
    result, alone = grouped
    winner = alone[result.file]
    assert result.file == "b.h5"
    assert (result.spec, result.digest, result.views) == (winner.spec, winner.digest, winner.views)
    X = np.random.default_rng(5).normal(size=(9, 6))
    np.testing.assert_array_equal(result.estimator.predict_proba(X), winner.estimator.predict_proba(X))
    assert result.trust.to_dict() == winner.trust.to_dict()
    assert all(head.n_features_in_ == 6 for head in result.trust.conformal.heads)
    assert result.leaks.one_nn == winner.leaks.one_nn
    assert result.leaks.near.rule == winner.leaks.near.rule
    assert "told of b.h5 alone" in result.description


def test_each_fold_is_called_by_the_file_and_head_that_won_its_inner_folds(grouped):
    result, alone = grouped
    for place, (file, (fold, choice)) in enumerate(zip(result.file_of_fold, result.whole.folds, strict=True)):
        scores = {
            (name, head): one.heads[head].folds[place][1].score for name, one in alone.items() for head in one.heads
        }
        assert scores[file, choice.head] == max(scores.values()) == choice.score
        of_fold = [row for row in result.out_of_fold if row.fold == fold]
        own = alone[file].heads[choice.head].evaluation.scores["accuracy"].folds[place]
        assert np.mean([row.true == row.predicted for row in of_fold]) == pytest.approx(own)


def test_the_leak_gap_is_that_of_the_whole_selection(grouped):
    result, _ = grouped
    gap = result.leaks.gap
    assert gap.second == pytest.approx(result.whole.evaluation.scores["balanced_accuracy"].mean)
    assert "The leak gap is that of the whole selection." in result.description


def test_json_names_the_file_the_files_and_what_the_choice_is_worth(grouped):
    result, _ = grouped
    data = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert data["file"] == "b.h5"
    assert list(data["files"]) == ["a.h5", "b.h5", "c.h5"]
    assert set(data["file_of_fold"]) <= set(data["files"])
    assert len(data["file_of_fold"]) == 3
    compared = data["comparisons"]
    assert (compared["next_file"]["first"], compared["next_file"]["unit"]) == ("b.h5", "groups")
    assert compared["runner_up"]["first"].endswith(" on b.h5")
    assert compared["guessing"]["tie"] is False
    assert len(compared["words"]) == 3
    assert "3 files compete" in data["description"]
    assert "whole procedure, choices included" in data["estimand"]


def test_near_duplicates_in_any_file_are_kept_together():
    copies = features(d=8, seed=3)
    copies.X[30] = copies.X[0] + 1e-4
    files = {"a": features(seed=4, d=8), "b": copies}
    options = dataclasses.replace(LEAN, group_near_duplicates=True, near_duplicate_distance=1e-3)
    result = fit_features(files, options)
    assert result.groups.ids[0] == result.groups.ids[30]
    assert result.groups.n == N - 1
    assert fit_features(files["a"], options).groups.ids is None


def test_a_fixed_test_part_is_scored_once_by_the_winner_of_the_training_part():
    splits = ["train"] * 32 + ["test"] * 16
    files = {"a": features(splits=splits, signal=0.2), "b": features(splits=splits, signal=3.0, seed=1)}
    result = fit_features(files, LEAN)
    alone = fit_features(files["b"], LEAN)
    assert result.file == "b"
    assert result.whole.evaluation == alone.whole.evaluation
    assert result.comparisons.next_file.n_units == 16
    assert not result.comparisons.guessing.is_tie


# Interrupted, watched, saved


def test_one_ledger_serves_all_files_and_progress_is_one_count(tmp_path):
    files = {"a": features(), "b": features(seed=1, d=5)}
    seen = []
    ledger = SearchLedger(tmp_path / "x.search", resume=False)
    first = fit_features(files, QUICK, ledger=ledger, progress=lambda done, total: seen.append((done, total)))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]
    again = SearchLedger(tmp_path / "x.search", resume=True)
    second = fit_features(files, QUICK, ledger=again)
    assert again.n_found == 2 * 4
    assert {**first.to_dict(), "seconds": 0} == {**second.to_dict(), "seconds": 0}


def test_the_bundle_holds_the_winners_features_and_weights(tmp_path):
    paths = [
        write(tmp_path / "a.h5", features(signal=0.2)),
        write(tmp_path / "b.h5", features(signal=3.0, d=6, seed=1)),
    ]
    result = fit(paths, QUICK)
    assert (result.file, result.weights) == ("b.h5", b"1")
    save(result, tmp_path / "x.featx")
    bundle = load_bundle(tmp_path / "x.featx")
    assert bundle.spec.backbone == "tiny6"
    assert bundle.facts["file"] == "b.h5"


# The choice is paid for


@pytest.mark.slow
def test_on_noise_the_whole_selection_scores_chance_where_the_best_of_shows_more():
    options = dataclasses.replace(LEAN, heads=("lda",))
    whole, best_of = [], []
    for seed in range(25):
        y = np.random.default_rng((1, seed)).permutation([f"class {i % 2}" for i in range(40)])
        files = {f"{k}": features(40, signal=0.0, y=y, seed=(seed, k)) for k in range(6)}
        result = fit_features(files, options)
        whole.append(result.whole.evaluation.scores["balanced_accuracy"].mean)
        best_of.append(max(one.evaluation.scores["balanced_accuracy"].mean for one in result.files.values()))
    error = np.std(whole, ddof=1) / len(whole) ** 0.5
    assert abs(np.mean(whole) - 0.5) < 3 * error < 0.06
    assert np.mean(best_of) > 0.55
    assert np.mean(best_of) - np.mean(whole) > 3 * error


def test_a_tie_is_said_with_what_is_simpler_and_what_is_better_is_said_too():
    shared = features(signal=1.0, d=5)
    twin = dataclasses.replace(shared, X=np.hstack([shared.X, np.zeros((N, 2), np.float32)]))
    tied = fit_features({"long": twin, "short": shared}, LEAN)
    assert tied.comparisons.next_file.is_tie
    assert any(
        "tie: " in text and "short has fewer features (5, not 7)" in text for text in tied.comparisons.describe()
    )
    told = fit_features({"good": features(signal=4.0), "bad": features(signal=0.0, seed=1)}, LEAN)
    assert told.comparisons.describe()[0].startswith("good is better than bad (balanced_accuracy ")
    noise = fit_features({"a": features(signal=0.0), "b": features(signal=0.0, seed=1)}, LEAN)
    assert noise.comparisons.describe()[-1].startswith("tie: not to be told from guessing the largest class")


def test_one_file_and_one_head_are_compared_with_guessing_alone():
    result = fit_features(features(signal=3.0), LEAN)
    assert (result.comparisons.runner_up, result.comparisons.next_file) == (None, None)
    assert result.comparisons.describe()[0].startswith("better than guessing the largest class")


def test_looks_at_the_locked_part_of_any_file_are_told():
    part = LockedPart(3, "2024-05-01", (), ("0" * 64,))
    looked = dataclasses.replace(part, looks=("2024-05-02",))
    files = {
        "a": dataclasses.replace(features(signal=3.0), locked=part),
        "b": dataclasses.replace(features(signal=0.0, seed=1), locked=looked),
    }
    result = fit_features(files, LEAN)
    assert result.file == "a"
    assert result.to_dict()["locked"]["looks"] == ["2024-05-02"]
    assert any("has been looked at (2024-05-02)" in note for note in result.notes)
